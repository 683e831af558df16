import { asyncScheduler, defer, finalize, map, merge, NEVER, Observable, Subject, Subscription, tap } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'

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

/**
 * Runs a pipeline while its connection is there, so that a worker never sits on a broker's
 * unacknowledged messages through a long outage: after `patienceMs` without progress the
 * pipeline is cancelled, which releases everything together, and comes back with the next
 * writer, with window 1 until the first confirm.
 *
 * **Orders**: cancelling closes the source's channel, so what was out comes again in order.
 * **Holds**: nothing.
 * **Fails**: as the pipeline does. Completes with the pipeline; at once if stopped while none runs.
 */
export const whileOpen = <T, R>(
  connection: Connection<T>,
  pipeline: (scope: Scope<T>) => Observable<R>,
  { window = 1000, patienceMs = 60_000, stop = NEVER }: WhileOpenOptions = {},
): Observable<R> =>
  new Observable<R>((subscriber) => {
    let writer: Writer<T> | undefined
    let out = 0 // writes that have not completed
    let progress = 0 // when the run began, the writer changed, the first write left, or one was answered
    let suspect = false // the last run was cancelled: this far end may open happily and confirm nothing
    let stopped = false
    let run: Subscription | undefined
    let watch: Subscription | undefined
    const answered = new Subject<void>()

    const stuck = (): boolean => run !== undefined && (writer === undefined || out > 0)
    const moved = (): void => {
      progress = asyncScheduler.now()
      if (watch === undefined && stuck()) watch = asyncScheduler.schedule(check, patienceMs)
    }
    const check = (): void => {
      watch = undefined
      if (!stuck()) return
      const leftMs = progress + patienceMs - asyncScheduler.now()
      if (leftMs > 0) watch = asyncScheduler.schedule(check, leftMs)
      else release()
    }
    const release = (): void => {
      run?.unsubscribe()
      run = undefined
      suspect = true
      if (stopped) subscriber.complete()
      else start()
    }
    const answer = (): void => {
      progress = asyncScheduler.now()
      suspect = false
      answered.next()
    }
    const watched =
      (send: Writer<T>): Writer<T> =>
      (value) =>
        defer(() => {
          out += 1
          if (out === 1) moved()
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
      moved()
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
            if (stopped || !probing) subscriber.complete()
            else start()
          },
        }),
      )
    }
    subscriber.add(() => watch?.unsubscribe())
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
          moved()
          start()
        },
        error: (error: unknown) => subscriber.error(error),
      }),
    )
  })
