/**
 * JSON as bytes. A message travels exactly as it came, so nothing here builds text from parsed
 * values: it checks, and tells where things are. Every pass is linear and none recurses.
 */
import { isUtf8 } from 'node:buffer'
import { Rejection } from './delivery.js'

/** `notJson`: not JSON at all · `notMessage`: JSON, but not a message · `tooLarge`: too many in one body. */
export type BadMessageCode = 'notJson' | 'notMessage' | 'tooLarge'

/** Says *never* to a body. The reason is one of a few fixed texts, and never holds payload data. */
export class BadMessage extends Rejection {
  constructor(
    readonly code: BadMessageCode,
    reason: string,
  ) {
    super(reason)
  }
}

/** From `start` up to, and without, `end`. */
export interface Span {
  readonly start: number
  readonly end: number
}

export interface Fields {
  /** Where the value of each wanted name is, in the order of the names. */
  readonly values: readonly (Span | undefined)[]
  /** Right after the last value, or after the opening brace of an object without members. */
  readonly end: number
  readonly hasMembers: boolean
}

const maxDepth = 64

const quote = 0x22
const comma = 0x2c
const backslash = 0x5c
const openBracket = 0x5b
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

const isSpace = (byte: number | undefined): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

const afterSpace = (body: Buffer, from: number): number => {
  let at = from
  while (at < body.length && isSpace(body[at])) at++
  return at
}

const endOfString = (body: Buffer, start: number): number => {
  for (let at = start + 1; at < body.length; at++) {
    const byte = body[at]
    if (byte === quote) return at + 1
    if (byte === backslash) at++
  }
  return body.length
}

const endOfContainer = (body: Buffer, start: number, deepest: number): number => {
  let depth = 0
  let at = start
  while (at < body.length) {
    const byte = body[at]
    if (byte === quote) {
      at = endOfString(body, at)
      continue
    }
    at++
    if (byte === openBrace || byte === openBracket) {
      if (++depth > deepest) throw new BadMessage('notMessage', `nested deeper than ${maxDepth}`)
    } else if (byte === closeBrace || byte === closeBracket) {
      if (--depth === 0) return at
    }
  }
  return body.length
}

const endOfScalar = (body: Buffer, start: number): number => {
  let at = start
  while (at < body.length) {
    const byte = body[at]
    if (byte === comma || byte === closeBracket || byte === closeBrace || isSpace(byte)) return at
    at++
  }
  return at
}

const endOfValue = (body: Buffer, start: number): number => {
  const byte = body[start]
  if (byte === quote) return endOfString(body, start)
  if (byte === openBrace || byte === openBracket) return endOfContainer(body, start, Infinity)
  return endOfScalar(body, start)
}

const sameBytes = (body: Buffer, start: number, end: number, name: Buffer): boolean => {
  if (end - start !== name.length) return false
  for (let at = 0; at < name.length; at++) if (body[start + at] !== name[at]) return false
  return true
}

const hasEscape = (body: Buffer, start: number, end: number): boolean => {
  for (let at = start; at < end; at++) if (body[at] === backslash) return true
  return false
}

/** Tells an object from an array by the first byte that is not white space; checks nothing. */
export const firstByteKind = (body: Buffer): 'object' | 'array' | 'other' => {
  const byte = body[afterSpace(body, 0)]
  return byte === openBrace ? 'object' : byte === openBracket ? 'array' : 'other'
}

const check = (body: Buffer): void => {
  if (!isUtf8(body)) throw new BadMessage('notJson', 'not valid UTF-8')
  if (body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf) {
    throw new BadMessage('notJson', 'starts with a byte order mark')
  }
  // The parser needs a second for five million levels, so depth comes first. What follows the
  // outermost value is no concern here: the parser refuses any of it.
  const kind = firstByteKind(body)
  if (kind !== 'other') endOfContainer(body, afterSpace(body, 0), maxDepth)
  try {
    JSON.parse(body.toString())
  } catch {
    // The parser's own text quotes the payload.
    throw new BadMessage('notJson', 'not JSON')
  }
  if (kind !== 'object') throw new BadMessage('notMessage', 'not a JSON object')
}

/**
 * Checks that the bytes are one message, and finds the values of the wanted top-level names.
 * A message is one JSON object in UTF-8, nested at most 64 deep, in which no wanted name comes
 * twice. A name counts however it is written: `"Device\u0049D"` is `DeviceID`.
 *
 * **Fails** with a `BadMessage` that says what is wrong.
 *
 * **Example** `topLevelFields(['DeviceID'])(Buffer.from('{"DeviceID":7}')).values` is `[{ start: 12, end: 13 }]`
 */
export const topLevelFields = (names: readonly string[]): ((body: Buffer) => Fields) => {
  const wanted = names.map((name) => Buffer.from(name))

  const indexOf = (body: Buffer, start: number, end: number): number => {
    for (let index = 0; index < wanted.length; index++) {
      if (sameBytes(body, start + 1, end - 1, wanted[index]!)) return index
    }
    return hasEscape(body, start, end) ? names.indexOf(JSON.parse(body.toString('utf8', start, end)) as string) : -1
  }

  return (body) => {
    check(body)
    const values = new Array<Span | undefined>(names.length).fill(undefined)
    let end = afterSpace(body, 0) + 1
    let at = afterSpace(body, end)
    const hasMembers = body[at] === quote
    while (body[at] === quote) {
      const keyEnd = endOfString(body, at)
      const start = afterSpace(body, afterSpace(body, keyEnd) + 1)
      end = endOfValue(body, start)
      const index = indexOf(body, at, keyEnd)
      if (index >= 0) {
        if (values[index] !== undefined) throw new BadMessage('notMessage', `duplicate field ${names[index]}`)
        values[index] = { start, end }
      }
      at = afterSpace(body, end)
      if (body[at] === comma) at = afterSpace(body, at + 1)
    }
    return { values, end, hasMembers }
  }
}

// Each part costs about 100 bytes outside its body: without a bound, 16 MiB of `1,` would cost a gigabyte.
const defaultMaxParts = 100_000

/**
 * Splits a top-level JSON array into its elements: views of the same memory, byte for byte,
 * without the white space around them. The elements are not checked, only what is between them;
 * when every element is JSON, so was the array.
 *
 * **Fails** with a `BadMessage`: not an array, or a comma too few or too many (`notJson`), or more
 * elements than `maxParts` (`tooLarge`).
 */
export const splitArray = (body: Buffer, maxParts = defaultMaxParts): Buffer[] => {
  if (firstByteKind(body) !== 'array') throw new BadMessage('notJson', 'not a JSON array')
  const parts: Buffer[] = []
  let at = afterSpace(body, afterSpace(body, 0) + 1)
  let more = body[at] !== closeBracket
  while (more) {
    const end = endOfValue(body, at)
    if (end === at) throw new BadMessage('notJson', 'not JSON')
    if (parts.length === maxParts) throw new BadMessage('tooLarge', `more than ${maxParts} messages`)
    parts.push(body.subarray(at, end))
    at = afterSpace(body, end)
    more = body[at] === comma
    if (more) at = afterSpace(body, at + 1)
  }
  if (body[at] !== closeBracket || afterSpace(body, at + 1) !== body.length) throw new BadMessage('notJson', 'not JSON')
  return parts
}

export interface Line {
  /** Counted from 0, blank lines included. */
  readonly line: number
  readonly bytes: Buffer
}

/**
 * Splits NDJSON into its lines: views of the same memory, without the `\n` or `\r\n`. Blank
 * lines are left out, and still counted. The lines are not checked.
 *
 * **Fails** with a `BadMessage` (`tooLarge`) above `maxParts` lines.
 */
export const splitLines = (body: Buffer, maxParts = defaultMaxParts): Line[] => {
  const lines: Line[] = []
  let line = 0
  let start = 0
  let blank = true
  for (let at = 0; at <= body.length; at++) {
    if (at < body.length && body[at] !== 0x0a) {
      blank &&= isSpace(body[at])
      continue
    }
    if (!blank) {
      if (lines.length === maxParts) throw new BadMessage('tooLarge', `more than ${maxParts} messages`)
      lines.push({ line, bytes: body.subarray(start, body[at - 1] === 0x0d ? at - 1 : at) })
    }
    line++
    start = at + 1
    blank = true
  }
  return lines
}
