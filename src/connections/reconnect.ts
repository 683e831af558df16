import { asyncScheduler, defer, Observable, ReplaySubject, share } from 'rxjs'
import type { Subscription } from 'rxjs'
import { backoff } from '../operators/backoff.js'
import type { BackoffOptions } from '../operators/backoff.js'

/** What became of an attempt, for logs and readiness. */
export type LinkState = { readonly kind: 'connected' } | { readonly kind: 'lost'; readonly error: unknown }

export interface ReconnectOptions extends BackoffOptions {
  readonly onState?: (state: LinkState) => void
}

/** An error that knows how long to stay away: nothing is gained by asking a wrong address five times a second. */
const restOf = (error: unknown): number => {
  const ms = (error as { retryAfterMs?: unknown } | undefined)?.retryAfterMs
  return typeof ms === 'number' ? ms : 0
}

/**
 * Makes a connection out of attempts: passes on what an attempt emits, emits `undefined` when
 * it ends, and tries again after a back-off, for ever.
 *
 * The attempt calls `proven` at its first confirm, not when it opens: that resets the
 * back-off. So does having been open for as long as the longest rest: where nothing is sent,
 * nothing can be confirmed. Shared by all subscribers, the last value replayed; the last one to leave ends the attempt.
 */
export const reconnect = <T>(
  attempt: (proven: () => void) => Observable<T>,
  { onState = () => {}, firstMs = 200, maxMs = 30_000, ...options }: ReconnectOptions = {},
): Observable<T | undefined> =>
  new Observable<T | undefined>((subscriber) => {
    let failures = 0 // since an attempt was proven
    let openSince: number | undefined
    let current: Subscription | undefined
    let rest: Subscription | undefined
    const over = (error: unknown): void => {
      current = undefined
      if (openSince !== undefined && asyncScheduler.now() - openSince >= maxMs) failures = 0
      openSince = undefined
      failures += 1
      onState({ kind: 'lost', error })
      subscriber.next(undefined)
      const leastMs = restOf(error)
      rest = backoff(failures, { ...options, firstMs: Math.max(firstMs, leastMs), maxMs: Math.max(maxMs, leastMs) }).subscribe(begin)
    }
    const begin = (): void => {
      rest = undefined
      current = defer(() =>
        attempt(() => {
          failures = 0
        }),
      ).subscribe({
        next: (value) => {
          openSince ??= asyncScheduler.now()
          onState({ kind: 'connected' })
          subscriber.next(value)
        },
        error: over,
        complete: () => over(new Error('closed')),
      })
    }
    begin()
    return () => {
      rest?.unsubscribe()
      current?.unsubscribe()
    }
  }).pipe(share({ connector: () => new ReplaySubject(1), resetOnRefCountZero: true }))
