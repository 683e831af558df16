import { asyncScheduler } from 'rxjs'
import type { Subscription } from 'rxjs'

/** One timer for all that is unconfirmed: only the oldest can be too late first. */
export interface Patience {
  /** Something is out: sees to it that the timer runs. */
  readonly watch: () => void
  readonly stop: () => void
}

/**
 * Calls `late` when the oldest write has been out for `limitMs`. `oldest` tells since when it
 * is out, in the scheduler's milliseconds, or undefined when nothing is.
 */
export const patience = (limitMs: number, oldest: () => number | undefined, late: () => void): Patience => {
  let timer: Subscription | undefined
  const look = (): void => {
    timer = undefined
    const since = oldest()
    if (since === undefined) return
    const leftMs = since + limitMs - asyncScheduler.now()
    if (leftMs > 0) timer = asyncScheduler.schedule(look, leftMs)
    else late()
  }
  return {
    watch: () => {
      timer ??= asyncScheduler.schedule(look, limitMs)
    },
    stop: () => timer?.unsubscribe(),
  }
}
