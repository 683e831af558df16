import { asyncScheduler, catchError, defer, EMPTY, exhaustMap, filter, ignoreElements, tap, timeout, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Books } from '../books.js'
import { queueInspector } from '../connections/queue-inspector.js'
import type { Inspection, InspectQueues } from '../connections/queue-inspector.js'
import type { Log } from '../log.js'
import { problemsOf } from '../queue-problems.js'
import type { Problem } from '../queue-problems.js'
import type { Settings } from '../settings.js'
import type { Ports } from './ports.js'

export interface WatchParts {
  readonly books: Books
  readonly log: Log
  readonly ports?: Ports
}

const tickMs = 1000
/** From one beginning to the next: with the longest look it stays within a minute. */
export const periodMs = 35_000
const lookMs = 24_000
/** After a look that failed, or did not find a queue, the next one comes sooner, after twice as long each time. */
const firstSoonMs = 2_000
/** rabbitmqctl that was of no use is tried again at a connect, but no sooner; and after ten times as long anyway. */
const forgetMs = 60_000
/** What is connected once the queue is there. */
const links = ['rabbitmq', 'rabbitmq-dead-letters', 'rabbitmq-consume']

const connectedSince = (books: Books): string | undefined => {
  const up = links.map((name) => books.links.get(name)).filter((link) => link?.state === 'connected' || link?.state === 'blocked')
  return up.length === 0 ? undefined : up.map((link) => `${link?.name} ${link?.state === 'blocked' ? '' : link?.since}`).join()
}

const sameText = ({ text }: Problem) => (other: Problem): boolean => other.text === text

/** Tells each change once: an alarm as an error, for a person is needed; what has healed as well. */
const tell = (books: Books, log: Log, queue: string, problems: readonly Problem[]): void => {
  const before = books.queueProblems.get(queue) ?? []
  books.queueProblems.set(queue, problems)
  for (const problem of problems.filter((each) => !before.some(sameText(each)))) {
    const { severity, kind, text, remedy } = problem
    log[severity === 'alarm' ? 'error' : 'warn']({ queue, problem: kind, remedy }, `${queue} ${text}`)
  }
  for (const { kind, text } of before.filter((each) => !problems.some(sameText(each)))) log.info({ queue, problem: kind }, `healed: ${queue} ${text}`)
}

const defaultInspector = ({ amqpUrl: urls, amqpManagementUrl }: Settings, { host }: Ports): ReturnType<typeof queueInspector> =>
  queueInspector({
    urls,
    ...(amqpManagementUrl === undefined ? {} : { managementUrl: amqpManagementUrl }),
    ...(host === undefined ? {} : { host }),
  })

/**
 * Looks whether RabbitMQ keeps what it confirms: at each connect, and at least once a minute.
 * What it finds goes into the books, where readiness and metrics read it, and, when it changes,
 * into the log. Emits nothing; ends when it is unsubscribed.
 *
 * Never two looks at once, and none while RabbitMQ is away: that is no alarm of this kind, and
 * what was found stays until it is seen to be healed.
 */
export const watchQueues = (settings: Settings, { books, log, ports = {} }: WatchParts): Observable<never> =>
  defer(() => {
    const { amqpUrl, queue, roles } = settings
    if (amqpUrl.length === 0 || !(roles.includes('ingest') || roles.includes('forward'))) return EMPTY
    if (ports.inspectQueues === undefined && ports.openAmqp !== undefined) return EMPTY
    const own = defaultInspector(settings, ports)
    const inspect: InspectQueues = ports.inspectQueues ?? own.inspect
    let seenSince = '' // the connections at the last look
    let dueAt = 0
    let soonMs = firstSoonMs
    let forgotAt: number | undefined
    let unseen: string | undefined // why policies, or a queue, cannot be seen; told once

    const soon = (): void => {
      dueAt = Math.min(dueAt, asyncScheduler.now() + soonMs)
      soonMs = Math.min(periodMs, 2 * soonMs)
    }
    const take = ({ queues, policiesUnseen }: Inspection): void => {
      for (const each of queues) if (each.kind === 'seen') tell(books, log, each.queue, problemsOf(each))
      if (queues.some(({ kind }) => kind === 'missing')) soon()
      else soonMs = firstSoonMs
      const hidden = queues.flatMap((each) => (each.kind === 'unseen' ? [`${each.queue}: ${each.reason}`] : []))
      const reason = [...hidden, ...(policiesUnseen === undefined ? [] : [`policies: ${policiesUnseen}`])].join('; ')
      if (reason !== (unseen ?? '')) log.info({ reason }, reason === '' ? 'the queues and their policies are visible' : 'not everything that may drop messages in RabbitMQ is visible')
      unseen = reason
    }
    const look = defer(() => {
      const since = connectedSince(books) ?? ''
      const now = asyncScheduler.now()
      const age = Math.abs(now - (forgotAt ?? -Infinity))
      if (age >= (since === seenSince ? 10 * forgetMs : forgetMs)) {
        own.forget()
        forgotAt = now
      }
      seenSince = since
      dueAt = now + periodMs
      return inspect([queue, `${queue}.dead`]).pipe(
        timeout(lookMs),
        tap(take),
        catchError((error: unknown) => {
          log.debug({ reason: error instanceof Error ? error.message : String(error) }, 'the queues could not be looked at')
          soon()
          return EMPTY
        }),
      )
    })
    const due = (): boolean => {
      const since = connectedSince(books)
      dueAt = Math.min(dueAt, asyncScheduler.now() + periodMs) // the clock may have been set back
      return since !== undefined && (since !== seenSince || asyncScheduler.now() >= dueAt)
    }
    return timer(0, tickMs).pipe(
      filter(due),
      exhaustMap(() => look),
      ignoreElements(),
    )
  })
