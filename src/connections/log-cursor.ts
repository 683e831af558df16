/** Walks the records of a log, in order, stepping around what is damaged. */
import { attempt, readAround, unlessMissing, type LogFile, type LogFileSystem } from './log-files.js'
import type { Recent } from './log-recent.js'
import {
  claimedBytes,
  findRecord,
  MESSAGE,
  readRecord,
  SEGMENT_HEADER_BYTES,
  type Run,
  type Seal,
  type StoredRecord,
} from './segment-record.js'

export interface Segment {
  readonly first: number
  readonly path: string
  readonly seal: Seal
  /** Synced, and so readable. */
  length: number
  /** Damage before this offset has been counted. */
  verified: number
  damaged: boolean
  next: Segment | undefined
  /** While it grows, what it is written through: it is read through that too, whatever has become of its name. */
  file?: LogFile | undefined
}

/** Broken bytes; or none (`from` is `to`), where numbers are missing between two segments. */
export interface Damage {
  readonly segment: Segment
  readonly from: number
  readonly to: number
  /** The numbers that went missing. */
  readonly lost: Run
}

export interface Cursor {
  /** The next record, good until the next call of `step` or `load`; `load` when its bytes are not here yet; `end` when no synced one follows. */
  readonly step: () => StoredRecord | 'load' | 'end'
  readonly load: () => Promise<void>
  readonly seek: (segment: Segment, offset: number, seq: number) => void
  readonly close: () => Promise<void>
  readonly segment: () => Segment | undefined
  readonly offset: () => number
  /** The number that the next message will have, as far as one can tell from here. */
  readonly expected: () => number
}

const READ_BYTES = 256 * 1024

/** To let others run between two pieces of long work. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/**
 * **Holds** one read-ahead of 256 KiB; after damage the rest of the segment, once, to find
 * the next genuine record.
 * **Fails** (`load`) when the disk gives nothing at all; the cursor stays where it is.
 */
export const createCursor = (
  fs: LogFileSystem,
  recall: (segment: Segment, offset: number) => Recent | undefined,
  onDamage: (damage: Damage) => void,
): Cursor => {
  let segment: Segment | undefined
  let offset = 0
  let expected = 0
  let want = READ_BYTES
  let chunk: Recent | undefined
  /** Where `load` reads into, time and again. */
  let own = Buffer.alloc(0)
  let file: { segment: Segment; handle: LogFile } | undefined

  const seek = (to: Segment, at: number, seq: number): void => {
    segment = to
    offset = at
    expected = seq
  }
  const more = (bytes: number): 'load' => {
    want = Math.max(READ_BYTES, bytes)
    chunk = undefined
    return 'load'
  }
  const covers = (some: Recent | undefined): boolean =>
    some !== undefined && !some.gone && some.segment === segment && some.at <= offset && offset < some.at + some.bytes.length

  const step: Cursor['step'] = () => {
    while (segment !== undefined) {
      if (offset >= segment.length) {
        const { next } = segment
        if (next === undefined) return 'end'
        // A refused batch leaves a gap, and so does a file that has lost its end: whoever listens knows which.
        if (expected < next.first) onDamage({ segment: next, from: 0, to: 0, lost: { from: expected, to: next.first } })
        seek(next, SEGMENT_HEADER_BYTES, next.first)
        continue
      }
      if (!covers(chunk)) chunk = recall(segment, offset)
      if (chunk === undefined) return more(0)
      const { at, bytes } = chunk
      const record = readRecord(bytes, offset - at, segment.length - at, segment.seal, bytes.buffer === own.buffer)
      if (record === 'short') return more(claimedBytes(bytes, offset - at))
      if (record !== 'bad' && record.seq === expected) {
        offset = at + record.end
        if (record.kind === MESSAGE) expected += 1
        return record
      }
      if (at + bytes.length < segment.length) return more(segment.length - offset)
      const found = findRecord(bytes, offset - at + 1, segment.seal, expected)
      const to = found === undefined ? segment.length : at + found.at
      const next = Math.max(expected, found?.seq ?? segment.next?.first ?? expected)
      onDamage({ segment, from: offset, to, lost: { from: expected, to: next } })
      seek(segment, to, next)
    }
    return 'end'
  }

  const close = async (): Promise<void> => {
    const old = file
    file = undefined
    if (old !== undefined) await attempt(old.handle.close())
  }

  /** Undefined where somebody took the file away: all of it is damage, and what follows is still there. */
  const byName = async (wanted: Segment): Promise<LogFile | undefined> => {
    if (file?.segment === wanted) return file.handle
    await close()
    const handle = await fs.open(wanted.path, 'read').catch(unlessMissing)
    if (handle !== undefined) file = { segment: wanted, handle }
    return handle
  }

  const load = async (): Promise<void> => {
    if (segment === undefined) return
    const from = segment
    const at = offset
    const size = Math.min(want, from.length - at)
    want = READ_BYTES
    // What is longer than usual is not kept for long.
    if (own.length < size || own.length > READ_BYTES) own = Buffer.allocUnsafeSlow(Math.max(READ_BYTES, size))
    const bytes = own.subarray(0, size)
    chunk = undefined
    const growing = from.file
    const handle = growing ?? (await byName(from))
    const read = handle === undefined ? bytes.fill(0) : readAround(handle, bytes, at)
    try {
      await read
    } catch (error) {
      if (from.file === growing) throw error
    }
    // It grows no longer, and its file may have been closed under this read: once more, by its name.
    if (from.file !== growing) return
    chunk = { segment: from, at, bytes, gone: false }
  }

  return { step, load, seek, close, segment: () => segment, offset: () => offset, expected: () => expected }
}

/** Every record from here on, letting others run in between; `visit` says whether to go on. */
export const walk = async (cursor: Cursor, visit: (record: StoredRecord) => boolean): Promise<void> => {
  for (let steps = 1; ; steps += 1) {
    const record = cursor.step()
    if (record === 'end') return
    if (record === 'load') await cursor.load()
    else if (!visit(record)) return
    if (steps % 4096 === 0) await turn()
  }
}
