import { catchError, concatMap, defer, EMPTY, expand, from, ignoreElements, map, Observable, of, retry, skipWhile, switchMap, take, takeUntil, tap, throwError, timeout, timer } from 'rxjs'
import type { Subscription } from 'rxjs'
import { isMissing } from '../connections/amqp-queue.js'
import type { DeclaredQueue } from '../connections/amqp-queue.js'
import type { AmqpQueue, AmqpReader } from '../connections/amqp-reader.js'
import { embeddedChannel } from '../connections/embedded-channel.js'
import type { QueueEngine } from '../connections/queue-engine.js'
import { decodeMessage } from '../message.js'
import type { Message } from '../message.js'

/** A message and where to look on from behind it. */
export interface Seen {
  readonly at: number
  readonly message: Message
}

/** What is in a queue, for people. Errors when the queue cannot be reached. */
export interface Inside {
  /** How many wait. */
  readonly waiting: () => Observable<number>
  /** Up to `max` behind a place, oldest first, the first place being 0. They stay where they are. */
  readonly look: (behind: number, max: number) => Observable<Seen>
  /** To take some out, while it is subscribed; errors when the queue is lost. */
  readonly channel: Observable<AmqpQueue>
  /** Completes once so many wait again: what was looked at goes back a moment after its channel is closed. */
  readonly whole: (least: number) => Observable<never>
}

/** The queue cannot be reached now. */
export class QueueAway extends Error {
  override readonly name = 'QueueAway'
  readonly code = 'BACKHAUL_QUEUE_AWAY'
}

const askMs = 3000
const away = (): Observable<never> => throwError(() => new QueueAway('RabbitMQ cannot be reached'))
/** The longest that a look may take. */
const lookMs = 20_000
const maxPrefetch = 65_535
const backMs = 20
const backTries = 100

/**
 * RabbitMQ has no look: messages are taken on a channel, and its close puts them back, in order.
 * A quorum queue puts what comes back behind whatever came back before, so all of it is taken each
 * time, as far as AMQP's prefetch goes: 65,535 letters. Those behind them are reached when these are gone.
 */
export const rabbitInside = (reader: AmqpReader, declared: DeclaredQueue): Inside => {
  const { queue } = declared
  // A queue that was never needed is empty.
  const waiting = (): Observable<number> =>
    reader.depth(queue).pipe(
      timeout({ first: askMs, with: away }),
      catchError((error: unknown) => (isMissing(error) ? of(0) : throwError(() => error))),
    )
  const channel = reader.channels(declared).pipe(
    skipWhile((open) => open === undefined),
    map((open) => {
      if (open === undefined) throw new QueueAway('the connection to RabbitMQ was lost')
      return { consume: (_prefetch: number, give: (message: Message, tag: number) => void) => open.consume(maxPrefetch, give) }
    }),
    timeout({ first: askMs, with: away }),
  )
  const read = (behind: number, last: number): Observable<Seen> =>
    new Observable((subscriber) => {
      let at = 0
      const seen = (message: Message): void => {
        at += 1
        if (at > behind && at <= last) subscriber.next({ at, message })
        if (at === last) subscriber.complete()
      }
      const fail = (error: unknown): void => subscriber.error(error)
      let consuming: Subscription | undefined
      const watching = channel.subscribe({
        next: ({ consume }) => {
          consuming = consume(last, seen).subscribe({ error: fail })
        },
        error: fail,
      })
      return () => {
        consuming?.unsubscribe()
        watching.unsubscribe()
      }
    })
  return {
    waiting,
    look: (behind, max) =>
      waiting().pipe(
        map((depth) => Math.min(depth, behind + max, maxPrefetch)),
        switchMap((last) => (last > behind ? read(behind, last) : EMPTY)),
        timeout({ first: lookMs, each: lookMs }),
      ),
    channel,
    whole: (least) =>
      defer(waiting).pipe(
        tap((now) => {
          if (now < least) throw new Error('not all are back')
        }),
        retry({ count: backTries, delay: backMs }),
        takeUntil(timer(backTries * backMs)),
        ignoreElements(),
        // Somebody else may have taken some.
        catchError(() => EMPTY),
      ),
  }
}

/** The most that are read at once. */
const pageEntries = 1000

export const embeddedInside = (store: Observable<QueueEngine>): Inside => {
  const engine = store.pipe(take(1))
  const page = (behind: number, max: number): Observable<{ readonly left: number; readonly seen: readonly Seen[] }> =>
    store.pipe(
      take(1),
      switchMap(({ peek }) => peek(behind + 1, Math.min(pageEntries, max))),
      map((entries) => ({
        left: max - entries.length,
        seen: entries.map(({ seq, body, headers }) => ({ at: seq, message: decodeMessage(body, headers) })),
      })),
    )
  return {
    waiting: () => engine.pipe(map(({ stats }) => stats().depth)),
    look: (behind, max) =>
      page(behind, max).pipe(
        expand(({ left, seen }) => (seen.length === 0 || left <= 0 ? EMPTY : page(seen.at(-1)?.at ?? 0, left))),
        concatMap(({ seen }) => from(seen)),
      ),
    // The queue stays open as long as the channel is used.
    channel: store.pipe(map(embeddedChannel)),
    whole: () => EMPTY,
  }
}
