/**
 * What a folder still knows after a stop of any kind.
 *
 * The newest segment starts with a mark that tells everything about the older ones, so only
 * that one is read. Broken bytes are stepped around and counted; what a crash left behind
 * the last good record is cut off.
 */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { createCursor, walk, type Damage, type Segment } from './log-cursor.js'
import { attempt, placeFile, readStart, type LogFileSystem } from './log-files.js'
import { missingIn, tidy } from './log-runs.js'
import { QueueFailed } from './queue-engine.js'
import {
  claimedBytes,
  decodeMark,
  decodeSegmentHeader,
  encodeSegmentHeader,
  FORMAT_VERSION,
  MARK,
  RECORD_HEADER_BYTES,
  readRecord,
  SALT_BYTES,
  sealOf,
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
const SEGMENT = /^(\d{16})\.log$/

type Counts = { -readonly [key in 'damagedRecords' | 'damagedBytes' | 'lostMessages' | 'tornBytes']: Recovered[key] }

/** The segments by name, and the salt from whichever copy of it is whole. */
const readFolder = async (fs: LogFileSystem, folder: string, counts: Counts): Promise<{ salt: Buffer; segments: Segment[] }> => {
  const names = await fs.list(folder)
  for (const name of names) if (name.endsWith('.new')) await attempt(fs.remove(join(folder, name)))

  const files = await Promise.all(
    names.filter((name) => SEGMENT.test(name)).sort().map(async (name) => {
      const { start, size } = await readStart(fs, join(folder, name), SEGMENT_HEADER_BYTES)
      return { name, size, header: decodeSegmentHeader(start) }
    }),
  )
  for (const { name, header } of files) {
    if (header !== undefined && header.version > FORMAT_VERSION) {
      throw new QueueFailed('BACKHAUL_QUEUE_FORMAT', `${join(folder, name)} has format ${header.version}, which a later version wrote`)
    }
  }

  const saltPath = join(folder, 'salt')
  const saltKept = names.includes('salt')
  const kept = saltKept ? decodeSegmentHeader((await readStart(fs, saltPath, SEGMENT_HEADER_BYTES)).start) : undefined
  const salt = kept?.salt ?? files.find(({ header }) => header !== undefined)?.header?.salt ?? randomBytes(SALT_BYTES)
  if (kept === undefined) {
    if (saltKept) {
      counts.damagedRecords += 1
      counts.damagedBytes += SEGMENT_HEADER_BYTES
    }
    // Without room for it the copies in the segments do, and the next start tries again.
    await placeFile(fs, folder, saltPath, encodeSegmentHeader(salt)).then(
      (file) => file.close(),
      (error: unknown) => {
        if (files.length === 0) throw error
      },
    )
  }

  const segments = files.map(({ name, size, header }): Segment => {
    const first = Number(name.slice(0, 16))
    const damaged = header === undefined
    if (damaged && size > 0) {
      counts.damagedRecords += 1
      counts.damagedBytes += Math.min(size, SEGMENT_HEADER_BYTES)
    }
    return { first, path: join(folder, name), seal: sealOf(header?.salt ?? salt, first), length: size, verified: 0, damaged, next: undefined }
  })
  segments.forEach((segment, i) => (segment.next = segments[i + 1]))
  return { salt, segments }
}

const startsWithMark = async (fs: LogFileSystem, { first, path, length, seal }: Segment): Promise<boolean> => {
  const claimed = claimedBytes((await readStart(fs, path, SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES)).start, SEGMENT_HEADER_BYTES)
  const { start } = await readStart(fs, path, Math.min(length, SEGMENT_HEADER_BYTES + Math.min(claimed, MAX_MARK_BYTES)))
  const record = readRecord(start, SEGMENT_HEADER_BYTES, start.length, seal)
  return typeof record === 'object' && record.kind === MARK && record.seq === first
}

/** Reads from the newest segment on whose first mark is whole. */
const replay = async (fs: LogFileSystem, segments: readonly Segment[], counts: Counts) => {
  let torn: Damage | undefined
  const damages: Damage[] = []
  const cursor = createCursor(fs, () => undefined, (damage) => {
    const { segment, from, to, lost } = damage
    if (to <= segment.verified) return
    segment.verified = to
    if (to === segment.length && segment.next === undefined) {
      torn = damage
      return
    }
    segment.damaged = true
    counts.damagedRecords += 1
    counts.damagedBytes += to - from
    counts.lostMessages += lost.to - lost.from
    damages.push(damage)
  })

  let start = Math.max(0, segments.length - 1)
  while (start > 0 && !(await startsWithMark(fs, segments[start]!))) start -= 1
  const origin = segments[start]
  let floor = segments[0]?.first ?? 0
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
      floor = Math.max(floor, mark.floor)
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
    runs = tidy(runs, floor)
    for (const { from, to, lost } of damages.slice(0, marked)) {
      const gone = missingIn(lost, runs, floor)
      depth = Math.max(0, depth - gone)
      if (gone > 0) bytes = Math.max(0, bytes - (to - from - gone * RECORD_HEADER_BYTES))
    }
  }
  return { floor, nextSeq, depth, bytes, runs, torn, genuine }
}

/**
 * Reads the folder, or prepares it.
 *
 * **Fails** with `QueueFailed` when a later version wrote it. Damage never stops it.
 */
export const recover = async (fs: LogFileSystem, folder: string): Promise<Recovered> => {
  const counts: Counts = { damagedRecords: 0, damagedBytes: 0, lostMessages: 0, tornBytes: 0 }
  const { salt, segments } = await readFolder(fs, folder, counts)
  const { floor, nextSeq, depth, bytes, runs, torn, genuine } = await replay(fs, segments, counts)
  const newest = segments.at(-1)
  let next = nextSeq
  if (newest !== undefined) {
    const tail = torn === undefined ? 0 : torn.to - torn.from
    // Numbers that the torn bytes may have used are not used again.
    next = Math.max(nextSeq, newest.first) + Math.ceil(tail / RECORD_HEADER_BYTES)
    if (genuine === 0) {
      // Segments appear whole, so this one was destroyed: kept aside, and none of its numbers is used again.
      counts.damagedRecords += 1
      counts.damagedBytes += Math.max(0, newest.length - SEGMENT_HEADER_BYTES)
      next += DESTROYED_GAP
      await attempt(fs.rename(newest.path, `${newest.path}.damaged`))
      segments.pop()
      const before = segments.at(-1)
      if (before !== undefined) before.next = undefined
    } else if (torn !== undefined) {
      counts.tornBytes += tail
      newest.length = torn.from
      const file = await fs.open(newest.path, 'write').catch(() => undefined)
      if (file !== undefined) await attempt(file.truncate(newest.length).finally(() => file.close()))
    }
  }
  const lowest = Math.max(floor, segments[0]?.first ?? floor)
  return { segments, salt, nextSeq: next, floor: lowest, runs: tidy(runs, lowest), depth, bytes, ...counts }
}
