/** The public kit as the marble tests here use it: one test, one run. */
import { Observable, timer } from 'rxjs'
import type { OperatorFunction } from 'rxjs'
import { it } from 'vitest'
import { accepted } from '../../src/delivery.js'
import type { Delivery, Outcome } from '../../src/delivery.js'
import { marbles as run } from '../../src/testing.js'
import type { Marbles } from '../../src/testing.js'

export const marbles = (title: string, body: (m: Marbles) => void): void => {
  it(title, () => run(body))
}

/** Accepts (or answers otherwise) each delivery, so many frames after it came. */
export const settleAfter =
  <T>(frames: number, outcome: Outcome = accepted): OperatorFunction<Delivery<T>, T> =>
  (source) =>
    new Observable<T>((subscriber) =>
      source.subscribe({
        next: ({ value, settle }) => {
          subscriber.next(value)
          if (frames === 0) settle(outcome)
          else subscriber.add(timer(frames).subscribe(() => settle(outcome)))
        },
        error: (error) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    )
