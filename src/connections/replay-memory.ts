import { concat, defer, EMPTY, expand, ignoreElements, map, mergeMap, ReplaySubject, Subscription, switchMap, take, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Entry, QueueEngine } from './queue-engine.js'

export interface ReplayMemoryOptions {
  /** How many are remembered. @default 10000 */
  readonly size?: number
  /** Told once, when the disk does not have it: until the next start it is remembered in memory only. */
  readonly onFailure?: (error: unknown) => void
}

const pageEntries = 4096

/**
 * The letters that were put back and dealt with, the last ones, in an embedded queue of their
 * own: appended, and settled when there are too many. Opened at the first question, so that
 * nobody pays who never puts anything back.
 *
 * **Holds**: `size` letters of 22 characters.
 * **Fails**: never to answer; `add` errors when the disk does not keep it.
 */
export const replayMemory = (
  engine: Observable<QueueEngine>,
  { size = 10_000, onFailure = () => {} }: ReplayMemoryOptions = {},
): {
  readonly has: (letter: string) => Observable<boolean>
  readonly add: (letter: string) => Observable<unknown>
  /** Closes it. */
  readonly close: () => void
} => {
  const letters = new Map<string, number>() // with their numbers in the queue, oldest first
  const opened = new ReplaySubject<QueueEngine | undefined>(1) // undefined: it cannot be opened
  const life = new Subscription()
  let begun = false

  const remember = (letter: string, seq: number, forget: (seq: number) => void): void => {
    const before = letters.get(letter)
    if (before !== undefined && before !== seq) forget(before)
    letters.delete(letter)
    letters.set(letter, seq)
    for (const [oldest, its] of letters) {
      if (letters.size <= size) break
      letters.delete(oldest)
      forget(its)
    }
  }
  const took = (queue: QueueEngine, entries: readonly Entry[]): void =>
    entries.forEach(({ seq, body }) => remember(body.toString(), seq, queue.settle))
  /** All that is there, without waiting for more: what is damaged is not missed. */
  const load = (queue: QueueEngine): Observable<never> =>
    queue.peek(0, pageEntries).pipe(
      expand((entries) => (entries.length === 0 ? EMPTY : queue.peek((entries.at(-1)?.seq ?? 0) + 1, pageEntries))),
      tap((entries) => took(queue, entries)),
      ignoreElements(),
    )
  /** Only what has been given out can be settled. */
  const follow = (queue: QueueEngine): Observable<unknown> =>
    queue.next(pageEntries).pipe(
      expand((entries) => (took(queue, entries), queue.next(pageEntries))),
    )
  const open = (): void => {
    if (begun) return
    begun = true
    const running = engine.pipe(
      switchMap((queue) =>
        concat(
          load(queue),
          defer(() => {
            opened.next(queue)
            return follow(queue)
          }),
        ),
      ),
    )
    life.add(
      running.subscribe({
        error: (error: unknown) => {
          onFailure(error)
          opened.next(undefined)
        },
      }),
    )
  }
  const ready = defer(() => {
    open()
    return opened.pipe(take(1))
  })
  return {
    has: (letter) => ready.pipe(map(() => letters.has(letter))),
    add: (letter) =>
      ready.pipe(
        mergeMap((queue) => {
          // Known from now on, whatever the disk says; its number comes when it is given out.
          if (!letters.has(letter)) letters.set(letter, -1)
          return queue === undefined ? EMPTY : queue.append(Buffer.from(letter)).pipe(tap({ error: onFailure }))
        }),
      ),
    close: () => life.unsubscribe(),
  }
}
