/**
 * The embedded queue: an append-only log in segments.
 *
 * A batch is some messages and a *mark*, one write and one sync. The mark tells the floor
 * (everything below is settled), what is settled above it, and the depth. Each segment
 * starts with a complete mark, so opening reads the newest segment only, and a settlement
 * never needs anything older than its own segment: segments are deleted from the oldest on,
 * as soon as a synced mark has a floor above their last message. Losing a mark, or a
 * deleted segment that comes back after a power cut, repeats messages and never loses one.
 *
 * Opening always begins a new segment, and so does a failed sync: a file that failed once is
 * never synced again. The refused messages are then a settled run in the new segment's mark.
 * If no new segment can be made either, and the power fails before one can, they may come
 * back: repeated by a caller who was told to send them again.
 *
 * Within a segment numbers follow each other without a hole; only a refused batch and a torn
 * tail leave one, always between two segments.
 */
import { from, lastValueFrom, firstValueFrom, mergeMap, Observable, type ObservableInput } from 'rxjs'
import { lockFolder, type Lock } from './folder-lock.js'
import { createCommits } from './log-commit.js'
import { nodeFileSystem, type LogFileSystem } from './log-files.js'
import { peekInto } from './log-peek.js'
import { createReader } from './log-reader.js'
import { recover } from './log-recovery.js'
import { createReserve } from './log-reserve.js'
import { createSegments } from './log-segments.js'
import { createWriter } from './log-writer.js'
import type { QueueEngine } from './queue-engine.js'

export interface SegmentLogOptions {
  /** On disk, with everything; an append beyond it is refused. At least 64 KiB. */
  readonly maxBytes: number
  /** A new file after so many bytes; at most a quarter of `maxBytes`. @default 16 MiB */
  readonly segmentBytes?: number
  /** The longest a settlement waits for an append's sync before it gets its own. @default 25 */
  readonly settleMs?: number
  /** Set aside so that settlements still fit on a full disk. @default 256 KiB */
  readonly reserveBytes?: number
  /** Named to whoever finds the folder in use. */
  readonly httpAddress?: string
  readonly fs?: LogFileSystem
  readonly lock?: (folder: string) => Observable<Lock>
}

/** Cold: the work starts with the subscription, each time. */
const once = <T>(work: () => Promise<T>): Observable<T> => new Observable((subscriber) => from(work()).subscribe(subscriber))

const start = async (folder: string, options: SegmentLogOptions, fs: LogFileSystem, lock: Lock): Promise<QueueEngine> => {
  const maxBytes = Math.max(options.maxBytes, 64 * 1024)
  const segmentBytes = Math.min(options.segmentBytes ?? 16 * 1024 * 1024, maxBytes / 4)
  const { settleMs = 25, reserveBytes = 256 * 1024 } = options

  const found = await recover(fs, folder)
  const segments = createSegments(fs, folder, found)
  const reader = createReader(fs, segments, found, (when) => writer.settled(when))
  const commits = createCommits(segments, reader, segmentBytes)
  const writer = createWriter(segments, reader, commits, createReserve(fs, folder, reserveBytes), { maxBytes, settleMs })
  await writer.start()

  const shut = async (): Promise<void> => {
    const stopped = reader.close()
    await writer.close().finally(async () => {
      await stopped
      await lastValueFrom(lock.release(), { defaultValue: undefined })
    })
  }
  let shutting: Promise<void> | undefined

  return {
    append: writer.append,
    next: reader.next,
    rewind: reader.rewind,
    settle: reader.settle,
    peek: (seq, max) => once(() => peekInto(fs, segments.all(), reader.settled(), seq, max)),
    purge: writer.purge,
    stats: () => ({ ...reader.stats(), ...commits.counts(), usedBytes: segments.usedBytes(), tornBytes: found.tornBytes }),
    close: () => once(() => (shutting ??= shut())).pipe(mergeMap((): ObservableInput<never> => [])),
  }
}

/**
 * Opens the log in its folder, or makes it; emits the engine and completes. The engine is
 * to be closed. Unsubscribing before it is there closes it.
 *
 * **Fails** with `FolderInUse`, or `QueueFailed` when a later version wrote the folder.
 * Damage never stops it: see `stats`.
 *
 * **Example** `openSegmentLog('spool', { maxBytes: 2 ** 30 }).pipe(mergeMap((log) => log.append(body)))`
 */
export const openSegmentLog = (folder: string, options: SegmentLogOptions): Observable<QueueEngine> =>
  new Observable((subscriber) => {
    const { fs = nodeFileSystem, httpAddress } = options
    const take = options.lock ?? ((at) => lockFolder(at, { pid: process.pid, ...(httpAddress !== undefined && { httpAddress }) }))
    const opening = async (): Promise<QueueEngine> => {
      await fs.makeFolder(folder)
      const lock = await firstValueFrom(take(folder))
      try {
        return await start(folder, options, fs, lock)
      } catch (error) {
        await lastValueFrom(lock.release(), { defaultValue: undefined })
        throw error
      }
    }
    void opening().then(
      (engine) => {
        if (subscriber.closed) return void engine.close().subscribe({ error: () => undefined })
        subscriber.next(engine)
        subscriber.complete()
      },
      (error: unknown) => subscriber.error(error),
    )
  })
