/**
 * The writing side of the log: group commit. While one batch is synced, everything that
 * arrives waits for the next one.
 */
import { Observable, type Subscriber } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Appending, Commits } from './log-commit.js'
import { turn } from './log-cursor.js'
import { isDiskFull, PAGE_BYTES } from './log-files.js'
import type { Settlements } from './log-reader.js'
import type { Reserve } from './log-reserve.js'
import { WriteFailed, type Segments } from './log-segments.js'
import { QueueFailed, QueueFull, type QueueEngine } from './queue-engine.js'
import { MAX_HEADERS_BYTES, RECORD_HEADER_BYTES } from './segment-record.js'

export interface Writer extends Pick<QueueEngine, 'append' | 'purge'> {
  /** The first segment of this run. On a full disk it may come later: the queue opens all the same, to drain. */
  readonly start: () => Promise<void>
  /** A settlement waits for a mark, which comes within `settleMs`, or at once. */
  readonly settled: (when: 'soon' | 'now') => void
  /** Takes no more and writes what it has. **Fails** when the last settlements could not be kept. */
  readonly close: () => Promise<void>
}

interface Waiting extends Appending {
  readonly subscriber: Subscriber<number>
}

const BATCH_BYTES = 1024 * 1024
const RETRY_MS = 1000
/** The longest that a file can be gone unnoticed. */
const WATCH_MS = 1000
/** Of `maxBytes`: what a drained queue has room for in any case. */
const LARGEST = 0.75
const NONE = new Uint8Array(0)

const closedError = (): QueueFailed => new QueueFailed('BACKHAUL_QUEUE_CLOSED', 'the embedded queue is closed: nothing was kept')
const answer = <T>(subscriber: Subscriber<T>, value: T): void => {
  subscriber.next(value)
  subscriber.complete()
}

export const createWriter = (
  segments: Segments,
  settlements: Settlements,
  commits: Commits,
  reserve: Reserve,
  { maxBytes, settleMs }: { readonly maxBytes: number; readonly settleMs: number },
): Writer => {
  let queue: Waiting[] = []
  let queuedBytes = 0
  const purges: Subscriber<number>[] = []
  let markDue = false
  let markTimer: NodeJS.Timeout | undefined
  let watchTimer: NodeJS.Timeout | undefined
  let flushing: Promise<void> | undefined
  let closed = false

  const toDo = (): boolean => queue.length > 0 || purges.length > 0 || markDue
  const kick = (): void => {
    flushing ??= flush().finally(() => {
      flushing = undefined
      if (toDo()) kick()
    })
  }
  /** What waits is looked after even when nothing is written. */
  const watch = (): void => {
    watchTimer = setTimeout(() => {
      watch()
      if (settlements.drained()) return
      markDue = true
      kick()
    }, WATCH_MS)
    watchTimer.unref()
  }
  const stopTimer = (): void => {
    clearTimeout(markTimer)
    markTimer = undefined
  }
  const markWithin = (ms: number): void => {
    if (markTimer !== undefined || closed) return
    markTimer = setTimeout(() => {
      markTimer = undefined
      markDue = true
      kick()
    }, ms)
  }

  const takeBatch = (): Waiting[] => {
    let size = 0
    let count = 0
    while (count < queue.length && (count === 0 || size + queue[count]!.bytes <= BATCH_BYTES)) size += queue[count++]!.bytes
    return queue.splice(0, count)
  }

  const refusalOf = (error: unknown): QueueFull | QueueFailed => {
    if (error instanceof QueueFailed) return error
    if (isDiskFull(error)) return new QueueFull(maxBytes, segments.usedBytes(), { cause: error })
    return new QueueFailed('BACKHAUL_QUEUE_IO', 'the embedded queue cannot be written: nothing was kept', { cause: error })
  }
  /** Refuses what waits behind a failed batch too, so that nothing takes effect without what came before it. */
  const refuse = (error: unknown, batch: readonly Waiting[]): void => {
    const all = [...batch, ...queue]
    queue = []
    queuedBytes = 0
    const refusal = refusalOf(error)
    for (const { subscriber } of all) subscriber.error(refusal)
  }

  const keep = async (batch: readonly Waiting[]): Promise<void> => {
    if (batch.length > 0) await reserve.keep()
    await commits.commit(batch, (first) => {
      for (const { bytes } of batch) queuedBytes -= bytes
      batch.forEach(({ subscriber }, i) => answer(subscriber, first + i))
    })
  }

  const flush = async (): Promise<void> => {
    // One turn of the loop, so that everything that arrived with this one shares the sync.
    await turn()
    do {
      stopTimer()
      markDue = false
      const asked = purges.splice(0)
      const removed = asked.length > 0 ? settlements.purge() : 0
      if (asked.length > 0) commits.retell()
      const batch = takeBatch()
      try {
        await keep(batch)
        asked.forEach((subscriber, i) => answer(subscriber, i === 0 ? removed : 0))
      } catch (error) {
        // A file that failed is followed by a new one. On a full disk the settlements may have the
        // room that was kept for them; appends wait until it is back.
        if (error instanceof WriteFailed && !error.undone) markDue = true
        else if (isDiskFull(error) && (await reserve.spend())) markDue = commits.due()
        if (batch.length > 0) refuse(error, batch)
        asked.forEach((subscriber) => subscriber.error(error))
        if (!markDue && commits.due()) markWithin(RETRY_MS)
      }
      settlements.pump()
      await turn()
    } while (toDo())
    if (commits.due()) markWithin(settleMs)
  }

  const append: QueueEngine['append'] = (body, headers = NONE) =>
    new Observable((subscriber) => {
      if (closed) return subscriber.error(closedError())
      if (headers.length > MAX_HEADERS_BYTES) return subscriber.error(new Rejection('headers of 16 MiB or more', 'embedded-queue'))
      const bytes = RECORD_HEADER_BYTES + body.length + headers.length
      if (bytes > maxBytes * LARGEST) return subscriber.error(new Rejection(`larger than three quarters of the ${maxBytes} bytes of the embedded queue`, 'embedded-queue'))
      const usedBytes = segments.usedBytes() + queuedBytes
      // With room for the mark, and for the page that a new segment takes.
      if (usedBytes + bytes + 2 * PAGE_BYTES > maxBytes) return subscriber.error(new QueueFull(maxBytes, usedBytes))
      queuedBytes += bytes
      queue.push({ body, headers, bytes, subscriber })
      kick()
    })

  const start = async (): Promise<void> => {
    await reserve.keep().catch(() => undefined)
    await commits.begin().catch(() => markWithin(RETRY_MS))
    watch()
  }

  const close = async (): Promise<void> => {
    closed = true
    stopTimer()
    clearTimeout(watchTimer)
    while (flushing !== undefined) await flushing
    let failure = await commits.look().then(() => undefined, (error: unknown) => error)
    for (let tries = 0; tries < 2 && commits.due(); tries += 1) {
      failure = undefined
      await commits.commit([], () => undefined).catch((error: unknown) => (failure = error))
    }
    stopTimer()
    await segments.retire()
    if (failure !== undefined) {
      throw new QueueFailed('BACKHAUL_QUEUE_IO', 'the last settlements could not be kept: those messages come again', { cause: failure })
    }
  }

  return {
    append,
    purge: () =>
      new Observable((subscriber) => {
        if (closed) return subscriber.error(closedError())
        purges.push(subscriber)
        kick()
      }),
    start,
    settled: (when) => {
      if (when === 'now') {
        markDue = true
        kick()
      } else if (flushing === undefined) markWithin(settleMs)
    },
    close,
  }
}
