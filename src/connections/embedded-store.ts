import { map, Observable, ReplaySubject, share, startWith, Subject, switchMap, tap } from 'rxjs'
import type { QueueEngine, QueueStats } from './queue-engine.js'
import { openSegmentLog } from './segment-log.js'
import type { SegmentLogOptions } from './segment-log.js'

export interface EmbeddedStore {
  /** Opened at the first subscription, shared by all, closed when the last one leaves. */
  readonly engine: Observable<QueueEngine>
  /** How many were appended and not settled: the present number once it is open, then at each change. */
  readonly depth: Observable<number>
  /** What it counts now; undefined until it is open. Once closed, what it counted last. */
  readonly stats: () => QueueStats | undefined
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
  let stats: () => QueueStats | undefined = () => undefined
  const changed = (): void => changes.next()
  const told = ({ append, settle: remove, purge, ...others }: QueueEngine): QueueEngine => ({
    ...others,
    append: (body, headers) => append(body, headers).pipe(tap({ complete: changed })),
    settle: (seq) => {
      remove(seq)
      changed()
    },
    purge: () => purge().pipe(tap(changed)),
  })
  const close = (opened: QueueEngine): void => {
    opened.close().subscribe({ error: () => closed.complete(), complete: () => closed.complete() })
  }
  const engine = new Observable<QueueEngine>((subscriber) => {
    let engine: QueueEngine | undefined
    // Opening is not called off: whoever left meanwhile still hears when the folder is free.
    openSegmentLog(folder, options).subscribe({
      next: (opened) => {
        if (subscriber.closed) return close(opened)
        engine = opened
        stats = opened.stats
        subscriber.next(told(opened))
      },
      error: (error: unknown) => {
        closed.complete()
        subscriber.error(error)
      },
    })
    return () => engine !== undefined && close(engine)
  }).pipe(share({ connector: () => new ReplaySubject(1), resetOnRefCountZero: true }))
  const depth = engine.pipe(switchMap(({ stats }) => changes.pipe(startWith(undefined), map(() => stats().depth))))
  return { engine, depth, stats: () => stats(), closed }
}
