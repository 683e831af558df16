import { asyncScheduler, map, timer } from 'rxjs'
import type { Operator } from '../delivery.js'
import { each } from './each.js'

/** What a timer that fired late may make up for. */
const creditMs = 50

/**
 * Lets so many a second through, over all the pipelines that share it, and the rest wait.
 *
 * **Settles**: nothing by itself.
 * **Orders**: first in, first out.
 * **Holds**: what waits, at most the window of the source.
 *
 * **Example** `const slowly = pace(); source.pipe(slowly(100), sink)`
 */
export const pace = (): (<T>(perSecond: number) => Operator<T, T>) => {
  let free = Number.NEGATIVE_INFINITY // when the next one may go, in milliseconds
  return <T>(perSecond: number) =>
    each<T, T>((value) => {
      const now = asyncScheduler.now()
      const waitMs = free - now
      free = (waitMs < -creditMs ? now : free) + 1000 / perSecond
      return waitMs <= 0 ? [value] : timer(waitMs).pipe(map(() => value))
    })
}
