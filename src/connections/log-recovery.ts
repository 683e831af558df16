/**
 * What a folder still knows after a stop of any kind.
 *
 * The newest segment starts with a mark that tells everything about the older ones, so only
 * that one is read. Broken bytes are stepped around and counted; what a crash left behind
 * the last good record is cut off.
 */
import { createCursor, walk, type Damage, type Segment } from './log-cursor.js'
import { attempt, readAround, readStart, type LogFileSystem } from './log-files.js'
import { readFolder } from './log-folder.js'
import { missingIn, raiseOver, tidy } from './log-runs.js'
import {
  claimedBytes,
  decodeMark,
  isWhole,
  LAST_SEQ,
  MARK,
  RECORD_HEADER_BYTES,
  readRecord,
  SEGMENT_HEADER_BYTES,
  type Run,
} from './segment-record.js'

export interface Recovered {
  /** Oldest first, linked by `next`. */
  readonly segments: Segment[]
  readonly salt: Buffer
  readonly nextSeq: number
  /** Everything below is settled, and so are the runs. */
  readonly floor: number
  readonly runs: readonly Run[]
  readonly depth: number
  readonly bytes: number
  readonly damagedRecords: number
  readonly damagedBytes: number
  readonly lostMessages: number
  readonly tornBytes: number
}

/** Longer than any complete mark: half of 65,536 numbers, each a run of its own. */
const MAX_MARK_BYTES = 4 * 1024 * 1024
const MAX_RUNS = 65_536
/** More messages than a segment holds. */
const DESTROYED_GAP = 1 << 20

type Counts = { -readonly [key in 'damagedRecords' | 'damagedBytes' | 'lostMessages' | 'tornBytes']: Recovered[key] }

const startsWithMark = async (fs: LogFileSystem, { first, path, length, seal }: Segment): Promise<boolean> => {
  const claimed = claimedBytes((await readStart(fs, path, SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES)).start, SEGMENT_HEADER_BYTES)
  const { start } = await readStart(fs, path, Math.min(length, SEGMENT_HEADER_BYTES + Math.min(claimed, MAX_MARK_BYTES)))
  const record = readRecord(start, SEGMENT_HEADER_BYTES, start.length, seal)
  return typeof record === 'object' && record.kind === MARK && record.seq === first
}

/** What the newest segment whose first mark is whole says, and all that came after it. */
const replay = async (fs: LogFileSystem, segments: readonly Segment[], counts: Counts) => {
  let tail: Damage | undefined
  const damages: Damage[] = []
  const cursor = createCursor(fs, () => undefined, (damage) => {
    const { segment, to } = damage
    if (to <= segment.verified) return
    segment.verified = to
    if (to === segment.length && segment.next === undefined) tail = damage
    else damages.push(damage)
  })

  let start = Math.max(0, segments.length - 1)
  while (start > 0 && !(await startsWithMark(fs, segments[start]!))) start -= 1
  const origin = segments[start]
  /** Numbers start at 1: lower means that there was no mark. */
  let floor = 0
  let nextSeq = origin?.first ?? 1
  let depth = 0
  let bytes = 0
  let runs: Run[] = []
  let runsLimit = MAX_RUNS
  /** Damage that came before the last mark, which still counts its messages. */
  let marked = 0
  /** Good records in the newest segment. */
  let genuine = 0
  if (origin !== undefined) {
    cursor.seek(origin, SEGMENT_HEADER_BYTES, origin.first)
    await walk(cursor, ({ kind, seq, body, headers }) => {
      if (cursor.segment()?.next === undefined) genuine += 1
      nextSeq = Math.max(nextSeq, kind === MARK ? seq : seq + 1)
      if (kind !== MARK) {
        depth += 1
        bytes += body.length + headers.length
        return true
      }
      const mark = decodeMark(body)
      floor = Math.max(1, floor, mark.floor)
      depth = mark.depth
      bytes = mark.bytes
      marked = damages.length
      for (const run of mark.runs) runs.push(run)
      if (runs.length > runsLimit) {
        runs = tidy(runs, floor)
        runsLimit = MAX_RUNS + runs.length * 2
      }
      return true
    })
    await cursor.close()
  }
  runs = tidy(runs, floor)
  const lose = (missing: number, lostBytes: number, counted: boolean): void => {
    counts.lostMessages += missing
    if (!counted || missing === 0) return
    depth = Math.max(0, depth - missing)
    bytes = Math.max(0, bytes - Math.max(0, lostBytes))
  }
  damages.forEach(({ segment, from, to, lost }, i) => {
    segment.damaged = true
    counts.damagedRecords += 1
    counts.damagedBytes += to - from
    const missing = missingIn(lost, runs, floor)
    lose(missing, to - from - missing * RECORD_HEADER_BYTES, i < marked)
  })
  // Segments go from the oldest on, and only below the floor: what is missing above it was taken away.
  const oldest = segments[0]?.first ?? floor
  const missing = floor === 0 ? 0 : missingIn({ from: floor, to: oldest }, runs, floor)
  if (missing > 0) counts.damagedRecords += 1
  lose(missing, 0, true)
  floor = Math.max(floor, oldest)
  return { floor, nextSeq, depth, bytes, runs: tidy(runs, floor), tail, genuine }
}

/**
 * Whether a crash in mid-write can have left these bytes behind the last good record: the
 * start of a record that goes on beyond the end, or nothing at all. A record that is all
 * there and wrong was good once.
 */
const isTorn = async (fs: LogFileSystem, { segment, from, to }: Damage): Promise<boolean> => {
  const bytes = Buffer.alloc(to - from)
  const file = await fs.open(segment.path, 'read')
  const readable = await readAround(file, bytes, from).finally(() => file.close())
  if (!readable) return false
  if (bytes.length < RECORD_HEADER_BYTES || bytes.every((byte) => byte === 0)) return true
  const { markerBytes } = segment.seal
  return bytes.indexOf(markerBytes) === 0 && claimedBytes(bytes, 0) > bytes.length && !isWhole(bytes, segment.seal)
}

/**
 * Reads the folder, or prepares it.
 *
 * **Fails** with `QueueFailed` when a later version wrote it. Damage never stops it.
 */
export const recover = async (fs: LogFileSystem, folder: string): Promise<Recovered> => {
  const counts: Counts = { damagedRecords: 0, damagedBytes: 0, lostMessages: 0, tornBytes: 0 }
  const damage = (broken: number): void => {
    counts.damagedRecords += 1
    counts.damagedBytes += broken
  }
  const { salt, segments } = await readFolder(fs, folder, damage)
  const { nextSeq, genuine, tail, ...known } = await replay(fs, segments, counts)
  const newest = segments.at(-1)
  let next = nextSeq
  if (newest !== undefined) {
    const tailBytes = tail === undefined ? 0 : tail.to - tail.from
    // Numbers that the bytes in the tail may have used are not used again.
    next = Math.max(nextSeq, newest.first) + Math.ceil(tailBytes / RECORD_HEADER_BYTES)
    if (genuine === 0) {
      // Segments appear whole, so this one was destroyed: kept aside, and none of its numbers is used again.
      damage(Math.max(0, newest.length - SEGMENT_HEADER_BYTES))
      next += DESTROYED_GAP
      await attempt(fs.rename(newest.path, `${newest.path}.damaged`))
      segments.pop()
      const before = segments.at(-1)
      if (before !== undefined) before.next = undefined
    } else if (tail !== undefined && (await isTorn(fs, tail))) {
      counts.tornBytes += tailBytes
      newest.length = tail.from
      const file = await fs.open(newest.path, 'write').catch(() => undefined)
      if (file !== undefined) await attempt(file.truncate(newest.length).finally(() => file.close()))
    } else if (tail !== undefined) {
      damage(tailBytes)
      newest.damaged = true
    }
  }
  next = Math.min(next, LAST_SEQ)
  // The numbers that are passed over are accounted for: a gap that no run explains is a loss.
  const runs = next > nextSeq ? [...known.runs, { from: nextSeq, to: next }] : known.runs
  return { ...known, ...raiseOver(known.floor, tidy(runs, known.floor)), segments, salt, nextSeq: next, ...counts }
}
