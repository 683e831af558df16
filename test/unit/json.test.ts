import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Rejection } from '../../src/delivery.js'
import { BadMessage, firstByteKind, splitArray, splitLines, topLevelFields } from '../../src/json.js'

const bytes = (text: string): Buffer => Buffer.from(text)

const refusal = (run: () => unknown): { code: string; reason: string } => {
  try {
    run()
  } catch (error) {
    if (error instanceof BadMessage) return { code: error.code, reason: error.reason }
    throw error
  }
  throw new Error('nothing was refused')
}

const nested = (levels: number): string => '{"a":'.repeat(levels - 1) + '{}' + '}'.repeat(levels - 1)

/** The text of the value of each wanted name. */
const found = (text: string, names: readonly string[]): (string | undefined)[] => {
  const body = bytes(text)
  return topLevelFields(names)(body).values.map((value) => value && body.toString('utf8', value.start, value.end))
}

describe('a message', () => {
  const check = topLevelFields(['DeviceID', 'ServerID'])

  it.each<[string, string | Buffer, string, string]>([
    ['nothing', '', 'notJson', 'not JSON'],
    ['white space', ' \n', 'notJson', 'not JSON'],
    ['a word', 'hello', 'notJson', 'not JSON'],
    ['an unclosed object', '{"a":1', 'notJson', 'not JSON'],
    ['an unclosed string', '{"a":"b}', 'notJson', 'not JSON'],
    ['a trailing comma', '{"a":1,}', 'notJson', 'not JSON'],
    ['single quotes', "{'a':1}", 'notJson', 'not JSON'],
    ['a comment', '{"a":1}//', 'notJson', 'not JSON'],
    ['NaN', '{"a":NaN}', 'notJson', 'not JSON'],
    ['a leading zero', '{"a":01}', 'notJson', 'not JSON'],
    ['a raw line feed in a string', '{"a":"\n"}', 'notJson', 'not JSON'],
    ['a NUL', '{"a":"\u0000"}', 'notJson', 'not JSON'],
    ['a NUL after the end', '{}\u0000', 'notJson', 'not JSON'],
    ['a no-break space', '\u00a0{}', 'notJson', 'not JSON'],
    ['an unknown escape', '{"a":"\\x"}', 'notJson', 'not JSON'],
    ['two objects', '{"a":1}{"b":2}', 'notJson', 'not JSON'],
    ['a wrong bracket', '{"a":[1}]', 'notJson', 'not JSON'],
    ['deep junk after an object', '{}' + '['.repeat(1000), 'notJson', 'not JSON'],
    ['a byte order mark', '\ufeff{}', 'notJson', 'starts with a byte order mark'],
    ['latin1', Buffer.from('{"a":"é"}', 'latin1'), 'notJson', 'not valid UTF-8'],
    ['an encoded surrogate', Buffer.from('7b2261223a22eda080227d', 'hex'), 'notJson', 'not valid UTF-8'],
    ['an overlong slash', Buffer.from('7b2261223a22c0af227d', 'hex'), 'notJson', 'not valid UTF-8'],
    ['UTF-16', Buffer.from('{}', 'utf16le'), 'notJson', 'not JSON'],
    ['an array', '[{"a":1}]', 'notMessage', 'not a JSON object'],
    ['a string', '"{}"', 'notMessage', 'not a JSON object'],
    ['a number', '12', 'notMessage', 'not a JSON object'],
    ['null', 'null', 'notMessage', 'not a JSON object'],
    ['65 levels', nested(65), 'notMessage', 'nested deeper than 64'],
    ['65 levels of arrays', `{"a":${'['.repeat(64)}${']'.repeat(64)}}`, 'notMessage', 'nested deeper than 64'],
    ['two serials', '{"DeviceID":1,"b":2,"DeviceID":1}', 'notMessage', 'duplicate field DeviceID'],
    ['two serials, one of them escaped', '{"DeviceID":1,"Device\\u0049D":2}', 'notMessage', 'duplicate field DeviceID'],
    ['two empty serials', '{"ServerID":null,"ServerID":""}', 'notMessage', 'duplicate field ServerID'],
  ])('is not %s', (_, body, code, reason) => {
    expect(refusal(() => check(Buffer.from(body as string)))).toEqual({ code, reason })
  })

  it.each<[string, string]>([
    ['empty', '{}'],
    ['surrounded by white space', '\r\n\t {} \n'],
    ['64 levels deep', nested(64)],
    ['wide, and opens a thousand objects one after another', `{"a":[${Array(1000).fill('{}').join()}]}`],
    ['full of brackets in strings', `{"a":"${'['.repeat(100)}","${'{'.repeat(100)}":"\\"${'['.repeat(100)}"}`],
    ['holding unwanted names twice', '{"a":1,"a":2,"deviceid":1,"deviceid":2}'],
    ['holding wanted names twice, but not at the top', '{"DeviceID":1,"a":{"DeviceID":2,"b":[{"DeviceID":3}]}}'],
    ['holding a lone surrogate escape', '{"\\ud800":"\\udfff"}'],
    ['holding numbers no double can hold', '{"a":9007199254740993,"b":1e999,"c":-0}'],
    ['holding __proto__', '{"__proto__":{"DeviceID":1},"constructor":{"prototype":null}}'],
  ])('may be %s', (_, text) => {
    expect(() => check(bytes(text))).not.toThrow()
  })

  it('is refused with a Rejection whose text never holds payload', () => {
    for (const text of ['{"a": secret}', 'secret', '["secret"]', '{"secret":1,"secret"']) {
      let error: unknown
      try {
        check(bytes(text))
      } catch (caught) {
        error = caught
      }
      expect(error).toBeInstanceOf(Rejection)
      expect(String((error as Error).stack)).not.toContain('secret')
    }
  })

  it.each([
    ['objects', '{"a":'],
    ['arrays', '['],
    ['objects that follow a string', '{"\\"":'],
  ])('is refused fast with five million levels of %s', (_, level) => {
    const body = bytes(level.repeat(5_000_000))
    const started = performance.now()
    expect(refusal(() => check(body))).toEqual({ code: 'notMessage', reason: 'nested deeper than 64' })
    expect(performance.now() - started).toBeLessThan(250)
  })
})

describe('a top-level field', () => {
  it.each<[string, string, (string | undefined)[]]>([
    ['a number', '{"x":-1.5e+3}', ['-1.5e+3', undefined]],
    ['a string with all that could end it', '{"x":"a\\"}],{\\\\","y":1}', ['"a\\"}],{\\\\"', '1']],
    ['an object with strings of braces', '{"x":{"a":"}"},"y":[["]"]]}', ['{"a":"}"}', '[["]"]]']],
    ['literals', '{"x":true,"y":null}', ['true', 'null']],
    ['empty values', '{"x":"","y":{}}', ['""', '{}']],
    ['values between white space', '\n{ "x" \t:\r\n 1 , "y" : "2" } ', ['1', '"2"']],
    ['an escaped name', '{"\\u0078":1,"\\u0079":2}', ['1', '2']],
    ['only the top level', '{"a":{"x":1},"b":[{"y":2}],"c":"\\"x\\":3"}', [undefined, undefined]],
    ['whole names only', '{"xx":1,"":2,"X":3,"\\\\u0078":4," x":5}', [undefined, undefined]],
    ['nothing in an empty object', '{ }', [undefined, undefined]],
    ['values behind text outside ASCII', '{"é😀":"é😀","x":"ü"}', ['"ü"', undefined]],
  ])('is found: %s', (_, text, values) => {
    expect(found(text, ['x', 'y'])).toEqual(values)
  })

  it('may have a name outside ASCII', () => {
    expect(found('{"gr\\u00f6\\u00dfe":1,"😀":2}', ['größe', '😀'])).toEqual(['1', '2'])
  })

  it.each([
    ['{}', 1, false],
    [' { } ', 2, false],
    ['{"a":1}', 6, true],
    ['{"a":{"b":"}"} , "c":[1 ] \n}', 25, true],
  ])('%s ends its last value at %i', (text, end, hasMembers) => {
    expect(topLevelFields([])(bytes(text))).toEqual({ values: [], end, hasMembers })
  })

  it('is found where the parser finds it, and refused where the parser refuses', () => {
    const names = ['a', 'b', 'é', '']
    const locate = topLevelFields(names)
    const piece = fc.constantFrom(
      ...['{', '}', '[', ']', ',', ':', '"a"', '"b"', '"\\u0061"', '""', '"é"', '"\\""', '"\\\\"', '"{[,"', ' '],
      ...['\n', '1', '-0', 'null', '1e5', 'true', '{}', '[]', '{"a":1}', '"', '\\', '0'],
    )
    const key = fc.constantFrom('"a"', '"b"', '"\\u0061"', '"é"', '""', '"c"')
    const value = fc.constantFrom('1', '""', '{"a":[]}', '"}"', 'null')
    const wellFormed = fc
      .array(fc.tuple(key, value), { maxLength: 5 })
      .map((members) => `{${members.map((member) => member.join(' : ')).join(' ,')}}`)
    const broken = fc
      .tuple(wellFormed, fc.nat(40), fc.nat(2), piece)
      .map(([text, at, cut, put]) => text.slice(0, at) + put + text.slice(at + cut))
    const soup = fc.array(piece, { maxLength: 12 }).map((all) => `{${all.join('')}}`)
    let good = 0
    fc.assert(
      fc.property(fc.oneof(wellFormed, broken, soup), (text) => {
        let parsed: unknown
        try {
          parsed = JSON.parse(text)
        } catch {
          expect(refusal(() => locate(bytes(text))).code).toBe('notJson')
          return
        }
        let values: (string | undefined)[]
        try {
          values = found(text, names)
        } catch (error) {
          expect((error as BadMessage).code).toBe('notMessage')
          return
        }
        good++
        const object = parsed as Record<string, unknown>
        names.forEach((name, index) => {
          const value = values[index]
          if (value === undefined) expect(Object.hasOwn(object, name)).toBe(false)
          else expect(JSON.parse(value)).toEqual(object[name])
        })
      }),
      { numRuns: 20_000 },
    )
    expect(good).toBeGreaterThan(3000)
  })
})

const space = fc.constantFrom('', '', ' ', '\n', '\r\n\t ')
const element = fc.oneof(
  fc.constantFrom('1', '-0', '1e999', '12345678901234567890', 'true', 'null', '[]', '[1, 2]', '{}', '{"a":"],["}'),
  fc.constantFrom('""', '"]"', '"\\""', '"\\\\"'),
  fc.json({ maxDepth: 2 }),
  fc.string({ unit: 'binary' }).map((text) => JSON.stringify(text)),
)

describe('splitting an array', () => {
  it.each<[string, string[]]>([
    ['[]', []],
    [' [ \n] ', []],
    ['[1]', ['1']],
    ['[ {"a" : 1 } ,\n{"b":[1,2]}\t]', ['{"a" : 1 }', '{"b":[1,2]}']],
    ['["a,b]","\\"]",[[]],{}]', ['"a,b]"', '"\\"]"', '[[]]', '{}']],
    ['[tru,{"a":},{[}]]', ['tru', '{"a":}', '{[}]']],
  ])('%s', (text, parts) => {
    expect(splitArray(bytes(text)).map(String)).toEqual(parts)
  })

  it.each([
    ...['[', '[1', '[1,', '[1,]', '[,]', '[,1]', '[1,,2]', '[1 2]', '[{}{}]', '[{} "a"]', '[1]]', '[1] x', '["a]'],
    '[1]\u0000',
    ...['[{"a":1]', '[{"a":"}]', '[1}', '[[1]', '[1:2}'],
  ])('refuses %s', (text) => {
    expect(refusal(() => splitArray(bytes(text)))).toEqual({ code: 'notJson', reason: 'not JSON' })
  })

  it.each(['', ' ', '{}', '"[]"', '1', '\ufeff[]'])('refuses what is not an array: %j', (text) => {
    expect(refusal(() => splitArray(bytes(text)))).toEqual({ code: 'notJson', reason: 'not a JSON array' })
  })

  it('copies nothing', () => {
    const body = bytes('[1, 22]')
    for (const part of splitArray(body)) expect(part.buffer).toBe(body.buffer)
  })

  it('refuses more elements than it may give', () => {
    expect(splitArray(bytes('[1,2]'), 2)).toHaveLength(2)
    expect(refusal(() => splitArray(bytes('[1,2,3]'), 2))).toEqual({ code: 'tooLarge', reason: 'more than 2 messages' })
    expect(refusal(() => splitArray(bytes(`[${'1,'.repeat(5_000_000)}1]`))).code).toBe('tooLarge')
  })

  it.each([
    ['open brackets', '['.repeat(8_000_000)],
    ['quotes', '["' + '\\"'.repeat(4_000_000)],
    ['white space', '[' + ' '.repeat(8_000_000)],
    ['one long number', '[' + '1'.repeat(8_000_000)],
  ])('is linear on 8 MB of %s', (_, text) => {
    const body = bytes(text)
    const started = performance.now()
    expect(refusal(() => splitArray(body)).code).toBe('notJson')
    expect(performance.now() - started).toBeLessThan(500)
  })

  it('gives back exactly what was joined', () => {
    const elements = fc.array(fc.tuple(space, element, space), { maxLength: 6 })
    fc.assert(
      fc.property(elements, space, space, (all, before, after) => {
        const inner = all.map((part) => part.join('')).join(',') || before
        expect(splitArray(bytes(`${before}[${inner}]${after}`)).map(String)).toEqual(all.map(([, text]) => text))
      }),
      { numRuns: 10_000 },
    )
  })

  it('never makes valid elements out of an invalid array', () => {
    const piece = fc.constantFrom('[', ']', '{', '}', ',', ':', '"', '"a"', '1', ' ', '\\', '{"a":1}', '[1,2]', 'null')
    let split = 0
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const text = `[${pieces.join('')}]`
        let whole: unknown
        try {
          whole = JSON.parse(text)
        } catch {
          whole = undefined
        }
        let parts: unknown
        try {
          parts = splitArray(bytes(text)).map((part) => JSON.parse(String(part)) as unknown)
          split++
        } catch {
          parts = undefined
        }
        expect(parts).toEqual(whole)
      }),
      { numRuns: 20_000 },
    )
    expect(split).toBeGreaterThan(1000)
  })
})

describe('splitting lines', () => {
  it.each<[string, [number, string][]]>([
    ['', []],
    ['\n\r\n \t\n', []],
    ['{}', [[0, '{}']]],
    ['{}\n', [[0, '{}']]],
    ['{"a":1}\r\n{"b":2}\r\n', [[0, '{"a":1}'], [1, '{"b":2}']]],
    ['\n{"a":1}\n\n \r\n  {"b":2} \n\nx', [[1, '{"a":1}'], [4, '  {"b":2} '], [6, 'x']]],
    ['{"é":"😀\u2028"}\n1', [[0, '{"é":"😀\u2028"}'], [1, '1']]],
    ['{}\r\r\n\r{}\r', [[0, '{}\r'], [1, '\r{}']]],
  ])('%j', (text, lines) => {
    expect(splitLines(bytes(text)).map(({ line, bytes }) => [line, bytes.toString()])).toEqual(lines)
  })

  it('copies nothing, and refuses more lines than it may give', () => {
    const body = bytes('{}\n\n{}\n{}')
    for (const line of splitLines(body, 3)) expect(line.bytes.buffer).toBe(body.buffer)
    expect(refusal(() => splitLines(body, 2))).toEqual({ code: 'tooLarge', reason: 'more than 2 messages' })
    expect(splitLines(bytes('\n'.repeat(5_000_000)))).toEqual([])
  })

  it('gives back exactly what was joined', () => {
    const lines = fc.array(fc.tuple(element, fc.constantFrom('\n', '\r\n')), { maxLength: 6 })
    fc.assert(
      fc.property(lines, (all) => {
        const text = all.map((part) => part.join('')).join('')
        expect(splitLines(bytes(text)).map(({ line, bytes }) => [line, bytes.toString()])).toEqual(
          all.map(([line], index) => [index, line]),
        )
      }),
      { numRuns: 5000 },
    )
  })
})

describe('the first byte', () => {
  it.each([
    ['{}', 'object'],
    ['\t\r\n {', 'object'],
    [' [1]', 'array'],
    ['', 'other'],
    ['  ', 'other'],
    ['"{}"', 'other'],
    ['\ufeff{}', 'other'],
    ['\u00a0{}', 'other'],
    ['\v{}', 'other'],
  ])('of %j tells: %s', (text, kind) => {
    expect(firstByteKind(bytes(text))).toBe(kind)
  })
})
