import { createHash } from 'node:crypto'
import { expect, it } from 'vitest'

interface Sent { id: string; source: string; sequence: number; hash: string; tries: number; yes: number; no: number; who: number }
type Judge = (messages: Map<string, Sent>, deliveries: readonly { id: string; text: string }[]) => Record<string, number>

const { judge } = (await import(new URL('./suite/judge.js', import.meta.url).href)) as { judge: Judge }
const { faultsOf, isVoid, onlySlow } = (await import(new URL('./suite/verdict.js', import.meta.url).href)) as {
  faultsOf: (row: object, result: object) => readonly string[]
  isVoid: (result: object, count: number) => boolean
  onlySlow: (wrong: readonly string[]) => boolean
}

const textOf = (sequence: number): string => `{"sequence":${sequence}}`
const hashOf = (text: string): string => createHash('sha256').update(text).digest('base64url').slice(0, 22)
const sent = (...sequences: number[]): Map<string, Sent> =>
  new Map(sequences.map((sequence) => [`m${sequence}`, { id: `m${sequence}`, source: 's', sequence, hash: hashOf(textOf(sequence)), tries: 1, yes: 1, no: 0, who: 0 }]))
const came = (...sequences: number[]) => sequences.map((sequence) => ({ id: `m${sequence}`, text: `{"sequence":${sequence},"UploadedUTCDateTime":"x","DeviceID":"d"}` }))
const clean = { lost: 0, duplicated: 0, doubledUnasked: 0, recovered: 0, phantom: 0, reordered: 0, corrupt: 0 }

it('the judge finds nothing where all came once and in order', () => {
  const result = judge(sent(0, 1, 2), came(0, 1, 2))
  expect(result).toMatchObject({ attempted: 3, accepted: 3, delivered: 3, ...clean })
  expect(faultsOf({}, { ...result, stalled: 0 })).toEqual([])
})

it.each<[string, Record<string, number>, () => Record<string, number>]>([
  ['a message lost', { lost: 1 }, () => judge(sent(0, 1, 2), came(0, 2))],
  ['a message doubled', { duplicated: 1, doubledUnasked: 1 }, () => judge(sent(0, 1), came(0, 1, 0))],
  ['a message that nobody sent', { phantom: 1 }, () => judge(sent(0), came(0, 7))],
  ['first deliveries out of order', { reordered: 1 }, () => judge(sent(0, 1, 2), came(0, 2, 1))],
  ['a changed byte', { corrupt: 1 }, () => judge(sent(0), [{ id: 'm0', text: '{"sequence":9,"UploadedUTCDateTime":"x"}' }])],
])('the judge sees %s, and only that', (_, expected, judged) => {
  expect(judged()).toMatchObject({ ...clean, ...expected })
})

it('what was refused or unknown is not lost, and unknown that arrives is recovered', () => {
  const messages = sent(0, 1)
  messages.set('m0', { ...messages.get('m0')!, yes: 0, no: 1 })
  messages.set('m1', { ...messages.get('m1')!, yes: 0, who: 1 })
  expect(judge(messages, came(1))).toMatchObject({ ...clean, accepted: 0, refused: 1, unknown: 1, recovered: 1 })
})

it('every rule turns a verdict red, and a run that hit nothing is void', () => {
  for (const name of ['lost', 'phantom', 'reordered', 'corrupt', 'stalled']) expect(faultsOf({}, { [name]: 1 })).toHaveLength(1)
  expect(faultsOf({}, { books: { in: 3, out: 2, repeats: 0 }, duplicated: 0 })).toHaveLength(1)
  expect(faultsOf({}, { books: { in: 3, out: 4, repeats: 0 }, duplicated: 0 })).toHaveLength(1)
  expect(faultsOf({}, { books: { in: 3, out: 4, repeats: 0 }, duplicated: 1 })).toEqual([])
  expect(faultsOf({ atMost: { stopMs: 5000 } }, { stopMs: 5001 })).toHaveLength(1)
  expect(faultsOf({ atMost: { stopMs: 5000 } }, {})).toHaveLength(1)
  expect(faultsOf({ atLeast: { refused: 1 } }, { refused: 0 })).toHaveLength(1)
  expect([isVoid({ bites: 1 }, 2), isVoid({ bites: 2 }, 2)]).toEqual([true, false])
})

it('only a bar in time is tried again', () => {
  expect([onlySlow(['stopMs 5001, at most 5000']), onlySlow([]), onlySlow(['lost 1']), onlySlow(['stopMs 9, at most 5', 'lost 1'])]).toEqual([true, false, false, false])
})
