import { asyncScheduler, Observable } from 'rxjs'
import type { Subscription } from 'rxjs'
import type { Delivery, Operator } from '../delivery.js'

/**
 * Joins up to `size` values into one, or what has come within `maxMs` of the first.
 *
 * **Settles**: the answer for the batch is the answer for each of its parts.
 * **Orders**: within and between batches, the order of the source.
 * **Holds**: fewer than `size` values. A source whose window is smaller than `size` waits `maxMs` for each batch.
 */
export const batch =
  <T>(size: number, maxMs: number): Operator<T, readonly T[]> =>
  (source) =>
    new Observable<Delivery<readonly T[]>>((subscriber) => {
      let parts: Delivery<T>[] = []
      let clock: Subscription | undefined
      const give = (): void => {
        clock?.unsubscribe()
        clock = undefined
        const given = parts
        parts = []
        if (given.length === 0) return
        subscriber.next({
          value: given.map(({ value }) => value),
          settle: (outcome) => given.forEach(({ settle }) => settle(outcome)),
        })
      }
      subscriber.add(() => clock?.unsubscribe())
      subscriber.add(
        source.subscribe({
          next: (delivery) => {
            parts.push(delivery)
            if (parts.length >= size) give()
            else clock ??= asyncScheduler.schedule(give, maxMs)
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            give()
            subscriber.complete()
          },
        }),
      )
    })
