import { finalize, Observable } from 'rxjs'
import type { Subscriber } from 'rxjs'
import { released } from '../delivery.js'
import type { Outcome, Source } from '../delivery.js'
import { ledger } from '../ledger.js'
import type { Counts, Ledger } from '../ledger.js'

/** A door for values that come one by one from callers who wait for the answer: HTTP requests, `publish()`. */
export interface Intake<T> {
  readonly deliveries: Source<T>
  /**
   * Emits the outcome, once. Takes its place in the line when subscribed; unsubscribing
   * before the window had room withdraws it, after that it changes nothing.
   * Released without having been sent when the door is stopped. `taken` is called when it enters the window.
   */
  readonly offer: (value: T, taken?: () => void) => Observable<Outcome>
  /** The window has no room: an offer would wait. */
  readonly full: () => boolean
}

interface Offer<T> {
  readonly value: T
  readonly taken: () => void
  readonly answer: Subscriber<Outcome>
}

/**
 * **Orders**: values go out in the order in which they were offered.
 * **Holds**: at most `window` unsettled; callers that wait are limited by whoever lets them in.
 */
export const intake = <T>({
  window,
  ...options
}: {
  window: number
  stop?: Observable<unknown>
  counts?: Counts
}): Intake<T> => {
  const line = new Set<Offer<T>>() // waiting for room, in order
  const out = new Set<Offer<T>>() // taken, and unanswered
  let book: Ledger<T, Offer<T>> | undefined
  let over = false

  const answer = (offer: Offer<T>, outcome: Outcome): void => {
    line.delete(offer)
    out.delete(offer)
    offer.answer.next(outcome)
    offer.answer.complete()
  }
  const admit = (): void => {
    for (const offer of line) {
      if (book === undefined || book.room() <= 0) return
      line.delete(offer)
      out.add(offer)
      offer.taken()
      book.take(offer.value, offer)
    }
  }
  const turnAway = (): void => {
    over = true
    for (const offer of line) answer(offer, released(false))
  }
  const deliveries = ledger<T, Offer<T>>(
    (opened) => {
      book = opened
      admit()
      return {
        settled: (offer, outcome) => {
          answer(offer, outcome)
          admit()
        },
        stop: turnAway,
        close: () => {
          turnAway()
          for (const offer of out) answer(offer, released(true))
        },
      }
    },
    { window, ...options },
    // Also when it was stopped before it began.
  ).pipe(finalize(turnAway))
  return {
    deliveries,
    offer: (value, taken = () => {}) =>
      new Observable<Outcome>((subscriber) => {
        const offer = { value, taken, answer: subscriber }
        if (over) return answer(offer, released(false))
        line.add(offer)
        admit()
        return () => line.delete(offer)
      }),
    full: () => !over && (line.size > 0 || (book !== undefined && book.room() <= 0)),
  }
}
