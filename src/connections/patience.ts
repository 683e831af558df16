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
 * is out, in the scheduler's milliseconds, or undefined when nothing is. A clock that was set
 * back meanwhile costs one more `limitMs`, not the time that it was set back.
 */
export const patience = (limitMs: number, oldest: () => number | undefined, late: () => void): Patience => {
  let timer: Subscription | undefined
  let early: { readonly since: number; readonly from: number } | undefined // it seems to begin in the future
  const look = (): void => {
    timer = undefined
    const since = oldest()
    if (since === undefined) return
    const now = asyncScheduler.now()
    if (since > now && early?.since !== since) early = { since, from: now }
    const leftMs = (early?.since === since ? early.from : since) + limitMs - now
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
