/** The reading side of the log: gives out what is pending, and keeps count. */
import { Observable, type Subscriber } from 'rxjs'
import { createCursor, type Cursor, type Segment } from './log-cursor.js'
import type { LogFileSystem } from './log-files.js'
import { createReach } from './log-reach.js'
import type { Recovered } from './log-recovery.js'
import type { Segments } from './log-segments.js'
import { createTally } from './log-tally.js'
import { QueueFailed, type Entry, type QueueEngine, type QueueStats } from './queue-engine.js'
import { MESSAGE, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, type Mark, type Run } from './segment-record.js'

/** What the writer asks of the reader. */
export interface Settlements {
  /** What the next mark says when so much is appended with it: every settlement, or only those since the last mark. */
  readonly mark: (complete: boolean, messages: number, bytes: number) => Mark
  /** Whether that mark has been synced. */
  readonly marked: (synced: boolean) => void
  /** Whether something was settled since the last mark. */
  readonly unmarked: () => boolean
  readonly drained: () => boolean
  readonly appended: (messages: number, bytes: number) => void
  /** These numbers were refused: nothing of theirs is a message, whatever is on the disk. */
  readonly refused: (from: number, to: number) => void
  /** Settles all that is not outside; says how much that was. Takes a complete mark to tell. */
  readonly purge: () => number
  readonly begun: (segment: Segment) => void
  readonly leave: (segment: Segment) => void
  /** There may be something to read. */
  readonly pump: () => void
}

export interface Reader extends Settlements, Pick<QueueEngine, 'next' | 'rewind' | 'settle'> {
  readonly stats: () => Pick<QueueStats, 'depth' | 'bytes' | 'unsettled' | 'damagedRecords' | 'damagedBytes' | 'lostMessages'>
  /** Everything that is settled. */
  readonly settled: () => { readonly floor: number; readonly runs: readonly Run[] }
  readonly close: () => Promise<void>
}

/** A settlement is there to be marked: some time, or now, since the reader is held back until then. */
type OnSettled = (when: 'soon' | 'now') => void

/** A request for entries. `window` is the most that its subscriber can have outside. */
interface Request {
  readonly max: number
  readonly window: number
  readonly subscriber: Subscriber<readonly Entry[]>
}

/** A copy: a message that is outside for long must not hold on to all that was read with it. */
export const entryOf = (seq: number, body: Buffer, headers: Buffer): Entry => ({
  seq,
  body: Buffer.from(body),
  headers: headers.length === 0 ? headers : Buffer.from(headers),
})

/** One emission is at most this long, so that nobody else waits for it. */
const MAX_ENTRIES = 4096

export const createReader = (fs: LogFileSystem, segments: Segments, found: Recovered, onSettled: OnSettled): Reader => {
  const tally = createTally(found)
  const reach = createReach(found)
  let request: Request | undefined
  let loading: Promise<void> | undefined
  let pumping = false
  let closed = false
  /** While marks fail, messages go out all the same: better twice than never. */
  let marksFail = false

  const cursor: Cursor = createCursor(fs, segments.recall, (damage) => tally.damage(damage, reach.missing(damage.lost)))
  const start = (segment: Segment | undefined): void => {
    if (segment !== undefined) cursor.seek(segment, SEGMENT_HEADER_BYTES, segment.first)
  }
  start(segments.all().findLast(({ first }) => first <= reach.floor()) ?? segments.all()[0])

  const take = (max: number): Entry[] | 'load' | 'end' => {
    const entries: Entry[] = []
    let stopped: 'load' | 'end' | undefined
    while (entries.length < max && !reach.isFull() && stopped === undefined) {
      const record = cursor.step()
      if (typeof record === 'string') stopped = record
      else if (record.kind === MESSAGE && !reach.isSettled(record.seq)) {
        const { seq, body, headers } = record
        const size = body.length + headers.length
        reach.give({ seq, segment: cursor.segment()!, at: cursor.offset() - RECORD_HEADER_BYTES - size }, size)
        entries.push(entryOf(seq, body, headers))
      }
    }
    reach.raiseFloor(cursor.expected())
    if (stopped === 'end' && cursor.expected() === segments.nextSeq()) {
      // All that is pending is outside.
      tally.correct(reach.unsettled(), reach.unsettledBytes())
    }
    return entries.length > 0 ? entries : (stopped ?? 'end')
  }

  const load = (): void => {
    const from = cursor.segment()
    loading = cursor.load().then(
      () => {
        loading = undefined
        pump()
      },
      (error: unknown) => {
        loading = undefined
        // Settled and deleted in the meantime.
        if (cursor.segment() !== from) return pump()
        const { subscriber } = request ?? {}
        request = undefined
        subscriber?.error(new QueueFailed('BACKHAUL_QUEUE_IO', 'the embedded queue cannot be read', { cause: error }))
      },
    )
  }

  /**
   * How much may go out. What is settled but in no synced mark comes again after a crash, as
   * what is outside does: together they stay within the window.
   */
  const room = ({ max, window }: Request): number =>
    marksFail ? max : Math.min(max, window - reach.unsettled() - reach.unrecorded())
  /** A sync for each settlement would be too many, and waiting for the timer too slow. */
  const hurryMark = (): void => {
    if (request !== undefined && room(request) <= 0 && reach.unrecorded() * 4 >= request.window) onSettled('now')
  }

  /** A loop, so that a consumer may ask for more from within its emission. */
  const pump = (): void => {
    if (pumping) return
    pumping = true
    while (request !== undefined && loading === undefined && !closed) {
      const most = room(request)
      const taken = most > 0 ? take(Math.min(most, MAX_ENTRIES)) : 'end'
      if (taken === 'end') break
      if (taken === 'load') load()
      else {
        const { subscriber } = request
        request = undefined
        subscriber.next(taken)
        subscriber.complete()
      }
    }
    pumping = false
    hurryMark()
  }

  const next: QueueEngine['next'] = (wanted) =>
    new Observable((subscriber) => {
      if (closed) return subscriber.complete()
      if (request !== undefined) return subscriber.error(new QueueFailed('BACKHAUL_QUEUE_BUSY', 'the embedded queue has a reader already'))
      const max = Math.max(1, wanted)
      const mine = { max, window: max + reach.unsettled(), subscriber }
      request = mine
      subscriber.add(() => {
        if (request === mine) request = undefined
      })
      pump()
    })

  const settle: QueueEngine['settle'] = (seq) => {
    if (closed) return
    const size = reach.remove(seq)
    if (size === undefined) return
    tally.remove(size)
    const wasFull = reach.isFull()
    reach.raiseFloor(cursor.expected())
    onSettled('soon')
    hurryMark()
    if (wasFull) queueMicrotask(pump)
  }

  const rewind: QueueEngine['rewind'] = () => {
    const oldest = reach.rewind()
    if (oldest === undefined) return
    cursor.seek(oldest.segment, oldest.at, oldest.seq)
    pump()
  }

  const purge = (): number => {
    const last = segments.all().at(-1)
    if (last === undefined) return 0
    const removed = tally.counts().depth - reach.unsettled()
    reach.purge({ from: Math.max(reach.floor(), cursor.expected()), to: segments.nextSeq() })
    cursor.seek(last, last.length, segments.nextSeq())
    reach.raiseFloor(cursor.expected())
    tally.correct(reach.unsettled(), reach.unsettledBytes())
    return removed
  }

  return {
    next,
    settle,
    rewind,
    purge,
    pump,
    settled: () => ({ floor: reach.floor(), runs: reach.runs() }),
    mark: (complete, messages, added) => {
      const { depth, bytes } = tally.counts()
      return { floor: reach.floor(), depth: depth + messages, bytes: bytes + added, runs: reach.toldBy(complete) }
    },
    marked: (synced) => {
      marksFail = !synced
      if (synced) reach.recorded()
    },
    unmarked: reach.anythingToTell,
    drained: () => tally.counts().depth === 0,
    appended: tally.add,
    refused: (from, to) => reach.refuse({ from, to }),
    begun: (segment) => {
      const where = cursor.segment()
      if (where === undefined || where.first === segment.first) start(segment)
    },
    leave: (segment) => {
      if (cursor.segment() === segment) start(segment.next)
    },
    stats: () => ({ ...tally.counts(), unsettled: reach.unsettled() }),
    close: async () => {
      closed = true
      request?.subscriber.complete()
      request = undefined
      await loading
      await cursor.close()
    },
  }
}
