/**
 * The reading side of the log: what is given out, what of it is settled, and what the next
 * mark has to say about that.
 */
import { Observable, type Subscriber } from 'rxjs'
import { createCursor, type Cursor, type Damage, type Segment } from './log-cursor.js'
import type { LogFileSystem } from './log-files.js'
import type { Recovered } from './log-recovery.js'
import { addRun, tidy } from './log-runs.js'
import type { Segments } from './log-segments.js'
import { QueueFailed, type Entry, type QueueEngine, type QueueStats } from './queue-engine.js'
import { MESSAGE, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, type Mark, type Run } from './segment-record.js'

/** What the writer asks of the reader. */
export interface Settlements {
  /** What the next mark says when so much is appended with it: every settlement, or only those since the last mark. */
  readonly mark: (complete: boolean, messages: number, bytes: number) => Mark
  /** Whether something was settled since the last mark, and whether anything is left. */
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
  /** All that is settled, sorted, and where to start. */
  readonly settled: () => { readonly floor: number; readonly runs: Run[] }
  readonly close: () => Promise<void>
}

/** Given out, or known to be settled, between the oldest unsettled and the cursor. */
interface Outside extends Run {
  settled: boolean
  readonly bytes: number
  readonly segment?: Segment
  readonly at?: number
}

/** The most entries between the oldest unsettled and the newest given out. */
const REACH = 65_536

export const createReader = (fs: LogFileSystem, segments: Segments, found: Recovered, onSettled: () => void): Reader => {
  let { floor, depth, bytes, damagedRecords, damagedBytes, lostMessages } = found
  /** Settled beyond the cursor. */
  let skip = [...found.runs]
  /** From the oldest unsettled, at `head`, up to the cursor. */
  let reach: Outside[] = []
  let head = 0
  /** Settled since the last mark. */
  let fresh: Run[] = []
  const unsettled = new Map<number, Outside>()
  let unsettledBytes = 0
  let waiting: { readonly max: number; readonly subscriber: Subscriber<readonly Entry[]> } | undefined
  let loading: Promise<void> | undefined
  let pumping = false
  let closed = false

  const onDamage = ({ segment, from, to, lost }: Damage): void => {
    if (to <= segment.verified) return
    segment.verified = to
    segment.damaged = true
    damagedRecords += 1
    damagedBytes += to - from
    lostMessages += lost.to - lost.from
    const pending = Math.min(depth, Math.max(0, lost.to - Math.max(lost.from, floor)))
    depth -= pending
    if (pending > 0) bytes = Math.max(0, bytes - (to - from - pending * RECORD_HEADER_BYTES))
  }
  const cursor: Cursor = createCursor(fs, segments.recall, onDamage)
  const origin = segments.all().findLast(({ first }) => first <= floor) ?? segments.all()[0]
  if (origin !== undefined) cursor.seek(origin, SEGMENT_HEADER_BYTES, origin.first)

  const raiseFloor = (): void => {
    while (head < reach.length && reach[head]!.settled) head += 1
    floor = Math.max(floor, reach[head]?.from ?? cursor.expected())
    if (head > 1024 && head * 2 > reach.length) {
      reach = reach.slice(head)
      head = 0
    }
  }
  const full = (): boolean => reach.length - head >= REACH
  const settledOutside = (): Run[] => reach.slice(head).filter(({ settled }) => settled)

  /** Passes over settled runs; says whether this number is in one. */
  const skips = (seq: number): boolean => {
    while (skip.length > 0 && skip[0]!.to <= seq) reach.push({ ...skip.shift()!, settled: true, bytes: 0 })
    return seq < floor || (skip.length > 0 && skip[0]!.from <= seq)
  }

  const take = (max: number): Entry[] | 'load' | 'end' => {
    const entries: Entry[] = []
    let stopped: 'load' | 'end' = 'end'
    while (entries.length < max && !full()) {
      const record = cursor.step()
      if (typeof record === 'string') {
        stopped = record
        break
      }
      const { kind, seq, body, headers } = record
      if (kind !== MESSAGE || skips(seq)) continue
      const size = body.length + headers.length
      const at = cursor.offset() - RECORD_HEADER_BYTES - size
      const outside: Outside = { from: seq, to: seq + 1, settled: false, bytes: size, segment: cursor.segment()!, at }
      reach.push(outside)
      unsettled.set(seq, outside)
      unsettledBytes += size
      entries.push({ seq, body, headers })
    }
    raiseFloor()
    if (stopped === 'end' && cursor.expected() === segments.nextSeq()) {
      // All that is pending is outside: exact, whatever damage has made of the counts.
      depth = unsettled.size
      bytes = unsettledBytes
    }
    return entries.length > 0 ? entries : stopped
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
        const { subscriber } = waiting ?? {}
        waiting = undefined
        subscriber?.error(new QueueFailed('BACKHAUL_QUEUE_IO', 'the embedded queue cannot be read', { cause: error }))
      },
    )
  }

  /** A loop, so that a consumer may ask for more from within its emission. */
  const pump = (): void => {
    if (pumping) return
    pumping = true
    while (waiting !== undefined && loading === undefined && !closed) {
      const taken = take(waiting.max)
      if (taken === 'end') break
      if (taken === 'load') load()
      else {
        const { subscriber } = waiting
        waiting = undefined
        subscriber.next(taken)
        subscriber.complete()
      }
    }
    pumping = false
  }

  const next: QueueEngine['next'] = (max) =>
    new Observable((subscriber) => {
      if (closed) return subscriber.complete()
      if (waiting !== undefined) return subscriber.error(new QueueFailed('BACKHAUL_QUEUE_BUSY', 'the embedded queue has a reader already'))
      const mine = { max: Math.max(1, max), subscriber }
      waiting = mine
      subscriber.add(() => {
        if (waiting === mine) waiting = undefined
      })
      pump()
    })

  const settle: QueueEngine['settle'] = (seq) => {
    const outside = unsettled.get(seq)
    if (outside === undefined || closed) return
    unsettled.delete(seq)
    outside.settled = true
    depth -= 1
    bytes -= outside.bytes
    unsettledBytes -= outside.bytes
    addRun(fresh, seq, seq + 1)
    const held = full()
    raiseFloor()
    onSettled()
    if (held) queueMicrotask(pump)
  }

  const rewind: QueueEngine['rewind'] = () => {
    raiseFloor()
    const oldest = reach[head]
    if (oldest === undefined) return
    skip = [...tidy(settledOutside(), floor), ...skip]
    cursor.seek(oldest.segment!, oldest.at!, oldest.from)
    reach = []
    head = 0
    unsettled.clear()
    unsettledBytes = 0
    pump()
  }

  /** Moves behind everything synced: what is passed over counts as settled. */
  const purge = (): number => {
    const last = segments.all().at(-1)
    if (last === undefined) return 0
    raiseFloor()
    const removed = depth - unsettled.size
    const from = Math.max(floor, cursor.expected())
    const to = segments.nextSeq()
    if (to > from) {
      reach.push({ from, to, settled: true, bytes: 0 })
      addRun(fresh, from, to)
    }
    skip = []
    cursor.seek(last, last.length, to)
    depth = unsettled.size
    bytes = unsettledBytes
    raiseFloor()
    return removed
  }

  const settled: Reader['settled'] = () => ({ floor, runs: tidy([...settledOutside(), ...skip], floor) })

  return {
    next,
    settle,
    rewind,
    purge,
    pump,
    settled,
    mark: (complete, messages, added) => {
      const runs = complete ? settled().runs : tidy(fresh, floor)
      fresh = []
      return { floor, depth: depth + messages, bytes: bytes + added, runs }
    },
    unmarked: () => fresh.length > 0,
    drained: () => depth === 0,
    appended: (messages, added) => {
      depth += messages
      bytes += added
    },
    refused: (from, to) => addRun(skip, from, to),
    begun: (segment) => {
      const where = cursor.segment()
      if (where === undefined || where.first === segment.first) cursor.seek(segment, SEGMENT_HEADER_BYTES, segment.first)
    },
    leave: (segment) => {
      if (cursor.segment() === segment && segment.next !== undefined) cursor.seek(segment.next, SEGMENT_HEADER_BYTES, segment.next.first)
    },
    stats: () => ({ depth, bytes, unsettled: unsettled.size, damagedRecords, damagedBytes, lostMessages }),
    close: async () => {
      closed = true
      waiting?.subscriber.complete()
      waiting = undefined
      await loading
      await cursor.close()
    },
  }
}
