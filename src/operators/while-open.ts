import { asyncScheduler, defer, finalize, map, NEVER, Observable, startWith, Subscription, tap, throwError } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Answered, Connection, Delivery, Writer } from '../delivery.js'
import { deliver } from './deliver.js'

export interface WhileOpenOptions<T> {
  /** How long to sit on deliveries without a writer, or without a confirm while a write is out. @default 60000 */
  readonly patienceMs?: number
  readonly stop?: Observable<unknown>
  /** Called when the far end confirmed the value it was tried with: its source still has it, and gives it again. */
  readonly proved?: (value: T) => void
  /** Whether a value that comes again is the one that was tried: one that the far end refused then is not tried again. @default Object.is */
  readonly same?: (one: T, other: T) => boolean
}

/** What the pipeline is made from, anew for each run. */
export interface Scope<T> {
  /** The same connection, watched: the pipeline must write through this one. */
  readonly connection: Connection<T>
  /** Ends this run's intake. */
  readonly stop: Observable<unknown>
}

/** A write: its value, and its place among the others. */
interface Write<T> {
  readonly value: T
  readonly place: number
}

/** Later than any instant: nothing is waited for. */
const never = Number.POSITIVE_INFINITY

/**
 * Runs a pipeline while its connection is there, so that a worker never sits on a broker's
 * unacknowledged messages through a long outage: after `patienceMs` without a writer, or
 * without an answer to a write, the pipeline is cancelled, which releases everything together.
 * It comes back when the far end has answered, not when it merely opens: it is tried with the
 * oldest value that went unanswered, which was kept for this, so that an outage of any length
 * costs the queue one redelivery. Was nothing written, then the next writer is enough.
 *
 * **Orders**: cancelling closes the source's channel, so what was out comes again in order; the
 * value that was tried is the first of it, and comes again too.
 * **Holds**: one value.
 * **Fails**: as the pipeline does. Completes with the pipeline; at once if stopped while none runs.
 */
export const whileOpen = <T, R>(
  connection: Connection<T>,
  pipeline: (scope: Scope<T>) => Observable<R & Answered<R>>,
  { patienceMs = 60_000, stop = NEVER, proved = () => {}, same = Object.is }: WhileOpenOptions<T> = {},
): Observable<R> =>
  new Observable<R>((subscriber) => {
    let writer: Writer<T> | undefined
    let places = 0
    let out = 0 // writes under way
    let away = never // since when there has been no writer
    let owed = never // since when writes have gone unanswered: by this writer, or by those before it
    let lost: Write<T> | undefined // the oldest that ended without an answer, since the last answer
    let refused: { readonly value: T; readonly error: Rejection } | undefined // what the far end was tried with, and will not take
    let stopped = false
    let run: Subscription | undefined
    let trial: Subscription | undefined
    let watching: Subscription | undefined

    /** Since when there is something to lose patience with; a clock that was set back costs no more than one patience. */
    const sinceWhen = (now: number): number => {
      if (away !== never) away = Math.min(away, now)
      if (owed !== never) owed = Math.min(owed, now)
      return Math.min(away, owed)
    }
    const watch = (): void => {
      const now = asyncScheduler.now()
      const since = sinceWhen(now)
      if (run === undefined || watching !== undefined || since === never) return
      const check = (): void => {
        watching = undefined
        const later = asyncScheduler.now()
        if (sinceWhen(later) + patienceMs > later) watch()
        else release()
      }
      watching = asyncScheduler.schedule(check, since + patienceMs - now)
    }
    const release = (): void => {
      run?.unsubscribe()
      run = undefined
      if (stopped) subscriber.complete()
      else if (lost === undefined) start()
      else attempt(lost.value)
    }
    /** Tries the far end with what it owes an answer for, over each writer that comes, until it answers. */
    const attempt = (value: T): void => {
      const kept: Delivery<T> = { value, settle: () => {} } // the one that counts is in the queue again
      trial = new Subscription()
      subscriber.add(trial)
      trial.add(
        NEVER.pipe(startWith(kept), deliver(connection, { sink: 'trial' })).subscribe({
          next: ({ outcome }) => {
            trial?.unsubscribe()
            trial = undefined
            lost = undefined
            if (outcome.kind === 'accepted') proved(value)
            if (outcome.kind === 'rejected') refused = { value, error: new Rejection(outcome.reason, outcome.stage) }
            start()
          },
          error: (error: unknown) => subscriber.error(error),
        }),
      )
    }
    const begin = (value: T): Write<T> => {
      out += 1
      places += 1
      if (owed === never) owed = asyncScheduler.now()
      watch()
      return { value, place: places }
    }
    const watched =
      (send: Writer<T>): Writer<T> =>
      (value) =>
        defer(() => {
          if (refused !== undefined && same(refused.value, value)) {
            const { error } = refused
            refused = undefined
            return throwError(() => error)
          }
          const write = begin(value)
          let open = true
          /** Confirmed or refused: the far end lives. A write that failed says nothing, for it is written again. */
          const answer = (): void => {
            open = false
            owed = out > 1 ? asyncScheduler.now() : never // this one is still among those under way
            lost = undefined
          }
          return send(value).pipe(
            tap({ complete: answer, error: (error: unknown) => error instanceof Rejection && answer() }),
            finalize(() => {
              out -= 1
              if (open && (lost === undefined || write.place < lost.place)) lost = write
            }),
          )
        })
    const start = (): void => {
      if (run !== undefined || trial !== undefined || writer === undefined || stopped) return
      const current = new Subscription()
      run = current
      owed = never
      subscriber.add(current)
      current.add(
        pipeline({
          connection: connection.pipe(map((send) => (send === undefined ? undefined : watched(send)))),
          stop,
        }).subscribe({
          next: (value) => subscriber.next(value),
          error: (error: unknown) => subscriber.error(error),
          complete: () => subscriber.complete(),
        }),
      )
    }
    subscriber.add(() => watching?.unsubscribe())
    subscriber.add(
      stop.subscribe(() => {
        stopped = true
        if (run === undefined) subscriber.complete()
      }),
    )
    subscriber.add(
      connection.subscribe({
        next: (current) => {
          writer = current
          away = current !== undefined ? never : Math.min(away, asyncScheduler.now())
          watch()
          start()
        },
        error: (error: unknown) => subscriber.error(error),
      }),
    )
  })
