import { merge, Observable, Subject } from 'rxjs'
import type { Delivery, Receipt, Sink } from '../delivery.js'
import { join } from './join.js'

/**
 * Gives each delivery to every sink, and emits the receipts of all.
 *
 * **Settles**: once, when all have answered: released if one released, else rejected if one
 * rejected, else accepted.
 * **Orders**: each sink sees the order of the source.
 * **Holds**: nothing; a slow sink holds the source's window. Wrap what may be slow in `bestEffort`.
 */
export const fanOut =
  <T>(...sinks: readonly Sink<T>[]): Sink<T> =>
  (source) =>
    new Observable<Receipt<T>>((subscriber) => {
      const branches = sinks.map(() => new Subject<Delivery<T>>())
      subscriber.add(merge(...sinks.map((sink, i) => sink(branches[i] as Subject<Delivery<T>>))).subscribe(subscriber))
      subscriber.add(
        source.subscribe({
          next: ({ value, settle }) => {
            const parts = join(settle)
            for (const branch of branches) branch.next({ value, settle: parts.part() })
            parts.end()
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            for (const branch of branches) branch.complete()
          },
        }),
      )
    })
