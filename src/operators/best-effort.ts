import { Observable, Subject, timer } from 'rxjs'
import { accepted } from '../delivery.js'
import type { Delivery, Receipt, Sink } from '../delivery.js'
import { once } from './join.js'

export interface BestEffortOptions {
  /** The most values the sink may owe an answer for; more are dropped. @default 1000 */
  readonly buffer?: number
  /** After the source has ended: how long the sink may go on, in milliseconds. @default 500 */
  readonly lingerMs?: number
  /** Called for every drop with how many. */
  readonly dropped: (count: number) => void
}

/**
 * Lets a sink take part without a say: it can be stuck, slow or dead, and the main road
 * neither slows nor loses.
 *
 * **Settles**: accepts at once; the sink's own answers only count what was dropped.
 * **Orders**: the sink sees the order of the source, with gaps where it was dropped.
 * **Holds**: at most `buffer` values; newer ones are dropped, and counted, also on cancel.
 * **Fails**: never; when the sink errors, everything from then on is dropped.
 */
export const bestEffort =
  <T>(sink: Sink<T>, { buffer = 1000, lingerMs = 500, dropped }: BestEffortOptions): Sink<T> =>
  (source) =>
    new Observable<Receipt<T>>((subscriber) => {
      const copies = new Subject<Delivery<T>>()
      let held = 0 // copies that the sink has not answered
      let failed = false
      let ended = false
      const lose = (count: number): void => {
        if (count > 0) dropped(count)
      }
      const copy = (value: T): Delivery<T> => ({
        value,
        settle: once((outcome) => {
          if (failed) return
          held -= 1
          if (outcome.kind !== 'accepted') lose(1)
        }),
      })
      subscriber.add(() => lose(failed ? 0 : held))
      subscriber.add(
        sink(copies).subscribe({
          next: (receipt) => subscriber.next(receipt),
          error: () => {
            failed = true
            lose(held)
            if (ended) subscriber.complete()
          },
          complete: () => {
            if (ended) subscriber.complete()
          },
        }),
      )
      subscriber.add(
        source.subscribe({
          next: ({ value, settle }) => {
            if (failed || held >= buffer) lose(1)
            else {
              held += 1
              copies.next(copy(value))
            }
            settle(accepted)
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            ended = true
            copies.complete()
            if (failed) subscriber.complete()
            else subscriber.add(timer(lingerMs).subscribe(() => subscriber.complete()))
          },
        }),
      )
    })
