/** Walks the records of a log, in order, stepping around what is damaged. */
import { attempt, readAround, type LogFile, type LogFileSystem } from './log-files.js'
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
}

export interface Damage {
  readonly segment: Segment
  readonly from: number
  readonly to: number
  /** The numbers that went missing. */
  readonly lost: Run
}

/** Bytes of a segment that are in memory; a record in them was checked when it was written. */
export interface Recent {
  readonly segment: Segment
  readonly at: number
  readonly bytes: Buffer
}

export interface Cursor {
  /** The next record; `load` when its bytes are not here yet; `end` when no synced one follows. */
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
  let chunk: (Recent & { readonly verify: boolean }) | undefined
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
  const covering = (from: Segment): typeof chunk => {
    if (chunk !== undefined && chunk.segment === from && chunk.at <= offset && offset < chunk.at + chunk.bytes.length) return chunk
    const recent = recall(from, offset)
    return recent === undefined ? undefined : { ...recent, verify: false }
  }

  const step: Cursor['step'] = () => {
    while (segment !== undefined) {
      if (offset >= segment.length) {
        if (segment.next === undefined) return 'end'
        seek(segment.next, SEGMENT_HEADER_BYTES, segment.next.first)
        continue
      }
      chunk = covering(segment)
      if (chunk === undefined) return more(0)
      const { at, bytes, verify } = chunk
      const record = readRecord(bytes, offset - at, segment.length - at, segment.seal, verify)
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

  const load = async (): Promise<void> => {
    if (segment === undefined) return
    const from = segment
    const at = offset
    const bytes = Buffer.allocUnsafe(Math.min(want, from.length - at))
    want = READ_BYTES
    if (file?.segment !== from) {
      await close()
      file = { segment: from, handle: await fs.open(from.path, 'read') }
    }
    await readAround(file.handle, bytes, at)
    chunk = { segment: from, at, bytes, verify: true }
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
