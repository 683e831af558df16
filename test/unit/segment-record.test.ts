import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  decodeMark,
  decodeSegmentHeader,
  encodeMark,
  encodeSegmentHeader,
  findRecord,
  MARK,
  MESSAGE,
  readRecord,
  RECORD_HEADER_BYTES,
  sealOf,
  SEGMENT_HEADER_BYTES,
  writeRecord,
  type Seal,
} from '../../src/connections/segment-record.js'

const salt = randomBytes(16)
const seal = sealOf(salt, 7)

const record = (seq: number, body: Uint8Array, headers: Uint8Array = Buffer.alloc(0), by: Seal = seal, kind = MESSAGE): Buffer => {
  const into = Buffer.alloc(RECORD_HEADER_BYTES + body.length + headers.length)
  expect(writeRecord(into, 0, by, kind, seq, body, headers)).toBe(into.length)
  return into
}

describe('a record', () => {
  it('comes back as it was written', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.uint8Array(), fc.uint8Array(), (n, body, headers) => {
        const seq = n % 2 ** 48
        const bytes = record(seq, body, headers)
        const read = readRecord(bytes, 0, bytes.length, seal)
        expect(read).toMatchObject({ kind: MESSAGE, seq, at: 0, end: bytes.length })
        if (typeof read === 'string') throw new Error(read)
        expect(read.body.equals(body)).toBe(true)
        expect(read.headers.equals(headers)).toBe(true)
      }),
    )
  })

  it('is bad after any single flipped bit', () => {
    const bytes = record(7, Buffer.from('{"a":1}'), Buffer.from('h'))
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      expect(readRecord(flipped, 0, flipped.length, seal)).toBe('bad')
    }
  })

  it('is short while its buffer ends early, and bad when its segment does', () => {
    const bytes = record(7, Buffer.alloc(50))
    for (let length = 0; length < bytes.length; length += 1) {
      expect(readRecord(bytes.subarray(0, length), 0, bytes.length, seal)).toBe('short')
      expect(readRecord(bytes.subarray(0, length), 0, length, seal)).toBe('bad')
    }
  })

  it('is genuine only under its own salt and in its own segment', () => {
    const bytes = record(7, Buffer.alloc(5))
    expect(readRecord(bytes, 0, bytes.length, sealOf(randomBytes(16), 7))).toBe('bad')
    expect(readRecord(bytes, 0, bytes.length, sealOf(salt, 8))).toBe('bad')
  })
})

describe('resynchronising', () => {
  it('finds the next genuine record', () => {
    const bytes = Buffer.concat([randomBytes(100), record(9, Buffer.from('x'))])
    expect(findRecord(bytes, 1, seal, 7)).toMatchObject({ at: 100, seq: 9 })
  })

  it('passes over a record whose number cannot follow', () => {
    const old = record(6, Buffer.from('old'))
    const far = record(700, Buffer.from('far'))
    expect(findRecord(Buffer.concat([randomBytes(50), old, far]), 1, seal, 7)).toBeUndefined()
  })

  it('passes over a record that a sender made without the salt', () => {
    const forged = record(8, Buffer.from('forged'), Buffer.alloc(0), sealOf(Buffer.alloc(16), 7))
    expect(findRecord(Buffer.concat([randomBytes(50), forged]), 1, seal, 7)).toBeUndefined()
  })
})

it('a mark comes back as it was written', () => {
  const mark = { floor: 2 ** 40, depth: 3, bytes: 900, runs: [{ from: 2 ** 40 + 1, to: 2 ** 40 + 5 }, { from: 2 ** 41, to: 2 ** 41 + 1 }] }
  expect(decodeMark(encodeMark(mark))).toEqual(mark)
  expect(record(1, encodeMark(mark), Buffer.alloc(0), seal, MARK).length).toBeGreaterThan(RECORD_HEADER_BYTES)
})

it('a segment header gives its salt back, or nothing after any flipped bit', () => {
  const bytes = encodeSegmentHeader(salt)
  expect(bytes.length).toBe(SEGMENT_HEADER_BYTES)
  expect(decodeSegmentHeader(bytes)).toEqual({ version: 1, salt })
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const flipped = Buffer.from(bytes)
    flipped[bit >> 3]! ^= 1 << (bit & 7)
    expect(decodeSegmentHeader(flipped)).toBeUndefined()
  }
})
