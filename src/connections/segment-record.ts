/**
 * How the segment log looks on disk: records of 24 bytes and a payload, one after the other,
 * behind a segment header that can be lost without losing anything else.
 *
 * Marker and checksum of a record both depend on a secret salt and on the segment's first
 * sequence number: a sender cannot put a record into a payload, and a block left over from
 * another segment is no record here.
 */
import { crc32 } from 'node:zlib'

export const FORMAT_VERSION = 1
export const SALT_BYTES = 16
export const SEGMENT_HEADER_BYTES = 32
export const RECORD_HEADER_BYTES = 24
export const MAX_HEADERS_BYTES = 0xff_ffff
/** Six bytes; no message has this one, so that a mark can still follow the last. A million messages a second take nine years. */
export const LAST_SEQ = 2 ** 48 - 1

/** A message, or a mark: what was settled by the end of a batch. */
export const MESSAGE = 1
export const MARK = 2

/** What makes a record genuine in one segment. */
export interface Seal {
  readonly seed: number
  readonly marker: number
  readonly markerBytes: Buffer
}

export interface StoredRecord {
  readonly kind: number
  /** Of the message; of the next message for a mark. */
  readonly seq: number
  /** Where it starts in the buffer, and where the next one starts. */
  readonly at: number
  readonly end: number
  readonly headers: Buffer
  readonly body: Buffer
}

/** Sequence numbers from `from` up to, and without, `to`. */
export interface Run {
  readonly from: number
  readonly to: number
}

/** Everything below `floor` is settled, and so are the runs; `depth` and `bytes` count what is left. */
export interface Mark {
  readonly floor: number
  readonly depth: number
  readonly bytes: number
  readonly runs: readonly Run[]
}

const EMPTY = Buffer.alloc(0)
const MAGIC = 0x42_48_51_4c
const MARK_BYTES = 18
const RUN_BYTES = 12

export const sealOf = (salt: Buffer, first: number): Seal => {
  const name = Buffer.alloc(8)
  name.writeUIntBE(first, 2, 6)
  const seed = crc32(name, crc32(salt))
  const markerBytes = Buffer.alloc(4)
  markerBytes.writeUInt32BE(crc32('marker', seed))
  return { seed, marker: markerBytes.readUInt32BE(), markerBytes }
}

/** Big-endian. `Buffer.writeUInt32BE` checks its arguments, which for six fields costs as much as a third of the checksum. */
const put32 = (into: Buffer, at: number, value: number): void => {
  into[at] = value >>> 24
  into[at + 1] = value >>> 16
  into[at + 2] = value >>> 8
  into[at + 3] = value
}

/** Writes one record and returns where the next one goes. Room for it there must be: what goes beyond `into` is not written. */
export const writeRecord = (
  into: Buffer,
  at: number,
  seal: Seal,
  kind: number,
  seq: number,
  body: Uint8Array,
  headers: Uint8Array = EMPTY,
): number => {
  const payload = at + RECORD_HEADER_BYTES
  const end = payload + headers.length + body.length
  put32(into, at, seal.marker)
  put32(into, at + 8, (kind << 24) | headers.length)
  put32(into, at + 12, headers.length + body.length)
  put32(into, at + 16, Math.floor(seq / 2 ** 32))
  put32(into, at + 20, seq)
  if (headers.length > 0) into.set(headers, payload)
  into.set(body, payload + headers.length)
  put32(into, at + 4, crc32(new Uint8Array(into.buffer, into.byteOffset + at + 8, end - at - 8), seal.seed))
  return end
}

/**
 * The record at `at`; `bad` when there is none, `short` when the buffer ends before the
 * record does. `limit` is where the segment ends, counted from the start of the buffer.
 */
export const readRecord = (
  bytes: Buffer,
  at: number,
  limit: number,
  seal: Seal,
  verify = true,
): StoredRecord | 'bad' | 'short' => {
  if (limit - at < RECORD_HEADER_BYTES) return 'bad'
  if (bytes.length - at < RECORD_HEADER_BYTES) return 'short'
  if (bytes.readUInt32BE(at) !== seal.marker) return 'bad'
  const payload = at + RECORD_HEADER_BYTES
  const end = payload + bytes.readUInt32BE(at + 12)
  if (end > limit) return 'bad'
  if (end > bytes.length) return 'short'
  if (verify && crc32(bytes.subarray(at + 8, end), seal.seed) !== bytes.readUInt32BE(at + 4)) return 'bad'
  const what = bytes.readUInt32BE(at + 8)
  const headersEnd = payload + (what & MAX_HEADERS_BYTES)
  return {
    kind: what >>> 24,
    seq: bytes.readUInt16BE(at + 18) * 0x1_0000_0000 + bytes.readUInt32BE(at + 20),
    at,
    end,
    headers: headersEnd === payload ? EMPTY : bytes.subarray(payload, headersEnd),
    body: bytes.subarray(headersEnd, end),
  }
}

/** Whether the whole buffer is one record, whatever its marker and its length say. */
export const isWhole = (bytes: Buffer, seal: Seal): boolean => {
  if (bytes.length < RECORD_HEADER_BYTES) return false
  const copy = Buffer.from(bytes)
  copy.writeUInt32BE(bytes.length - RECORD_HEADER_BYTES, 12)
  return crc32(copy.subarray(8), seal.seed) === copy.readUInt32BE(4)
}

/** The whole length that the record at `at` claims. */
export const claimedBytes = (bytes: Buffer, at: number): number =>
  bytes.length - at < RECORD_HEADER_BYTES ? RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + bytes.readUInt32BE(at + 12)

/**
 * Resynchronises after damage: the first genuine record from `from` on whose number can
 * follow `expected` after so many lost bytes.
 */
export const findRecord = (bytes: Buffer, from: number, seal: Seal, expected: number): StoredRecord | undefined => {
  for (let at = bytes.indexOf(seal.markerBytes, from); at >= 0; at = bytes.indexOf(seal.markerBytes, at + 1)) {
    const record = readRecord(bytes, at, bytes.length, seal)
    if (typeof record === 'string' || record.seq < expected) continue
    if (record.seq - expected <= (at - from + 1) / RECORD_HEADER_BYTES) return record
  }
  return undefined
}

export const encodeMark = ({ floor, depth, bytes, runs }: Mark): Buffer => {
  const into = Buffer.allocUnsafe(MARK_BYTES + runs.length * RUN_BYTES)
  into.writeUIntBE(floor, 0, 6)
  into.writeUIntBE(depth, 6, 6)
  into.writeUIntBE(bytes, 12, 6)
  runs.forEach(({ from, to }, i) => {
    into.writeUIntBE(from, MARK_BYTES + i * RUN_BYTES, 6)
    into.writeUIntBE(to, MARK_BYTES + i * RUN_BYTES + 6, 6)
  })
  return into
}

export const decodeMark = (body: Buffer): Mark => {
  const runs: Run[] = []
  for (let at = MARK_BYTES; at + RUN_BYTES <= body.length; at += RUN_BYTES) {
    runs.push({ from: body.readUIntBE(at, 6), to: body.readUIntBE(at + 6, 6) })
  }
  return { floor: body.readUIntBE(0, 6), depth: body.readUIntBE(6, 6), bytes: body.readUIntBE(12, 6), runs }
}

/** Format version and a copy of the salt. Nothing essential: the salt is also in a file of its own, in this form. */
export const encodeSegmentHeader = (salt: Buffer): Buffer => {
  const into = Buffer.alloc(SEGMENT_HEADER_BYTES)
  into.writeUInt32BE(MAGIC, 0)
  into.writeUInt16BE(FORMAT_VERSION, 4)
  salt.copy(into, 8, 0, SALT_BYTES)
  into.writeUInt32BE(crc32(into.subarray(0, SEGMENT_HEADER_BYTES - 4)), SEGMENT_HEADER_BYTES - 4)
  return into
}

/** Undefined when it is damaged. */
export const decodeSegmentHeader = (bytes: Buffer): { version: number; salt: Buffer } | undefined => {
  if (bytes.length < SEGMENT_HEADER_BYTES || bytes.readUInt32BE(0) !== MAGIC) return undefined
  const sum = crc32(bytes.subarray(0, SEGMENT_HEADER_BYTES - 4))
  if (sum !== bytes.readUInt32BE(SEGMENT_HEADER_BYTES - 4)) return undefined
  return { version: bytes.readUInt16BE(4), salt: Buffer.from(bytes.subarray(8, 8 + SALT_BYTES)) }
}
