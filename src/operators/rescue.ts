import { asyncScheduler, map, merge, Observable, Subject, tap } from 'rxjs'
import type { Delivery, Outcome, Receipt, Sink } from '../delivery.js'
import { once } from './join.js'

/** What was rejected, and why. */
export interface DeadLetter<T> {
  readonly value: T
  readonly reason: string
  readonly stage: string
  readonly attempts: number
  /** When this process first had it, in milliseconds since 1970. */
  readonly firstSeen: number
}

/**
 * Keeps what `sink` rejects: it goes to the dead letters, and its delivery is accepted when
 * they have it. Wraps everything after the source.
 *
 * **Settles**: passes accepted and released on; a rejection is answered by the dead letters'
 * own answer, or released if they reject it: it stays where it was.
 * **Orders**: the dead letters see the order of rejection.
 * **Holds**: nothing of its own.
 */
export const rescue =
  <T>(sink: (source: Observable<Delivery<T>>) => Observable<Receipt>, deadLetters: Sink<DeadLetter<T>>) =>
  (source: Observable<Delivery<T>>): Observable<Receipt> =>
    new Observable<Receipt>((subscriber) => {
      const dead = new Subject<Delivery<DeadLetter<T>>>()
      const guarded = ({ value, settle }: Delivery<T>): Delivery<T> => {
        const firstSeen = asyncScheduler.now()
        const bury = ({ reason, stage, attempts }: Outcome & { kind: 'rejected' }): void =>
          dead.next({
            value: { value, reason, stage, attempts, firstSeen },
            settle: (outcome) => settle(outcome.kind === 'rejected' ? { kind: 'released', maybeSent: true } : outcome),
          })
        return { value, settle: once((outcome) => (outcome.kind === 'rejected' ? bury(outcome) : settle(outcome))) }
      }
      // The sink completes after its last answer, so nothing can be rejected after that.
      const main = source.pipe(map(guarded), sink, tap({ complete: () => dead.complete() }))
      return merge(deadLetters(dead), main).subscribe(subscriber)
    })
