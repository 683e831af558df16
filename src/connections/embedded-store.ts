import { concat, map, NEVER, Observable, ReplaySubject, share, startWith, Subject, switchMap, tap } from 'rxjs'
import type { QueueEngine } from './queue-engine.js'
import { openSegmentLog } from './segment-log.js'
import type { SegmentLogOptions } from './segment-log.js'

export interface EmbeddedStore {
  /** Opened at the first subscription, shared by all, closed when the last one leaves. */
  readonly engine: Observable<QueueEngine>
  /** How many were appended and not settled: the present number once it is open, then at each change. */
  readonly depth: Observable<number>
  /** Completes once it has been closed: everything is synced, and the folder is free. */
  readonly closed: Observable<never>
}

/**
 * An embedded queue as something that is there while it is used.
 *
 * **Fails** with `FolderInUse` when another process has the folder, and when it cannot be opened.
 */
export const embeddedStore = (folder: string, options: SegmentLogOptions): EmbeddedStore => {
  const closed = new ReplaySubject<never>(1)
  const changes = new Subject<void>()
  const changed = (): void => changes.next()
  const told = (opened: QueueEngine): QueueEngine => ({
    ...opened,
    append: (body, headers) => opened.append(body, headers).pipe(tap({ complete: changed })),
    settle: (seq) => {
      opened.settle(seq)
      changed()
    },
    purge: () => opened.purge().pipe(tap(changed)),
  })
  const engine = concat(openSegmentLog(folder, options), NEVER).pipe(
    switchMap(
      (opened) =>
        new Observable<QueueEngine>((subscriber) => {
          subscriber.next(told(opened))
          return () => opened.close().subscribe({ error: () => closed.complete(), complete: () => closed.complete() })
        }),
    ),
    share({ connector: () => new ReplaySubject(1), resetOnRefCountZero: true }),
  )
  const depth = engine.pipe(switchMap(({ stats }) => changes.pipe(startWith(undefined), map(() => stats().depth))))
  return { engine, depth, closed }
}
