/** A dead letter that was put back twice arrives once: while the first copy is out, afterwards, and after a restart. */
import { map, of, tap, throwError, timer } from 'rxjs'
import { describe, expect } from 'vitest'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Delivery, Outcome } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { rememberReplays } from '../../src/operators/remember-replays.js'
import type { ReplayMemory } from '../../src/operators/remember-replays.js'
import type { Marbles } from '../../src/testing.js'
import { marbles, settleAfter } from './marbles.js'

/** Capital letters stand for no replay; `b` is a second copy of `a`, `d` of `c`. */
const replayOf: Readonly<Record<string, string>> = { a: 'A1', b: 'A1', c: 'C1', d: 'C1' }
const message = (id: string): Message => ({ id, body: Buffer.from('{}'), properties: {}, ...(replayOf[id] === undefined ? {} : { replayed: replayOf[id] }) })

const memory = (known: Set<string>, addMs = 2): ReplayMemory => ({
  has: (letter) => of(known.has(letter)),
  add: (letter) => timer(addMs).pipe(tap({ complete: () => known.add(letter) })),
})

/** Each is answered after 3 ms. */
const run = (m: Marbles, row: string, remember: ReplayMemory, outcome: Outcome = accepted) => {
  const source = m.source(row)
  const through: string[] = []
  const repeated: string[] = []
  const running = source.deliveries.pipe(
    map(({ value, settle }): Delivery<Message> => ({ value: message(value), settle })),
    rememberReplays(remember, ({ id }) => repeated.push(id)),
    tap(({ value }) => through.push(value.id)),
    settleAfter(3, outcome),
  )
  m.expectObservable(running.pipe(map(({ id }) => id)), '30ms !')
  return { source, through, repeated }
}

describe('rememberReplays', () => {
  marbles('lets what is no replay through untouched', (m) => {
    const { source, through } = run(m, 'XX', memory(new Set(), 9))
    m.rows([source.settled, '---XX'])
    m.flush()
    expect(through).toEqual(['X', 'X'])
  })
  marbles('accepts a replay when the memory has it, and not before', (m) => {
    const known = new Set<string>()
    const { source } = run(m, 'aX', memory(known, 4))
    m.rows([source.settled, '----X--a'])
    m.flush()
    expect(known).toEqual(new Set(['A1']))
  })
  marbles('lets a second copy wait while the first is out, then accepts and counts it; the others do not wait', (m) => {
    const { source, through, repeated } = run(m, 'abX', memory(new Set(), 4))
    m.rows([source.settled, '-----X-(ab)'])
    m.flush()
    expect(through).toEqual(['a', 'X'])
    expect(repeated).toEqual(['b'])
  })
  marbles('accepts and counts a copy that comes later, and sends it nowhere', (m) => {
    const { source, through, repeated } = run(m, 'a------b', memory(new Set()))
    m.rows([source.settled, '-----a-b'])
    m.flush()
    expect([through, repeated]).toEqual([['a'], ['b']])
  })
  marbles('drops what was dealt with before a restart', (m) => {
    const { source, through, repeated } = run(m, 'abc', memory(new Set(['A1'])))
    m.rows([source.settled, 'ab-----c'])
    m.flush()
    expect([through, repeated]).toEqual([['c'], ['a', 'b']])
  })
  marbles('releases the second copy with the first: both come again, and neither is counted', (m) => {
    const { source, through, repeated } = run(m, 'ab', memory(new Set()), released(true))
    m.rows([source.settled, '---(**)'])
    m.flush()
    expect([through, repeated]).toEqual([['a'], []])
  })
  marbles('remembers nothing that was not accepted', (m) => {
    const known = new Set<string>()
    const { source } = run(m, 'ac', memory(known), rejected('no', 'far'))
    m.rows([source.settled, '---AC'])
    m.flush()
    expect(known).toEqual(new Set())
  })
  marbles('accepts all the same when the disk does not keep it', (m) => {
    const { source } = run(m, 'a', { has: () => of(false), add: () => throwError(() => new Error('disk')) })
    m.rows([source.settled, '---a'])
  })
  marbles('keeps the order while the memory is being read', (m) => {
    const { source, through } = run(m, 'aXc', { has: () => timer(5).pipe(map(() => false)), add: () => of() })
    m.rows([source.settled, '--------(aX)-c'])
    m.flush()
    expect(through).toEqual(['a', 'X', 'c'])
  })
})
