/** Where the real brokers are, for tests on the wire. */
import { execFile, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe } from 'vitest'

/** The addresses of one RabbitMQ and one Pulsar. */
export interface Brokers {
  readonly amqpUrl: string
  /** Pulsar's WebSocket API, and its REST API when `ws` is read as `http`. */
  readonly pulsarUrl: string
  /** Pulsar's own protocol; only the native client speaks it. */
  readonly pulsarBinaryUrl: string
}

export type BrokerName = 'rabbitmq' | 'pulsar'

/** Brokers of one test file's own: the only ones that a test may stop, kill or freeze. */
export interface OwnBrokers extends Brokers {
  readonly env: Readonly<Record<string, string>>
  /** Resolves when healthy, with the ports and the data it had before. */
  readonly start: (broker?: BrokerName) => Promise<void>
  readonly stop: (broker?: BrokerName) => Promise<void>
  /** SIGKILL; resolves when the process is gone. */
  readonly kill: (broker?: BrokerName) => Promise<void>
  /** SIGSTOP: connections stay open, and nobody answers. */
  readonly freeze: (broker?: BrokerName) => Promise<void>
  readonly thaw: (broker?: BrokerName) => Promise<void>
  readonly rabbitmqctl: (...args: readonly string[]) => Promise<string>
  /**
   * RabbitMQ 3.10 keeps a declaration in memory for up to two seconds, and forgets the queue, and all that is in it,
   * when it is killed within them (a quorum queue comes back empty then, and without a leader). This writes down what
   * is declared by now; it touches no message.
   */
  readonly remember: () => Promise<void>
  /** RabbitMQ's own log, so far. */
  readonly rabbitmqLog: () => string
  /** Makes a folder for a `PATH`, in which `rabbitmqctl` is this RabbitMQ's. */
  readonly toolFolder: () => string
  /** Ends both and removes their data. */
  readonly dispose: () => Promise<void>
}

const script = fileURLToPath(new URL('../../scripts/brokers.sh', import.meta.url))
const envFile = fileURLToPath(new URL('../../.brokers/env', import.meta.url))
const required = process.env['BACKHAUL_TEST_REQUIRE_BROKERS'] === '1' || process.env['CI'] === 'true'

const parseEnv = (text: string): Record<string, string> =>
  Object.fromEntries(
    [...text.matchAll(/^(\w+)=(.*)$/gm)].map(([, name = '', value = '']): [string, string] => [name, value]),
  )

const toBrokers = (env: Readonly<Record<string, string | undefined>>): Brokers | undefined => {
  const amqpUrl = env['BACKHAUL_TEST_AMQP_URL']
  const pulsarUrl = env['BACKHAUL_TEST_PULSAR_URL']
  const pulsarBinaryUrl = env['BACKHAUL_TEST_PULSAR_BINARY_URL'] ?? ''
  return amqpUrl && pulsarUrl ? { amqpUrl, pulsarUrl, pulsarBinaryUrl } : undefined
}

const listens = (url: string): Promise<boolean> =>
  new Promise((resolve) => {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port), timeout: 2_000 })
    const answer = (yes: boolean): void => {
      socket.destroy()
      resolve(yes)
    }
    socket.once('connect', () => answer(true))
    socket.once('error', () => answer(false))
    socket.once('timeout', () => answer(false))
  })

/** Vitest runs each file in a process of its own; a file named after their parent makes it one line for the run. */
const sayOnce = (line: string): void => {
  try {
    writeFileSync(join(tmpdir(), `backhaul-wire-skipped-${process.ppid}`), '', { flag: 'wx' })
    process.stderr.write(`${line}\n`)
  } catch {
    // another file of this run has said it
  }
}

const absent = (why: string): undefined => {
  if (required) throw new Error(`real brokers are required here, and ${why}`)
  sayOnce(`tests on the wire are skipped: ${why}`)
  return undefined
}

const lookUp = async (): Promise<Brokers | undefined> => {
  const given = toBrokers(process.env)
  if (given) return given
  let recorded: Brokers | undefined
  try {
    recorded = toBrokers(parseEnv(readFileSync(envFile, 'utf8')))
  } catch {
    recorded = undefined
  }
  if (recorded && (await listens(recorded.amqpUrl)) && (await listens(recorded.pulsarUrl))) return recorded
  return absent('no brokers are running: `npm run brokers` starts them')
}

let shared: Promise<Brokers | undefined> | undefined

/**
 * The shared brokers: those of `BACKHAUL_TEST_AMQP_URL` and `BACKHAUL_TEST_PULSAR_URL`, else those that
 * `npm run brokers` has started, else `undefined`. Never stop or freeze them; see `ownBrokers`.
 *
 * **Fails**: instead of giving `undefined`, where `BACKHAUL_TEST_REQUIRE_BROKERS=1` or `CI=true`.
 */
export const brokers = (): Promise<Brokers | undefined> => (shared ??= lookUp())

/** `describe` with the shared brokers; skipped without them, or failed where they are required. */
export const describeWire = async (title: string, body: (brokers: Brokers) => void): Promise<void> => {
  const found = await brokers()
  if (found) describe(title, () => body(found))
  else describe.skip(title, () => body({ amqpUrl: '', pulsarUrl: '', pulsarBinaryUrl: '' }))
}

const run = (dir: string, args: readonly string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    const env = { ...process.env, BACKHAUL_BROKERS_DIR: dir }
    execFile('bash', [script, ...args], { env }, (error, stdout, stderr) => {
      if (error) reject(new Error(`brokers.sh ${args.join(' ')}: ${stderr.trim() || error.message}`))
      else resolve(stdout)
    })
  })

/**
 * An own RabbitMQ and an own Pulsar for a test that needs faults, in a temporary folder and on own ports. The
 * addresses are known at once; nothing runs before `start`. `undefined` when this machine lacks the tools.
 * `pulsarConf` and `rabbitmqConf` are lines added to the brokers' settings.
 *
 * **Fails**: where brokers are required and the tools are missing.
 *
 * **Example**: `const own = ownBrokers('freeze'); await own?.start('pulsar'); await own?.freeze('pulsar')`
 */
export const ownBrokers = (
  name: string,
  { pulsarConf = '', rabbitmqConf = '', rabbitmqPlugins = '' }: { pulsarConf?: string; rabbitmqConf?: string; rabbitmqPlugins?: string } = {},
): OwnBrokers | undefined => {
  const check = spawnSync('bash', [script, 'check'], { encoding: 'utf8' })
  if (check.status !== 0) return absent(check.stderr.trim().replaceAll('\n', '; ') || 'there is no bash')

  const dir = mkdtempSync(join(tmpdir(), `backhaul-${name}-`))
  writeFileSync(join(dir, 'pulsar.extra.conf'), `${pulsarConf}\n`)
  writeFileSync(join(dir, 'rabbitmq.extra.conf'), `${rabbitmqConf}\n`)
  writeFileSync(join(dir, 'rabbitmq.plugins'), `[${rabbitmqPlugins}].\n`)
  const runSync = (verb: string): string =>
    spawnSync('bash', [script, verb], { encoding: 'utf8', env: { ...process.env, BACKHAUL_BROKERS_DIR: dir } }).stdout
  const env = parseEnv(runSync('env'))
  const addresses = toBrokers(env)
  if (!addresses) throw new Error(`brokers.sh env gave no addresses for ${dir}`)

  // A test that times out or is interrupted must not leave a Java process behind.
  const atExit = (): void => void runSync('kill')
  process.once('exit', atExit)
  const verb = (word: string) => async (broker?: BrokerName): Promise<void> =>
    void (await run(dir, broker ? [word, broker] : [word]))
  return {
    ...addresses,
    env,
    start: verb('start'),
    stop: verb('stop'),
    kill: verb('kill'),
    freeze: verb('freeze'),
    thaw: verb('thaw'),
    rabbitmqctl: (...args) => run(dir, ['rabbitmqctl', ...args]),
    remember: async () => void (await run(dir, ['rabbitmqctl', 'eval', 'mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].'])),
    rabbitmqLog: () => {
      const folder = join(dir, 'rabbitmq', 'log')
      return readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ name: file }) => readFileSync(join(folder, file), 'utf8'))
        .join('\n')
    },
    toolFolder: () => {
      const folder = join(dir, 'tools')
      mkdirSync(folder, { recursive: true })
      const words = `BACKHAUL_BROKERS_DIR='${dir}' exec bash '${script}' rabbitmqctl "$@"`
      writeFileSync(join(folder, 'rabbitmqctl'), `#!/bin/sh\n${words}\n`, { mode: 0o755 })
      return folder
    },
    dispose: async () => {
      await run(dir, ['kill'])
      process.off('exit', atExit)
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** `describe` with brokers of its own, which are ended and removed after its last test; skipped without the tools. */
export const describeFaults = (
  title: string,
  body: (own: OwnBrokers) => void,
  options: Parameters<typeof ownBrokers>[1] = {},
): void => {
  const own = ownBrokers(title.replace(/\W+/g, '-').slice(0, 30).toLowerCase(), options)
  if (!own) return void describe.skip(title, () => body({} as OwnBrokers))
  describe(title, () => {
    afterAll(() => own.dispose())
    body(own)
  })
}
