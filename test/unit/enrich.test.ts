import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Rejection } from '../../src/delivery.js'
import { enrich, serialFields } from '../../src/operators/enrich.js'
import type { SerialField } from '../../src/operators/enrich.js'

const instant = Date.UTC(2026, 10, 22, 23)
const settings = { idField: 'DeviceID', deviceId: 'cam-7', timeZone: 'America/New_York' } as const

const utc = '"UploadedUTCDateTime":"2026-11-22T23:00:00.000Z"'
const local = '"UploadedLocalDateTime":"2026-11-22T18:00:00.000-05:00"'
const serial = '"DeviceID":"cam-7"'
const all = `${utc},${local},${serial}`

const run = (text: string, idField: SerialField = 'DeviceID', deviceId = 'cam-7'): string =>
  enrich({ ...settings, idField, deviceId }, () => instant)(Buffer.from(text)).toString()

describe('enriching', () => {
  it.each<[string, string, string]>([
    ['adds all three after the last value', '{"a":1}', `{"a":1,${all}}`],
    ['needs no comma in an empty object', '{}', `{${all}}`],
    ['leaves white space where it was', ' { \n "a" : 1 \n } \n', ` { \n "a" : 1,${all} \n } \n`],
    ['leaves white space in an empty object', '{ \n}', `{${all} \n}`],
    ['finds the last value behind braces in strings', '{"a":"}"}', `{"a":"}",${all}}`],
    ['fills null in place', '{"DeviceID": null ,"a":1}', `{"DeviceID": "cam-7" ,"a":1,${utc},${local}}`],
    ['fills an empty string in place', '{"DeviceID":""}', `{"DeviceID":"cam-7",${utc},${local}}`],
    ['fills stamps in place', `{"UploadedLocalDateTime":"","UploadedUTCDateTime":null}`, `{${local},${utc},${serial}}`],
    [
      'fills all three in place',
      `{"DeviceID":null,"UploadedUTCDateTime":null,"UploadedLocalDateTime":""}`,
      `{${serial},${utc},${local}}`,
    ],
    ['fills under an escaped name', '{"Device\\u0049D":""}', `{"Device\\u0049D":"cam-7",${utc},${local}}`],
    [
      'keeps a filled UTC stamp, and still stamps local time as of now',
      '{"UploadedUTCDateTime":"2001"}',
      `{"UploadedUTCDateTime":"2001",${local},${serial}}`,
    ],
    ['keeps a filled local stamp', '{"UploadedLocalDateTime":"x"}', `{"UploadedLocalDateTime":"x",${utc},${serial}}`],
    [
      'fills no serial but the configured one',
      '{"ServerID":null,"CameraSerial":""}',
      `{"ServerID":null,"CameraSerial":"",${all}}`,
    ],
    ['adds no serial beside another that holds data', '{"ServerID":"s"}', `{"ServerID":"s",${utc},${local}}`],
    [
      'fills no empty serial beside another that holds data',
      '{"DeviceID":"","CameraSerial":1}',
      `{"DeviceID":"","CameraSerial":1,${utc},${local}}`,
    ],
    ['counts an escaped serial as a serial', '{"\\u0053erverID":"s"}', `{"\\u0053erverID":"s",${utc},${local}}`],
    [
      'looks at the top level only',
      '{"a":{"DeviceID":"d","UploadedUTCDateTime":null}}',
      `{"a":{"DeviceID":"d","UploadedUTCDateTime":null},${all}}`,
    ],
    ['knows names by their exact case', '{"deviceid":"d"}', `{"deviceid":"d",${all}}`],
    [
      'changes no number',
      '{"a":9007199254740993,"b":1e999,"c":-0,"d":1.0}',
      `{"a":9007199254740993,"b":1e999,"c":-0,"d":1.0,${all}}`,
    ],
    ['keeps duplicates among other names', '{"a":1,"a":2}', `{"a":1,"a":2,${all}}`],
  ])('%s', (_, text, expected) => {
    expect(run(text)).toBe(expected)
  })

  it.each(['0', '-0', 'false', '{}', '[]', '" "', '"null"', '"\\u0000"', 'true', '1e-9'])('%s is data', (value) => {
    expect(run(`{"DeviceID":${value}}`)).toBe(`{"DeviceID":${value},${utc},${local}}`)
    expect(run(`{"JetsonSerial":${value}}`)).toBe(`{"JetsonSerial":${value},${utc},${local}}`)
    const stamps = `{"UploadedUTCDateTime":${value},"UploadedLocalDateTime":${value}`
    expect(run(`${stamps}}`)).toBe(`${stamps},${serial}}`)
  })

  it.each(serialFields)('adds the serial under the configured name %s', (idField) => {
    expect(run('{}', idField)).toBe(`{${utc},${local},"${idField}":"cam-7"}`)
    expect(run(`{"${idField}":null}`, idField)).toBe(`{"${idField}":"cam-7",${utc},${local}}`)
  })

  it.each(['"', '\\', 'a"b\\c\n', 'é😀', '\ud800', '$&', '$1'])('escapes the serial %j', (deviceId) => {
    for (const text of ['{}', '{"DeviceID":""}']) {
      expect((JSON.parse(run(text, 'DeviceID', deviceId)) as { DeviceID: string }).DeviceID).toBe(deviceId)
    }
  })

  it('gives the same buffer back when there is nothing to add, and never writes into the one it got', () => {
    const step = enrich(settings, () => instant)
    const whole = Buffer.from(`{${all}}`)
    expect(step(whole)).toBe(whole)
    const lacking = Buffer.from('{"DeviceID":null}')
    step(lacking)
    expect(lacking.toString()).toBe('{"DeviceID":null}')
  })

  it('reads the clock once a message', () => {
    let reads = 0
    const step = enrich(settings, () => instant + reads++)
    const first = JSON.parse(step(Buffer.from('{}')).toString()) as Record<string, string>
    expect(Date.parse(first['UploadedLocalDateTime']!)).toBe(Date.parse(first['UploadedUTCDateTime']!))
    expect(reads).toBe(1)
  })

  it('stamps the present when no clock is given', () => {
    const before = Date.now()
    const stamps = JSON.parse(enrich(settings)(Buffer.from('{}')).toString()) as Record<string, string>
    const at = Date.parse(stamps['UploadedUTCDateTime']!)
    expect(at).toBeGreaterThanOrEqual(before)
    expect(at).toBeLessThanOrEqual(Date.now())
  })

  it.each([
    ...['', '[]', 'null', '{"a":1', '\ufeff{}'],
    ...['{"ServerID":1,"Server\\u0049D":2}', '{"UploadedUTCDateTime":"","UploadedUTCDateTime":""}'],
  ])('rejects %j', (text) => {
    expect(() => run(text)).toThrow(Rejection)
  })

  it('refuses an unknown time zone at once', () => {
    expect(() => enrich({ ...settings, timeZone: 'Mars/Olympus' })).toThrow(RangeError)
  })
})

type State = 'absent' | 'empty' | 'data'

interface Member {
  readonly name: string
  readonly state: State
  readonly before: string
  readonly key: string
  readonly between: string
  readonly value: string
  readonly after: string
}

const wanted = ['UploadedUTCDateTime', 'UploadedLocalDateTime', ...serialFields]

const space = fc.constantFrom('', '', '', ' ', '\n', '\t', '\r\n  ')
const nasty = fc.constantFrom(
  ...['9007199254740993', '123456789012345678901234567890', '1e999', '-1E+999', '-0', '-0.0', '0', '1.10'],
  ...['5e-324', 'true', 'false', '"}"', '"{"', '"\\""', '"\\\\"', '"\\\\\\""', '",\\"DeviceID\\":null"', '"\\u007d"'],
  ...['"\\ud800"', '"\\udc00\\ud800"', '"😀"', '"\\ud83d\\ude00"'],
  ...['"null"', '"\\/"', '"\u2028"', '" "', '{}', '[]', '[null,""]', '{"":""}', '[[[{"a":"]"}]]]', '{ "a" : [ 1 , 2 ] }'],
)
const value = fc.oneof(
  { weight: 4, arbitrary: nasty },
  {
    weight: 1,
    arbitrary: fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }).map((text) => JSON.stringify(text)),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(...wanted), space, fc.constantFrom('null', '""', '"d"', '1'))
      .map(([name, gap, inner]) => `{${gap}"${name}"${gap}:${gap}${inner}${gap}}`),
  },
)

/** The name as a JSON string, with one character of it escaped or none. */
const keyOf = (name: string, escapeAt: number): string => {
  const unit = name[escapeAt]
  if (unit === undefined) return `"${name}"`
  const digits = unit.charCodeAt(0).toString(16).padStart(4, '0')
  const escape = `\\u${escapeAt % 2 ? digits : digits.toUpperCase()}`
  return `"${name.slice(0, escapeAt)}${escape}${name.slice(escapeAt + 1)}"`
}

const layout = fc.tuple(space, space, space)
const other: fc.Arbitrary<Member> = fc
  .tuple(
    fc.constantFrom('a', 'a', 'deviceid', 'DeviceIDs', '', '__proto__', '}', '\\\\', '\\"', 'é😀', '\\ud800'),
    value,
    layout,
  )
  .map(([name, text, [before, between, after]]) => ({
    name: '',
    state: 'data',
    before,
    key: `"${name}"`,
    between,
    value: text,
    after,
  }))

const wantedMember = (name: string): fc.Arbitrary<Member> =>
  fc
    .tuple(
      fc.constantFrom<State>('absent', 'absent', 'empty', 'data'),
      fc.nat(60),
      fc.constantFrom('null', '""'),
      value,
      layout,
    )
    .map(([state, escapeAt, empty, data, [before, between, after]]) => ({
      name,
      state,
      before,
      key: keyOf(name, escapeAt),
      between,
      value: state === 'empty' ? empty : data,
      after,
    }))

/** Wanted names that are present, and others, in any order. */
const members = fc
  .tuple(
    fc.tuple(...wanted.map(wantedMember)),
    fc.array(other, { maxLength: 3 }),
    fc.array(fc.nat(1000), { minLength: 9, maxLength: 9 }),
  )
  .map(([known, others, ranks]) =>
    [...known, ...others]
      .map((member, index) => ({ member, rank: ranks[index] ?? 0 }))
      .sort((a, b) => a.rank - b.rank)
      .map(({ member }) => member)
      .filter((member) => member.state !== 'absent'),
  )

/** The rule once more, on members instead of bytes: which names get which text. */
const additions = (present: readonly Member[], idField: string): Map<string, string> => {
  const holds = (name: string): boolean => present.some((member) => member.name === name && member.state === 'data')
  const added = new Map<string, string>()
  if (!holds('UploadedUTCDateTime')) added.set('UploadedUTCDateTime', '"2026-11-22T23:00:00.000Z"')
  if (!holds('UploadedLocalDateTime')) added.set('UploadedLocalDateTime', '"2026-11-22T18:00:00.000-05:00"')
  if (!serialFields.some(holds)) added.set(idField, '"cam-\\"7\\""')
  return added
}

const textOf = (member: Member, value: string, after: string): string =>
  `${member.before}${member.key}${member.between}:${member.between}${value}${after}`

describe('100,000 generated messages', () => {
  it('come out as they came in but for what was lacking, parse, and are not enriched twice', () => {
    const steps = serialFields.map((idField) => enrich({ ...settings, idField, deviceId: 'cam-"7"' }, () => instant))
    let filled = 0
    let unchanged = 0
    fc.assert(
      fc.property(members, fc.nat(3), layout, (present, which, [before, inside, after]) => {
        const added = additions(present, serialFields[which]!)
        const fresh = [...added].filter(([name]) => present.every((member) => member.name !== name))
        const fields = fresh.map(([name, text]) => `"${name}":${text}`).join(',')

        // The white space before the closing brace belongs to nobody: it stays behind what is added.
        const last = present.length - 1
        const body = (texts: readonly string[], end: string): string =>
          `${before}{${
            present.length === 0
              ? end + inside
              : present
                  .map((member, at) => textOf(member, texts[at]!, at === last ? end + member.after : member.after))
                  .join(',')
          }}${after}`
        const input = body(present.map((member) => member.value), '')
        const expected = body(
          present.map((member) => added.get(member.name) ?? member.value),
          fields === '' ? '' : present.length === 0 ? fields : `,${fields}`,
        )

        const output = steps[which]!(Buffer.from(input))
        if (output.toString() !== expected) expect(output.toString()).toBe(expected)
        JSON.parse(expected)
        if (steps[which]!(output) !== output) expect.fail(`enriched twice: ${expected}`)
        if (fresh.length < added.size) filled++
        if (added.size === 0) unchanged++
      }),
      { numRuns: 100_000 },
    )
    expect(filled).toBeGreaterThan(10_000)
    expect(unchanged).toBeGreaterThan(1000)
  })
})

describe('local time', () => {
  /** Offsets by the law of each place: the instants (UTC) at which a new one begins. */
  const laws: Record<string, readonly (readonly [string, string])[]> = {
    'America/New_York': [
      ['2026-01-01T00:00Z', '-05:00'],
      ['2026-03-08T07:00Z', '-04:00'],
      ['2026-11-01T06:00Z', '-05:00'],
    ],
    'America/St_Johns': [
      ['2026-01-01T00:00Z', '-03:30'],
      ['2026-03-08T05:30Z', '-02:30'],
      ['2026-11-01T04:30Z', '-03:30'],
    ],
    'Europe/London': [
      ['2026-01-01T00:00Z', '+00:00'],
      ['2026-03-29T01:00Z', '+01:00'],
      ['2026-10-25T01:00Z', '+00:00'],
    ],
    'Australia/Lord_Howe': [
      ['2026-01-01T00:00Z', '+11:00'],
      ['2026-04-04T15:00Z', '+10:30'],
      ['2026-10-03T15:30Z', '+11:00'],
    ],
    'Asia/Kathmandu': [['2026-01-01T00:00Z', '+05:45']],
    'Asia/Kolkata': [['2026-01-01T00:00Z', '+05:30']],
    'Pacific/Kiritimati': [['2026-01-01T00:00Z', '+14:00']],
    'America/Phoenix': [['2026-01-01T00:00Z', '-07:00']],
    UTC: [['2026-01-01T00:00Z', '+00:00']],
  }
  const end = Date.UTC(2027, 0, 1)

  const lawful = (zone: string, at: number): string => laws[zone]!.findLast(([from]) => Date.parse(from) <= at)![1]

  /** Wall time by calendar arithmetic on the offset's own digits. */
  const expectedStamp = (zone: string, at: number): string => {
    const offset = lawful(zone, at)
    const [hours, minutes] = [Number(offset.slice(1, 3)), Number(offset.slice(4))]
    const away = offset.startsWith('-') ? -1 : 1
    const wall = new Date(at)
    wall.setUTCHours(wall.getUTCHours() + away * hours, wall.getUTCMinutes() + away * minutes)
    return wall.toISOString().replace('Z', offset)
  }

  const stamper = (timeZone?: string): ((at: number) => string) => {
    let clock = 0
    const step = enrich({ idField: 'DeviceID', deviceId: 'd', timeZone }, () => clock)
    return (at) => {
      clock = at
      return (JSON.parse(step(Buffer.from('{}')).toString()) as Record<string, string>)['UploadedLocalDateTime']!
    }
  }

  it.each(Object.keys(laws))('is right around every change of %s, with the clock going either way', (zone) => {
    const stamp = stamper(zone)
    const minutes = [-120, -60, -15, -1, 0, 1, 15, 60, 120]
    const around = minutes.flatMap((minute) => [minute * 60_000 - 1, minute * 60_000])
    const changes = laws[zone]!.map(([from]) => Date.parse(from))
    const instants = changes.flatMap((change) => around.map((distance) => Math.max(changes[0]!, change + distance)))
    for (const at of [...instants, ...instants.toReversed()]) {
      expect([at, stamp(at)]).toEqual([at, expectedStamp(zone, at)])
    }
  })

  it.each(Object.keys(laws))('is right through the year in %s', (zone) => {
    const stamp = stamper(zone)
    for (let at = Date.UTC(2026, 0, 1); at < end; at += 2_399_877) {
      expect([at, stamp(at)]).toEqual([at, expectedStamp(zone, at)])
    }
  })

  it.each([
    ['America/New_York', '2026-03-08T06:59:59.999Z', '2026-03-08T01:59:59.999-05:00'],
    ['America/New_York', '2026-03-08T07:00:00.000Z', '2026-03-08T03:00:00.000-04:00'],
    ['America/New_York', '2026-11-01T05:59:59.999Z', '2026-11-01T01:59:59.999-04:00'],
    ['America/New_York', '2026-11-01T06:00:00.000Z', '2026-11-01T01:00:00.000-05:00'],
    ['Australia/Lord_Howe', '2026-10-03T15:29:59.999Z', '2026-10-04T01:59:59.999+10:30'],
    ['Australia/Lord_Howe', '2026-10-03T15:30:00.000Z', '2026-10-04T02:30:00.000+11:00'],
    ['Asia/Kathmandu', '2026-12-31T18:15:00.000Z', '2027-01-01T00:00:00.000+05:45'],
    ['Africa/Monrovia', '1960-01-01T00:44:00.000Z', '1959-12-31T23:59:00.000-00:45'],
  ])('in %s at %s is %s', (zone, at, expected) => {
    expect(stamper(zone)(Date.parse(at))).toBe(expected)
  })

  it('is that of the process without a zone', () => {
    const before = process.env['TZ']
    try {
      for (const zone of Object.keys(laws)) {
        process.env['TZ'] = zone
        for (const [from] of laws[zone]!) {
          const at = Date.parse(from)
          expect([zone, stamper()(at)]).toEqual([zone, expectedStamp(zone, at)])
        }
      }
    } finally {
      if (before === undefined) delete process.env['TZ']
      else process.env['TZ'] = before
    }
  })
})
