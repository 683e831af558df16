/** The daemon as a user runs it: a process of its own, asked over HTTP. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import amqp from 'amqplib'
import { expect } from 'vitest'

export const mainFile = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

export interface Daemon {
  readonly url: string
  readonly pid: number
  readonly folder: string
  /** Standard output and error, as far as they have come. */
  readonly said: () => string
  readonly metric: (name: string, label?: string) => Promise<number>
  readonly get: (path: string) => Promise<Response>
  readonly post: (body: string | Buffer, headers?: Record<string, string>) => Promise<{ status: number; body: Reply }>
  readonly signal: (signal: NodeJS.Signals) => void
  /** Its exit code, or the signal that ended it, and how long that took. */
  readonly ended: Promise<{ code: number | null; signal: string | null }>
  /** SIGTERM, and its exit code. */
  readonly stop: () => Promise<number | null>
}

export interface Reply {
  readonly id?: string
  readonly ids?: readonly string[]
  readonly results?: readonly { index: number; status: string; id?: string; reason?: string }[]
  readonly error?: { readonly code: string; readonly reason: string }
}

/** Asks until the answer is there, or the time is up. Waits for the thing itself, never for a time. */
export const eventually = async <A>(what: string, ask: () => Promise<A | undefined | false> | A | undefined | false, deadlineMs = 30_000): Promise<A> => {
  for (const end = Date.now() + deadlineMs; ; ) {
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer
    if (Date.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const folders: string[] = []
export const temporaryFolder = (name: string): string => {
  const folder = mkdtempSync(join(tmpdir(), `backhaul-${name}-`))
  folders.push(folder)
  return folder
}
process.once('exit', () => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })))

const running = new Set<ChildProcess>()
process.once('exit', () => running.forEach((child) => child.kill('SIGKILL')))

export const startDaemon = async (settings: Record<string, string>, args: readonly string[] = []): Promise<Daemon> => {
  if (!existsSync(mainFile)) throw new Error('dist/main.js is missing: npm run build')
  const folder = settings['BACKHAUL_DATA_DIR'] ?? temporaryFolder('data')
  const child = spawn(process.execPath, [mainFile, 'run', ...args], {
    env: { PATH: process.env['PATH'], BACKHAUL_DEVICE_ID: 'test-device', BACKHAUL_HTTP_PORT: '0', BACKHAUL_DATA_DIR: folder, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  const lines: string[] = []
  const ended = (once(child, 'exit') as Promise<[number | null, string | null]>).then(([code, signal]) => {
    running.delete(child)
    return { code, signal }
  })
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(line))
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      lines.push(line)
      const found = /running at (http:\/\/\S+) /.exec(line)
      if (found !== null) resolve(found[1] as string)
    })
    ended.then(
      ({ code }) => reject(new Error(`the daemon ended with ${code}\n${lines.join('\n')}`)),
      () => undefined,
    )
  })
  const get = (path: string) => fetch(`${url}${path}`)
  return {
    url,
    pid: child.pid as number,
    folder,
    said: () => lines.join('\n'),
    get,
    metric: async (name, label = '') => {
      const text = await (await get('/metrics')).text()
      const line = text.split('\n').find((one) => (one.startsWith(`${name} `) || one.startsWith(`${name}{`)) && one.includes(label))
      return Number(line?.split(' ').pop() ?? NaN)
    },
    post: async (body, headers = { 'content-type': 'application/json' }) => {
      const reply = await fetch(`${url}/v1/messages`, { method: 'POST', headers, body })
      return { status: reply.status, body: (await reply.json()) as Reply }
    },
    signal: (signal) => child.kill(signal),
    ended,
    stop: async () => {
      child.kill('SIGTERM')
      return (await ended).code
    },
  }
}

/** Promise 5 at rest: everything accepted here, written to the queue by others, or put back from the dead letters, is somewhere. */
export const booksOf = async (daemon: Daemon, queue: string) => {
  const [accepted, foreign, replayed, delivered, deadLettered, purged, spooled, queued] = await Promise.all([
    daemon.metric('backhaul_accepted_total'),
    daemon.metric('backhaul_foreign_total'),
    daemon.metric('backhaul_replayed_messages_total'),
    daemon.metric('backhaul_delivered_total'),
    daemon.metric('backhaul_dead_lettered_total'),
    daemon.metric('backhaul_purged_total'),
    daemon.metric('backhaul_spooled_messages'),
    daemon.metric('backhaul_queued_messages', `queue="${queue}"`),
  ])
  return { in: accepted + foreign + replayed, out: delivered + deadLettered + purged + queued + spooled, accepted, foreign, replayed, delivered, deadLettered, purged, queued, spooled }
}

/** Promise 5 of each pipeline, at any moment: taken = accepted + rejected + released + unsettled. */
export const pipelinesOf = async (daemon: Daemon): Promise<Record<string, { taken: number; answered: number }>> => {
  const text = await (await daemon.get('/metrics')).text()
  const of = (name: string) => Object.fromEntries([...text.matchAll(new RegExp(`^backhaul_pipeline_${name}\\{pipeline="(.*)"\\} (\\d+)`, 'gm'))].map(([, pipeline, count]) => [pipeline as string, Number(count)]))
  const [taken, ...answers] = ['taken_total', 'accepted_total', 'rejected_total', 'released_total', 'unsettled'].map(of)
  return Object.fromEntries(Object.entries(taken ?? {}).map(([pipeline, count]) => [pipeline, { taken: count, answered: answers.reduce((sum, one) => sum + (one[pipeline] ?? 0), 0) }]))
}

/** Asserted at the end of every test with a daemon; `took` names the pipelines that must have had something to do. */
export const expectBalanced = async (daemon: Daemon, ...took: readonly string[]): Promise<void> => {
  const pipelines = await pipelinesOf(daemon)
  for (const [pipeline, { taken, answered }] of Object.entries(pipelines)) expect(answered, pipeline).toBe(taken)
  for (const pipeline of took) expect(pipelines[pipeline]?.taken, pipeline).toBeGreaterThan(0)
}

/** The same for the whole daemon, at rest: what came in is out, or waits somewhere. */
export const expectBooks = async (daemon: Daemon, queue: string): Promise<void> => {
  await eventually('at rest', async () => {
    const { queued, spooled, delivered, accepted } = await booksOf(daemon, queue)
    return accepted > 0 && delivered > 0 && queued === 0 && spooled === 0
  })
  const books = await booksOf(daemon, queue)
  expect(books.out).toBe(books.in)
  await expectBalanced(daemon, 'ingest', 'forward')
}

let number = 0
/** A queue and a topic of a test's own, so that tests do not meet. */
export const ownNames = () => {
  number += 1
  const name = `test-${process.pid}-${number}-${Date.now().toString(36)}`
  return { queue: name, topic: `persistent://public/default/${name}`, configTopic: `persistent://public/default/ffc-configuration-${name}` }
}

export const dropQueues = async (amqpUrl: string, ...names: readonly string[]): Promise<void> => {
  const connection = await amqp.connect(amqpUrl)
  const channel = await connection.createChannel()
  for (const name of names) await channel.deleteQueue(name)
  await connection.close()
}
