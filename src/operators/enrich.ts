import { topLevelFields } from '../json.js'
import type { Span } from '../json.js'

/** The names under which a message may carry the serial of the device it comes from. */
export const serialFields = ['CameraSerial', 'JetsonSerial', 'DeviceID', 'ServerID'] as const
export type SerialField = (typeof serialFields)[number]

export interface EnrichSettings {
  /** The one that is added when none of the four holds data. */
  readonly idField: SerialField
  readonly deviceId: string
  /** An IANA name such as `America/New_York`; the process's own zone when left out. */
  readonly timeZone?: string | undefined
}

interface Edit extends Span {
  readonly bytes: Buffer
}

const stampFields = ['UploadedUTCDateTime', 'UploadedLocalDateTime'] as const
const findFields = topLevelFields([...stampFields, ...serialFields])

const quarterMs = 15 * 60_000

/** Minutes east of UTC at an instant. */
const offsets = (timeZone: string | undefined): ((atMs: number) => number) => {
  if (timeZone === undefined) return (atMs) => -new Date(atMs).getTimezoneOffset()
  const format = new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'longOffset' })
  const minutesAt = (atMs: number): number => {
    const name = format.formatToParts(atMs).find((part) => part.type === 'timeZoneName')?.value ?? ''
    const [, sign, hours = 0, minutes = 0, seconds = 0] = /([+-])(\d+):(\d+)(?::(\d+))?/.exec(name) ?? []
    return (sign === '-' ? -1 : 1) * Math.round(Number(hours) * 60 + Number(minutes) + Number(seconds) / 60)
  }
  // Formatting costs more than all the rest, and zones change their offset on quarter hours of UTC only.
  let quarter = NaN
  let cached = 0
  return (atMs) => {
    const current = Math.floor(atMs / quarterMs)
    if (current !== quarter) {
      cached = minutesAt(current * quarterMs)
      quarter = current
    }
    return cached
  }
}

const twoDigits = (value: number): string => String(value).padStart(2, '0')

const localStamp = (atMs: number, offset: number): string => {
  const size = Math.abs(offset)
  const sign = offset < 0 ? '-' : '+'
  const wall = new Date(atMs + offset * 60_000).toISOString().slice(0, -1)
  return `${wall}${sign}${twoDigits(Math.floor(size / 60))}:${twoDigits(size % 60)}`
}

/** In valid JSON only `null` begins with n, and only `""` is two bytes that begin with a quote. */
const holdsData = (body: Buffer, value: Span): boolean =>
  body[value.start] !== 0x6e && (body[value.start] !== 0x22 || value.end - value.start > 2)

const edited = (body: Buffer, edits: readonly Edit[]): Buffer => {
  const out = Buffer.allocUnsafe(edits.reduce((size, { start, end, bytes }) => size - (end - start) + bytes.length, body.length))
  let from = 0
  let at = 0
  for (const { start, end, bytes } of edits) {
    at += body.copy(out, at, from, start)
    at += bytes.copy(out, at)
    from = end
  }
  body.copy(out, at, from)
  return out
}

/** The bytes of a text; messages that come in one millisecond mostly get the same, so the last is kept. */
const lastBytes = (): ((text: string) => Buffer) => {
  let last = ''
  let bytes = Buffer.alloc(0)
  return (text) => {
    if (text !== last) {
      last = text
      bytes = Buffer.from(text)
    }
    return bytes
  }
}

/** Both stamps of an instant, as JSON. */
const stampsOf = (timeZone: string | undefined): ((atMs: number) => readonly [string, string]) => {
  const offsetAt = offsets(timeZone)
  let last = NaN
  let stamps: readonly [string, string] = ['', '']
  return (atMs) => {
    if (atMs !== last) stamps = [`"${new Date(atMs).toISOString()}"`, `"${localStamp(atMs, offsetAt(atMs))}"`]
    last = atMs
    return stamps
  }
}

/**
 * Takes the bytes of a message, and gives them back with the two upload stamps and the device's
 * serial where those hold no data (absent, `null` or `""`). What is there wins, and no other byte
 * changes: an empty field is filled in place, a missing one goes in right after the last value,
 * or after the opening brace. With nothing to add, the same buffer comes back.
 *
 * Both stamps of a message are of one instant, that of the call.
 *
 * **Fails** with a `BadMessage` for what is not a message, and at once for an unknown time zone.
 *
 * **Example** `{"speed":3}` becomes `{"speed":3,"UploadedUTCDateTime":"2026-11-22T23:00:00.000Z",`
 * `"UploadedLocalDateTime":"2026-11-22T18:00:00.000-05:00","DeviceID":"cam-7"}`
 */
export const enrich = (settings: EnrichSettings, now: () => number = Date.now): ((body: Buffer) => Buffer) => {
  const stampsAt = stampsOf(settings.timeZone)
  const serial = JSON.stringify(settings.deviceId)
  const serialIndex = serialFields.indexOf(settings.idField)
  const added = lastBytes()

  return (body) => {
    const { values, end, hasMembers } = findFields(body)
    const [utc, local, ...serials] = values
    const edits: Edit[] = []
    let missing = ''
    const put = (name: string, value: Span | undefined, text: string): void => {
      if (value !== undefined) edits.push({ ...value, bytes: Buffer.from(text) })
      else missing += `${missing === '' && !hasMembers ? '' : ','}"${name}":${text}`
    }
    const lacks = (value: Span | undefined): boolean => value === undefined || !holdsData(body, value)

    const [utcStamp, localText] = stampsAt(now())
    if (lacks(utc)) put(stampFields[0], utc, utcStamp)
    if (lacks(local)) put(stampFields[1], local, localText)
    if (serials.every(lacks)) put(settings.idField, serials[serialIndex], serial)

    if (missing !== '') edits.push({ start: end, end, bytes: added(missing) })
    return edits.length === 0 ? body : edited(body, edits.sort((a, b) => a.start - b.start))
  }
}
