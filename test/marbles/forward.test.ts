/** What the pipeline to Pulsar does with one message; its invariants under faults are in pipeline.test.ts. */
import { EMPTY, map, of } from 'rxjs'
import { describe, expect } from 'vitest'
import type { Connection, Delivery, Receipt } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { deliver } from '../../src/operators/deliver.js'
import { recent } from '../../src/operators/drop-repeats.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { forward } from '../../src/pipelines/forward.js'
import { marbles } from './marbles.js'
import type { Marbles, Plan } from '../../src/testing.js'

const ours = (id: string): Message => ({ id, body: Buffer.from('{}'), properties: {}, digest: `digest of ${id}` })
const byId = (connection: Connection<string>): Connection<Message> => connection.pipe(map((send) => send && (({ id }: Message) => send(id))))

/** Letters of the row come as these messages; all of it ends at its frame, or when the source does. */
const run = (m: Marbles, row: string, messages: Readonly<Record<string, Message>>, plans: Readonly<Record<string, Plan>> = {}) => {
  const [far, copy, grave] = [m.far('w', plans), m.far('w'), m.far('w')]
  const queue = m.source(row)
  const counted: string[] = []
  const reasons: string[] = []
  const dead: Connection<DeadLetter<Message>> = grave.connection.pipe(
    map((send) => send && (({ value, reason, stage }: DeadLetter<Message>) => (reasons.push(`${value.id} ${stage}: ${reason}`), send(value.id)))),
  )
  const read = () => queue.deliveries.pipe(map(({ value, settle }): Delivery<Message> => ({ value: messages[value] ?? ours(value), settle })))
  const running = forward({
    read,
    far: byId(far.connection),
    sink: (connection) => deliver(connection, { sink: 'pulsar' }),
    copies: [{ name: 'copy', sink: deliver(byId(copy.connection), { sink: 'copy' }) }],
    deadLetters: deliver(dead, { sink: 'dead' }),
    recent: recent(),
    replays: { has: () => of(false), add: () => EMPTY },
    counted: {
      delivered: ({ id }) => counted.push(`${id} delivered`),
      deadLettered: ({ id }) => counted.push(`${id} buried`),
      repeatDropped: ({ id }) => counted.push(`${id} repeated`),
      copiesDropped: (name, count) => counted.push(`${name} dropped ${count}`),
    },
  })
  m.expectObservable(running.pipe(map(({ sink }: Receipt) => sink.charAt(0))), '40ms !')
  return { far, copy, grave, queue, counted, reasons }
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
})
