import { asyncScheduler, defer, finalize, map, merge, NEVER, Observable, Subject, Subscription, tap } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Answered, Connection, Writer } from '../delivery.js'

export interface WhileOpenOptions {
  /** The source's window when all is well. @default 1000 */
  readonly window?: number
  /** How long to sit on deliveries without a writer, or without a confirm while a write is out. @default 60000 */
  readonly patienceMs?: number
  readonly stop?: Observable<unknown>
}

/** What the pipeline is made from, anew for each run. */
export interface Scope<T> {
  /** The same connection, watched: the pipeline must write through this one. */
  readonly connection: Connection<T>
  /** 1 while the far end has yet to show that it confirms; else the full window. */
  readonly window: number
  /** Ends this run's intake. */
  readonly stop: Observable<unknown>
}

/** Later than any instant: nothing is waited for. */
const never = Number.POSITIVE_INFINITY

/**
 * Runs a pipeline while its connection is there, so that a worker never sits on a broker's
 * unacknowledged messages through a long outage: after `patienceMs` without a writer, or
 * without an answer to a write, the pipeline is cancelled, which releases everything
 * together, and comes back with the next writer, with window 1 until the first answer. A far
 * end that opens happily, again and again, and answers nothing is given no more time for it.
 *
 * **Orders**: cancelling closes the source's channel, so what was out comes again in order.
 * **Holds**: nothing.
 * **Fails**: as the pipeline does. Completes with the pipeline; at once if stopped while none runs.
 */
export const whileOpen = <T, R>(
  connection: Connection<T>,
  pipeline: (scope: Scope<T>) => Observable<R & Answered<R>>,
  { window = 1000, patienceMs = 60_000, stop = NEVER }: WhileOpenOptions = {},
): Observable<R> =>
  new Observable<R>((subscriber) => {
    let writer: Writer<T> | undefined
    let out = 0 // writes under way
    let away = never // since when there has been no writer
    let owed = never // since when writes have gone unanswered: by this writer, or by those before it
    let suspect = false // the last run was cancelled, and nothing was answered since
    let stopped = false
    let run: Subscription | undefined
    let watching: Subscription | undefined
    const answered = new Subject<void>()

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
      suspect = true
      if (stopped) subscriber.complete()
      else start()
    }
    const begun = (): void => {
      out += 1
      if (owed === never) owed = asyncScheduler.now()
      watch()
    }
    /** Confirmed or refused: the far end lives. A write that failed says nothing, for it is written again. */
    const answer = (): void => {
      owed = out > 1 ? asyncScheduler.now() : never // this one is still among those under way
      suspect = false
      answered.next()
    }
    const watched =
      (send: Writer<T>): Writer<T> =>
      (value) =>
        defer(() => {
          begun()
          return send(value).pipe(
            tap({ complete: answer, error: (error: unknown) => error instanceof Rejection && answer() }),
            finalize(() => {
              out -= 1
            }),
          )
        })
    const start = (): void => {
      if (run !== undefined || writer === undefined || stopped) return
      const probing = suspect
      const current = new Subscription()
      run = current
      owed = never
      subscriber.add(current)
      current.add(
        pipeline({
          connection: connection.pipe(map((send) => (send === undefined ? undefined : watched(send)))),
          window: probing ? 1 : window,
          stop: probing ? merge(stop, answered) : stop,
        }).subscribe({
          next: (value) => subscriber.next(value),
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            subscriber.remove(current)
            run = undefined
            const proven = probing && !suspect // the answer ended it, not its source
            if (proven && !stopped) start()
            else subscriber.complete()
          },
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
