#!/usr/bin/env node
/** The daemon and the commands: settings → compose → subscribe → drain on a signal. The only file that knows `process`. */
import { readFileSync, statSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import * as E from 'fp-ts/lib/Either.js'
import { pino } from 'pino'
import { firstValueFrom, lastValueFrom, Subject, tap } from 'rxjs'
import { parse } from 'yaml'
import { banner } from './commands/banner.js'
import { brokerCommand } from './commands/broker.js'
import { checkCommand } from './commands/check.js'
import { getConfiguration, watchConfiguration } from './commands/config.js'
import type { Console } from './commands/console.js'
import { exitCodes } from './commands/console.js'
import { askDaemon, daemonUrl } from './commands/daemon-client.js'
import { deadCommand } from './commands/dead-command.js'
import { doctorCommand } from './commands/doctor.js'
import type { Machine } from './commands/doctor-machine.js'
import { publishCommand } from './commands/publish.js'
import { listQueues, purgeQueue } from './commands/queues.js'
import { tailCommand } from './commands/tail.js'
import { isNative } from './connections/pulsar.js'
import { pulsarNative } from './connections/pulsar-native.js'
import { nodeHost } from './connections/rabbitmqctl.js'
import { machineSerial } from './device.js'
import { newBooks } from './books.js'
import { daemon } from './pipelines/daemon.js'
import { allQueues, queuesOf } from './pipelines/parts.js'
import type { PublisherSettings } from './pipelines/publisher.js'
import { decodeSettings, flagOf, settingNames } from './settings.js'
import type { Settings } from './settings.js'

const host = nodeHost(process)
const terminal: Console = {
  out: host.out,
  err: host.err,
  write: (bytes) => process.stdout.write(bytes),
  isTerminal: host.isTerminal,
  ask: (question) => (host.isTerminal ? firstValueFrom(host.ask(question), { defaultValue: undefined }) : Promise.resolve(undefined)),
}
const packageFile = new URL('../package.json', import.meta.url)
const { version, engines } = JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string; engines: { node: string } }

const machine: Machine = {
  nodeVersion: process.versions.node,
  nodeWanted: engines.node,
  now: Date.now,
  installedAt: statSync(packageFile).mtimeMs,
  timeZone: Intl.DateTimeFormat().resolvedOptions().timeZone,
  tz: process.env['TZ'],
  read: (path) => {
    try {
      return readFileSync(path, 'utf8')
    } catch {
      return undefined
    }
  },
}

/** Ends with a code, and with what was said already. */
class Ended extends Error {
  constructor(readonly exitCode: number) {
    super()
  }
}

const readConfig = (path: string | undefined): unknown => {
  if (path === undefined) return undefined
  try {
    return parse(readFileSync(path, 'utf8'))
  } catch (error) {
    host.err(`${path}: ${(error as Error).message.split('\n')[0]}`)
    throw new Ended(exitCodes.settings)
  }
}

/** Flags > environment > file > defaults. */
const decode = ({ config, ...flags }: Record<string, unknown>): ReturnType<typeof decodeSettings> => {
  const path = typeof config === 'string' ? config : process.env['BACKHAUL_CONFIG']
  return decodeSettings({
    flags: Object.fromEntries(Object.entries(flags).filter(([name]) => settingNames.some((known) => known === name))),
    environment: process.env,
    file: readConfig(path),
    deviceId: machineSerial(),
    readFile: (file) => readFileSync(file, 'utf8'),
  })
}

/** Wrong settings end here, with one line for each. */
const settingsFrom = (options: Record<string, unknown>): Settings => {
  const decoded = decode(options)
  if (E.isLeft(decoded)) {
    for (const line of decoded.left) host.err(line)
    throw new Ended(exitCodes.settings)
  }
  for (const line of decoded.right.warnings) host.err(`warning: ${line}`)
  return decoded.right.settings
}

const codeOf = (error: unknown): number => {
  if (error instanceof Ended) return error.exitCode
  const { code } = error as { code?: string }
  if (code === 'BACKHAUL_FOLDER_IN_USE') return exitCodes.inUse
  if (code === 'BACKHAUL_PULSAR_NATIVE_MISSING' || code === 'BACKHAUL_QUEUE_FORMAT') return exitCodes.settings
  return code === 'EADDRINUSE' || code === 'EADDRNOTAVAIL' || code === 'EACCES' ? exitCodes.settings : exitCodes.failed
}

const signals = (): Subject<void> => {
  const stop = new Subject<void>()
  let heard = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => {
      // The second one ends it at once: what is out comes again.
      if (heard) process.exit(130)
      heard = true
      stop.next()
    })
  return stop
}

/** Everything must be closed by then; a frozen peer may keep a socket open. */
const exitMs = 1000

const run = async (settings: Settings): Promise<number> => {
  const stop = signals()
  const log = pino({ level: settings.logLevel, base: null }, pino.destination({ dest: 2, sync: true }))
  // Known at the start, not when the first message waits.
  if (settings.pulsarUrl !== undefined && isNative(settings.pulsarUrl)) await lastValueFrom(pulsarNative())
  await lastValueFrom(
    daemon(settings, { stop, log, ports: { host } }).pipe(tap(({ url }) => banner(settings, url).forEach(host.out))),
    { defaultValue: undefined },
  )
  log.info({}, 'stopped')
  return exitCodes.ok
}

const publisherFor = async (settings: Settings, to: string | undefined): Promise<PublisherSettings> => {
  const { deviceId, idField, timeZone, httpToken: token, queue, queueType } = settings
  const given = { deviceId, idField, queue, queueType, ...(timeZone === undefined ? {} : { timeZone }), ...(token === undefined ? {} : { token }) }
  if (to !== undefined) return { ...given, to }
  const running = await askDaemon(settings, { method: 'GET', path: '/healthz' })
  if (running !== undefined) return { ...given, to: daemonUrl(settings) }
  return { ...given, to: settings.amqpUrl.length > 0 ? settings.amqpUrl.join(',') : settings.dataDir }
}

let exitCode: number = exitCodes.ok
const program = new Command('backhaul')
  .description('Every accepted message reaches Pulsar, in order.')
  .version(version)
  .exitOverride()
  .configureOutput({ writeErr: (text) => host.err(text.trimEnd()) })

/** A command that takes every setting as a flag, and reads them itself. */
const rawCommand = (name: string, about: string, act: (options: Record<string, unknown>, args: readonly string[]) => Promise<number> | number): Command => {
  const made = new Command(name).description(about).option('--config <file>', 'settings from a YAML file').exitOverride()
  made.configureOutput({ writeErr: (text) => host.err(text.trimEnd()) })
  for (const setting of settingNames) made.option(`${flagOf(setting)} <value>`)
  made.action(async () => {
    exitCode = await act(made.opts(), made.args)
  })
  return made
}
const command = (name: string, about: string, act: (settings: Settings, options: Record<string, unknown>, args: readonly string[]) => Promise<number> | number): Command =>
  rawCommand(name, about, (options, args) => act(settingsFrom(options), options, args))
const openQueues = (settings: Settings) => () => allQueues(queuesOf(settings, newBooks(Date.now()), pino({ level: 'silent' })))

program.addCommand(command('run', 'run the daemon (the default)', run), { isDefault: true })
program.addCommand(
  command('publish', 'publish JSON lines, an object or an array', async (settings, { to, topicLog, json }, [file = '-']) =>
    publishCommand(
      {
        publisher: await publisherFor(settings, to as string | undefined),
        file: (topicLog as string | undefined) ?? file,
        stdin: process.stdin,
        topicLog: topicLog !== undefined,
        json: json === true,
      },
      terminal,
    ),
  )
    .argument('[file]', 'a file, or - for standard input')
    .option('--to <address>', 'a daemon (http://), RabbitMQ (amqp://) or a data folder')
    .option('--topic-log <file>', 'send a local topic log on, under its own ids')
    .option('--json', 'one JSON line for each record'),
)
program.addCommand(
  command('tail', 'the last ten that were delivered, then live', (settings, { lines, count, json }) =>
    tailCommand(settings, { last: Number(lines), count: Number(count), json: json === true }, terminal, signals()),
  )
    .option('-n, --lines <number>', 'how many come first', '10')
    .option('--count <number>', 'end after so many', '0')
    .option('--json', 'whole frames'),
)
program.addCommand(
  new Command('queues')
    .description('depths, and removal')
    .addCommand(command('list', 'how many messages wait', (settings, { json }) => listQueues(settings, openQueues(settings), json === true, terminal)).option('--json', 'JSON'))
    .addCommand(
      command('purge', 'remove everything that waits in a queue', (settings, { yes }, [queue = '']) =>
        purgeQueue(settings, openQueues(settings), queue, yes === true, terminal),
      )
        .argument('<queue>')
        .option('--yes', 'do not ask'),
    ),
)
program.addCommand(deadCommand({ command, console: terminal, open: (settings) => queuesOf(settings, newBooks(Date.now()), pino({ level: 'silent' })) }))
program.addCommand(
  new Command('config')
    .description('the configuration that came over the device topic')
    .addCommand(command('get', 'print it', (settings) => getConfiguration(settings, terminal)))
    .addCommand(command('watch', 'print it each time it changes', (settings) => watchConfiguration(settings, terminal, signals()))),
)
program.addCommand(command('check', 'check the settings and print them', (settings, { json }) => checkCommand(settings, json === true, terminal)).option('--json', 'JSON'))
program.addCommand(
  rawCommand('doctor', 'look at everything that Backhaul needs, and say what to do', (options) => {
    const decoded = decode(options)
    const settings = E.isLeft(decoded) ? decoded.left : decoded.right.settings
    const warnings = E.isLeft(decoded) ? [] : decoded.right.warnings
    return doctorCommand({ settings, warnings, host, machine, json: options['json'] === true }, terminal)
  }).option('--json', 'one JSON object'),
)
program.addCommand(brokerCommand({ host, exit: (code) => (exitCode = code) }))

try {
  await program.parseAsync(process.argv)
} catch (error) {
  if (error instanceof CommanderError) exitCode = error.exitCode === 0 ? exitCodes.ok : exitCode === exitCodes.ok ? exitCodes.settings : exitCode
  else {
    if (!(error instanceof Ended)) host.err((error as Error).message)
    exitCode = codeOf(error)
  }
}
process.exitCode = exitCode
setTimeout(() => process.exit(exitCode), exitMs).unref()
