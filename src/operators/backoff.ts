import { timer } from 'rxjs'
import type { Observable } from 'rxjs'

export interface BackoffOptions {
  /** The first delay, in milliseconds. @default 200 */
  readonly firstMs?: number
  /** The longest delay, in milliseconds. @default 30000 */
  readonly maxMs?: number
  /** The share of each delay that is left to chance, 0 to 1. @default 0.2 */
  readonly jitter?: number
  /** 0 to 1; a test gives its own. @default Math.random */
  readonly random?: () => number
}

/**
 * How long to wait before attempt 2, 3, …: doubles from `firstMs` to `maxMs`, less up to
 * `jitter` of it, so that a fleet does not come back as one.
 *
 * **Example**: `connect.pipe(retry({ delay: (_error, count) => backoff(count) }))`
 */
export const backoff = (
  attempt: number,
  { firstMs = 200, maxMs = 30_000, jitter = 0.2, random = Math.random }: BackoffOptions = {},
): Observable<0> => timer(Math.min(maxMs, firstMs * 2 ** (attempt - 1)) * (1 - jitter * random()))
