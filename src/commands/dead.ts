import { firstValueFrom, merge, ReplaySubject } from 'rxjs'
import { newBooks } from '../books.js'
import { sentProperties, summaryOf } from '../dead-letter.js'
import type { DeadSummary } from '../dead-letter.js'
import { deadLetters, deadLettersOpen } from '../pipelines/dead.js'
import type { DeadChoice, DeadPage, DeadProgress } from '../pipelines/dead.js'
import type { Queues } from '../pipelines/parts.js'
import type { Settings } from '../settings.js'
import { askDaemon, daemonUrl, refusal } from './daemon-client.js'

/** A dead letter with all that is known. */
export interface DeadShown extends DeadSummary {
  /** What its producer sent with it. */
  readonly properties: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** The dead letters, by way of a daemon or in this process. */
export interface DeadDesk {
  readonly list: (limit: number, after?: string) => Promise<DeadPage>
  readonly show: (id: string) => Promise<DeadShown | undefined>
  readonly replay: (choice: DeadChoice, rate: number) => Promise<DeadProgress>
  readonly drop: (choice: DeadChoice) => Promise<DeadProgress>
  readonly close: () => void
}

/** Opens the queues in this process: only while no daemon runs. */
export type OpenQueues = (settings: Settings) => Queues

/** The daemon answered something else than what was asked for. */
export class DaemonRefused extends Error {
  override readonly name = 'DaemonRefused'
  constructor(readonly status: number, message: string) {
    super(message)
  }
}

/** A request works for up to 20 s, and may wait for another one's turn. */
const timeoutMs = 60_000

const throughDaemon = (settings: Settings): DeadDesk => {
  const ask = async (method: 'GET' | 'POST', path: string, body?: object): Promise<{ status: number; answer: unknown }> => {
    const request = { method, path, ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }) }
    const reply = await askDaemon(settings, request, timeoutMs)
    if (reply === undefined) throw new DaemonRefused(503, `The daemon at ${daemonUrl(settings)} has gone`)
    const answer = ((): unknown => {
      try {
        return JSON.parse(reply.text)
      } catch {
        return undefined
      }
    })()
    const partial = (answer as Partial<DeadProgress> | undefined)?.ids !== undefined
    if (reply.status !== 200 && reply.status !== 404 && !partial)
      throw new DaemonRefused(reply.status, `The daemon at ${daemonUrl(settings)} answered ${refusal(reply)}`)
    return { status: reply.status, answer }
  }
  const work = async (path: string, { ids, within }: DeadChoice, rate?: number): Promise<DeadProgress> => {
    const which = ids === undefined ? { all: true } : { ids }
    const { answer } = await ask('POST', path, { ...which, ...(within === undefined ? {} : { within }), ...(rate === undefined ? {} : { rate }) })
    const { error, ...progress } = answer as DeadProgress & { error?: { reason: string } }
    return error === undefined ? progress : { ...progress, failed: error.reason }
  }
  return {
    list: async (limit, after) => (await ask('GET', `/v1/dead?limit=${limit}${after === undefined ? '' : `&after=${encodeURIComponent(after)}`}`)).answer as DeadPage,
    show: async (id) => {
      const { status, answer } = await ask('GET', `/v1/dead/${encodeURIComponent(id)}`)
      if (status === 404) return undefined
      const { body, ...shown } = answer as Omit<DeadShown, 'body'> & { body: string }
      return { ...shown, body: Buffer.from(body, 'base64') }
    },
    replay: (choice, rate) => work('/v1/dead/replay', choice, rate),
    drop: (choice) => work('/v1/dead/drop', choice),
    close: () => {},
  }
}

const inThisProcess = (queues: Queues): DeadDesk => {
  const failed = new ReplaySubject<never>(1)
  const holding = deadLettersOpen(queues).subscribe({ error: (error: unknown) => failed.error(error) })
  const { list, show, replay, drop } = deadLetters({ queues, books: newBooks(0), withSpool: true })
  return {
    list: (limit, after) => firstValueFrom(merge(failed, list(limit, after))),
    show: async (id) => {
      const dead = await firstValueFrom(merge(failed, show(id)))
      return dead === undefined ? undefined : { ...summaryOf(dead), properties: sentProperties(dead), body: dead.body }
    },
    replay: (choice, rate) => firstValueFrom(merge(failed, replay(choice, rate))),
    drop: (choice) => firstValueFrom(merge(failed, drop(choice))),
    close: () => holding.unsubscribe(),
  }
}

/** Through the running daemon; in this process when none answers. */
export const deadDesk = async (settings: Settings, open: OpenQueues): Promise<DeadDesk> => {
  const running = await askDaemon(settings, { method: 'GET', path: '/healthz' })
  return running === undefined ? inThisProcess(open(settings)) : throughDaemon(settings)
}
