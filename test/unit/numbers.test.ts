import { expect, it } from 'vitest'
import { numberBook } from '../../src/connections/numbers.js'
import type { NumberBook, NumberRecord } from '../../src/connections/numbers.js'
import { message } from '../marbles/numbered-world.js'

let runs = 0
const book = (records: readonly NumberRecord[] = [], keep = 100): NumberBook => numberBook(records, () => (runs += 1).toString(16).padStart(16, '0'), keep)
/** Sends them all, and gives the entries. */
const send = (to: NumberBook, ...ids: readonly string[]) =>
  ids.map((id) => {
    const step = to.next(message(id))
    if (step.kind !== 'send') throw new Error(`${id}: ${step.kind}`)
    return step.entry
  })
const kindOf = (of: NumberBook, id: string, redelivered = false) => of.next(message(id, { redelivered })).kind

it('a second copy in the queue, as a spool that is replayed makes it, waits for the first, and is stored with it', () => {
  const numbers = book()
  numbers.begin()
  const [a] = send(numbers, 'a')
  expect(kindOf(numbers, 'a')).toBe('out')
  if (a !== undefined) numbers.stored(a)
  expect(kindOf(numbers, 'a')).toBe('stored')
  const after = book(numbers.all())
  after.begin()
  expect(kindOf(after, 'a'), 'after a restart').toBe('stored')
})

it('a dead letter that is sent again gets a new number, though its id and digest are known', () => {
  const numbers = book()
  numbers.begin()
  const [a] = send(numbers, 'a')
  if (a !== undefined) numbers.refused(a)
  const [again] = send(numbers, 'a')
  expect(again?.number).toBe(2)
})

it('two alike without our digest are never taken for one another', () => {
  const numbers = book()
  numbers.begin()
  const foreign = (redelivered: boolean) => ({ id: 'same', body: Buffer.from('{}'), properties: {}, redelivered })
  expect(numbers.next(foreign(false)).kind).toBe('send')
  expect(numbers.next(foreign(false)).kind).toBe('send')
  const after = book(numbers.all())
  const { run } = after.begin()
  const step = after.next(foreign(true))
  expect(step.kind, 'not under the old name').toBe('turn')
  expect(after.begin().run).not.toBe(run)
  expect(after.next(foreign(true))).toMatchObject({ kind: 'send', fresh: true })
})

it('the next socket begins with what is out, then with what was wanted, then with what is new', () => {
  const numbers = book()
  expect(numbers.begin()).toMatchObject({ number: 1 })
  const [a, b] = send(numbers, 'a', 'b')
  if (a !== undefined) numbers.stored(a)
  expect(numbers.begin()).toMatchObject({ number: 2 })
  expect(kindOf(numbers, 'c'), 'b comes first').toBe('turn')
  expect(numbers.begin()).toMatchObject({ number: 3 })
  expect(kindOf(numbers, 'b'), 'it is below').toBe('turn')
  expect(b?.number).toBe(2)
})

it('what the first number of a socket leaves behind dies, unless it is known to be stored', () => {
  const numbers = book()
  numbers.begin()
  const [a] = send(numbers, 'a', 'b', 'c')
  if (a !== undefined) numbers.stored(a)
  const after = book(numbers.all())
  after.begin()
  expect(kindOf(after, 'c', true)).toBe('turn')
  after.begin()
  const step = after.next(message('c', { redelivered: true }))
  expect(step).toMatchObject({ kind: 'send', fresh: false, records: [{ kind: 'dead', number: 2, to: 2 }] })
  expect(kindOf(after, 'a')).toBe('stored')
  expect(after.next(message('b')).kind, 'under a new number, elsewhere').toBe('turn')
})

it('of two alike without our digest, the second is taken for the first when it comes again and never had a number: the limit that docs/delivery.md tells', () => {
  const numbers = book()
  numbers.begin()
  const foreign = (redelivered: boolean) => ({ id: 'same', body: Buffer.from('{}'), properties: {}, redelivered })
  const first = numbers.next(foreign(false))
  if (first.kind === 'send') numbers.stored(first.entry)
  expect(book(numbers.all()).next(foreign(true)).kind).toBe('stored')
})
