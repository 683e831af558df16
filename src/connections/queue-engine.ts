/**
 * The port of the embedded queue's engine: what keeps messages on the device's own disk.
 * One engine has one folder, one writer and one reader, and gives messages out in the order
 * in which they were appended.
 */
import type { Observable } from 'rxjs'

/** One message as it was appended. */
export interface Entry {
  /** Ascending, never used twice in the life of the folder; there may be holes. */
  readonly seq: number
  readonly body: Buffer
  readonly headers: Buffer
}

/** What the engine counts. Damage is counted once per process, when it is first met. */
export interface QueueStats {
  /** Messages appended and not settled, those outside included. */
  readonly depth: number
  /** Their bytes, headers included. */
  readonly bytes: number
  /** What the folder takes up on disk; `maxBytes` limits this. */
  readonly usedBytes: number
  /** Given out by `next` and not settled. */
  readonly unsettled: number
  /** Places with broken bytes, or with messages missing, each stepped around; the last few segments that had some are kept aside. */
  readonly damagedRecords: number
  readonly damagedBytes: number
  /** Pending messages missing because of it, as far as their numbers tell. */
  readonly lostMessages: number
  /** A record that a crash left unfinished: never accepted, so not damage. Cut off when opening. */
  readonly tornBytes: number
  /** Times that somebody removed, replaced or shortened the file that was being written; it was written anew from what could still be read. */
  readonly lostFiles: number
  /** Failed writes and syncs: each refused its batch. */
  readonly writeErrors: number
  readonly syncErrors: number
}

/**
 * Keeps messages until they are settled.
 *
 * **Orders**: entries come in the order in which `append` was subscribed to. When a batch
 * fails, everything already waiting behind it is refused too, so nothing takes effect
 * without what was appended before it.
 * **Holds**: what was appended and not yet synced, and at most a few MiB of recent batches;
 * what it gives out are copies.
 */
export interface QueueEngine {
  /**
   * Cold: each subscription appends once, emits the sequence number and completes after the
   * sync that covers it, and always before `next` can give it out.
   *
   * **Fails** with `QueueFull` (at once when `maxBytes` is reached) or `QueueFailed`; with a
   * `Rejection` when it is so large that a drained queue may have no room for it. Then
   * nothing was kept. Unsubscribing takes nothing back: the message may be kept. The bytes
   * are not copied before the write: leave them as they are until it answers.
   */
  readonly append: (body: Uint8Array, headers?: Uint8Array) => Observable<number>
  /**
   * Emits once, from one to `max` entries, as soon as there is one, and moves on. One
   * subscriber at a time: a second one errors. Completes without a value when the engine closes.
   * Unsubscribing before the emission moves nothing.
   *
   * **Holds** back what would bring more than a window again after a crash: `max` and what is
   * outside make the window, and a settlement counts until it is synced (while the disk
   * refuses that, it does not). Holds back, too, once 65,536 entries lie between the oldest
   * unsettled and the newest given out.
   */
  readonly next: (max: number) => Observable<readonly Entry[]>
  /** Back to the oldest unsettled: all that is outside counts as given back, and comes again from `next`. */
  readonly rewind: () => void
  /**
   * In any order among what is outside; anything else is ignored. Recorded with the next
   * sync, which comes within `settleMs` even if nothing is appended, and at once when `next`
   * is held back by a quarter of its window.
   */
  readonly settle: (seq: number) => void
  /** Up to `max` pending entries, and about 8 MiB, from a sequence number on, without giving them out; none at the end. For people, not for the road. */
  readonly peek: (from: number, max: number) => Observable<readonly Entry[]>
  /** Removes all that is pending and not outside; emits how many once that is synced. What is outside is left to its reader. */
  readonly purge: () => Observable<number>
  readonly stats: () => QueueStats
  /** Takes no more, syncs what was appended and settled, closes the files, frees the folder and completes. */
  readonly close: () => Observable<never>
}

/** There is no room, by `maxBytes` or on the disk: nothing was kept. Comes right once the queue drains. */
export class QueueFull extends Error {
  override readonly name = 'QueueFull'
  readonly code = 'BACKHAUL_QUEUE_FULL'
  constructor(
    readonly limitBytes: number,
    readonly usedBytes: number,
    options?: ErrorOptions,
  ) {
    super(
      options?.cause === undefined
        ? `the embedded queue holds ${usedBytes} of at most ${limitBytes} bytes: let it drain, or raise the limit`
        : 'the disk under the embedded queue is full: free some space, or let the queue drain',
      options,
    )
  }
}

/** The disk failed, or the queue is closed: nothing was kept. */
export class QueueFailed extends Error {
  override readonly name = 'QueueFailed'
  constructor(
    readonly code: 'BACKHAUL_QUEUE_IO' | 'BACKHAUL_QUEUE_CLOSED' | 'BACKHAUL_QUEUE_FORMAT' | 'BACKHAUL_QUEUE_BUSY',
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}
