/** What the pipeline to Pulsar does with one message; its invariants under faults are in pipeline.test.ts. */
import { asyncScheduler, EMPTY, map, of } from 'rxjs'
import { describe, expect } from 'vitest'
import { buried, letterOf } from '../../src/dead-letter.js'
import type { Connection, Delivery, Receipt } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { deliver } from '../../src/operators/deliver.js'
import { recent } from '../../src/operators/drop-repeats.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { forward } from '../../src/pipelines/forward.js'
import { marbles } from './marbles.js'
import type { Marbles, Plan } from '../../src/testing.js'
import type { Plans } from '../../src/testing/stage.js'

const ours = (id: string): Message => ({ id, body: Buffer.from('{}'), properties: {}, digest: `digest of ${id}` })
const byId = (connection: Connection<string>): Connection<Message> => connection.pipe(map((send) => send && (({ id }: Message) => send(id))))

/** Letters of the row come as these messages; all of it ends at its frame, or when the source does. */
const run = (m: Marbles, row: string, messages: Readonly<Record<string, Message>>, plans: Plans<Plan> = {}, patienceMs = 60_000, farRow = 'w') => {
  const [far, copy, grave] = [m.far(farRow, plans), m.far('w'), m.far('w')]
  const queue = m.source(row)
  const runs: number[] = []
  const counted: string[] = []
  const reasons: string[] = []
  const letters = new Set<string>() // put back and dealt with
  const dead: Connection<DeadLetter<Message>> = grave.connection.pipe(
    map((send) => send && (({ value, reason, stage }: DeadLetter<Message>) => (reasons.push(`${value.id} ${stage}: ${reason}`), send(value.id)))),
  )
  const read = () => (runs.push(asyncScheduler.now()), queue.deliveries).pipe(map(({ value, settle }): Delivery<Message> => ({ value: messages[value] ?? ours(value), settle })))
  const running = forward({
    read,
    far: byId(far.connection),
    sink: (connection) => deliver(connection, { sink: 'pulsar' }),
    copies: [{ name: 'copy', sink: deliver(byId(copy.connection), { sink: 'copy' }) }],
    deadLetters: deliver(dead, { sink: 'dead' }),
    recent: recent(),
    patienceMs,
    replays: { has: (letter) => of(letters.has(letter)), add: (letter) => (letters.add(letter), EMPTY) },
    counted: {
      delivered: ({ id }) => counted.push(`${id} delivered`),
      deadLettered: ({ id }) => counted.push(`${id} buried`),
      repeatDropped: ({ id }) => counted.push(`${id} repeated`),
      copiesDropped: (name, count) => counted.push(`${name} dropped ${count}`),
    },
  })
  m.expectObservable(running.pipe(map(({ sink }: Receipt) => sink.charAt(0))), '40ms !')
  return { far, copy, grave, queue, runs, counted, reasons }
}

describe('forward', () => {
  marbles('delivers, copies, and counts it', (m) => {
    const { far, copy, queue, counted } = run(m, 'ab', {})
    m.rows([queue.settled, '-ab'])
    m.flush()
    expect([far.confirmed, copy.confirmed, counted]).toEqual([['a', 'b'], ['a', 'b'], ['a delivered', 'b delivered']])
  })
  marbles('buries what another program wrote and is no JSON object, with the reason; the door has checked ours', (m) => {
    const body = Buffer.from('no JSON')
    const foreign: Message = { id: 'f', body, properties: {} }
    const { far, queue, counted, reasons } = run(m, 'fga', { f: foreign, g: { ...foreign, id: 'g', body: Buffer.from('{}') }, a: { ...ours('a'), body } })
    m.rows([queue.settled, '                            -fga'])
    m.flush()
    expect([far.confirmed, reasons]).toEqual([['g', 'a'], ['f check: not JSON']])
    expect(counted).toEqual(['f buried', 'g delivered', 'a delivered'])
  })
  marbles('accepts a repeat of what was delivered, counts it, and sends it nowhere', (m) => {
    const { far, copy, queue, counted } = run(m, 'a--r', { r: ours('a') })
    m.rows([queue.settled, '                 -a-r'])
    m.flush()
    expect([far.confirmed, copy.confirmed, counted]).toEqual([['a'], ['a'], ['a delivered', 'a repeated']])
  })
  marbles('drops a copy that comes while the first is on its way, and answers for it at once', (m) => {
    const { far, copy, counted, queue } = run(m, 'ar-b', { r: ours('a') }, { a: 5 })
    m.rows([queue.settled, '-r--ba'])
    m.flush()
    expect([far.confirmed, copy.confirmed, counted]).toEqual([['b', 'a'], ['a', 'b'], ['a repeated', 'b delivered', 'a delivered']])
  })
  marbles('sends a copy of what was refused while on its way: it was not delivered', (m) => {
    const { far, counted } = run(m, 'a--r', { r: ours('a') }, { a: ['refused', 1] })
    m.flush()
    expect([far.refused, far.confirmed, counted]).toEqual([['a'], ['a'], ['a buried', 'a delivered']])
  })
  marbles('sends a letter that is put back while a copy of it is on its way: when that is refused, it is this very letter, and would be dealt with', (m) => {
    const letter = letterOf(buried(ours('a'), { reason: 'r', stage: 's', attempts: 1, firstSeen: 0, letter: '1' }))
    const back = { ...ours('a'), replayed: letter }
    const { far, counted } = run(m, 'ar------s', { r: back, s: back }, { a: ['silent', 'silent', 'refused', 1] }, 60_000, 'w-x-v')
    m.flush()
    expect([far.refused, far.confirmed, counted]).toEqual([['a'], ['a'], ['a buried', 'a delivered', 'a repeated']])
  })
  marbles('sends a message with the bytes of another, or without a digest, though its like is on its way', (m) => {
    const { digest, ...foreign } = ours('f')
    const { far } = run(m, 'abfg', { b: { ...ours('a'), digest: `${digest} and more` }, f: foreign, g: foreign }, { a: 9, f: 9 })
    m.flush()
    expect(far.confirmed).toEqual(['a', 'a', 'f', 'f'])
  })
  marbles('takes nothing for a repeat that was not delivered', (m) => {
    const { far, grave, counted } = run(m, 'a--r', { r: ours('a') }, { a: 'refused' })
    m.flush()
    expect([far.confirmed, far.refused, grave.confirmed]).toEqual([[], ['a', 'a'], ['a', 'a']])
    expect(counted).toEqual(['a buried', 'a buried'])
  })
  marbles('copies what leaves its queue for the first time, and not what comes again', (m) => {
    const { far, copy, queue } = run(m, 'ab', { b: { ...ours('b'), redelivered: true } })
    m.rows([queue.settled, '-ab'])
    m.flush()
    expect([far.confirmed, copy.confirmed]).toEqual([['a', 'b'], ['a']])
  })
  marbles('waits for Pulsar and for no copy', (m) => {
    const { queue, copy } = run(m, 'a', {}, { a: 5 })
    m.rows([queue.settled, '-----a'])
    m.flush()
    expect(copy.confirmed).toEqual(['a'])
  })
  marbles('counts what Pulsar was tried with after a silence as delivered, and does not send it again when the queue gives it', (m) => {
    const { far, runs, counted } = run(m, 'a 14ms r', { r: ours('a') }, { a: ['silent', 3] }, 10)
    m.rows([far.writes, 'a 9ms a'])
    m.flush()
    expect([runs, counted]).toEqual([[0, 13], ['a delivered', 'a repeated']])
  })
})
