/** The ends of RabbitMQ over a scripted broker, in virtual time; what a real one does is in test/wire/rabbitmq.test.ts. */
import { map, NEVER, Subject, tap, timer } from 'rxjs'
import { describe, expect } from 'vitest'
import { amqpReader } from '../../src/connections/amqp-reader.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { accepted, released } from '../../src/delivery.js'
import type { Delivery } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import type { Message } from '../../src/message.js'
import { rabbitQueue } from '../../src/pipelines/queue.js'
import { rabbitmqSink } from '../../src/sinks/rabbitmq.js'
import { rabbitmqSource } from '../../src/sources/rabbitmq.js'
import { fakeRabbit } from '../contract/fakes/rabbitmq.js'
import type { FakeRabbit } from '../contract/fakes/rabbitmq.js'
import { marbles } from './marbles.js'
import type { Marbles } from '../../src/testing.js'

const urls = ['amqp://scripted']
const queue = 'q'
const message = (id: string): Message => ({ id, body: Buffer.from('{}'), properties: {} })
const at = (ms: number, act: () => void): void => void timer(ms).subscribe(act)

describe('amqpWriter', () => {
  /** Publishes the row's letters, and ends at 5 s; rows that are shown begin when the writer is there. */
  const write = (m: Marbles, row: string, rabbit: FakeRabbit, settings: Partial<Parameters<typeof amqpWriter>[0]> = {}) => {
    const states: string[] = []
    const given = m.source(row)
    const connection = amqpWriter({ urls, queue, open: rabbit.open, onState: ({ kind }) => states.push(kind), ...settings })
    const deliveries = given.deliveries.pipe(map(({ value, settle }): Delivery<Message> => ({ value: message(value), settle })))
    m.expectObservable(deliveries.pipe(rabbitmqSink(connection), map(({ value }) => value.id)), '5s !')
    return { ...given, states }
  }

  marbles('accepts when RabbitMQ has confirmed, and not before', (m) => {
    const rabbit = fakeRabbit({ queues: [queue], confirmMs: 3 })
    m.rows([write(m, 'ab', rabbit).settled, '---ab'])
    m.flush()
    expect(rabbit.waiting(queue)).toEqual(['a', 'b'])
    expect(rabbit.links(), 'and lets its connection go').toBe(0)
  })
  marbles('does not accept what no queue received, though it was confirmed: the queue is made anew, and it is written again', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    const { states, counts } = write(m, '--a', rabbit)
    at(1, () => rabbit.remove(queue))
    m.flush()
    expect([rabbit.published, rabbit.waiting(queue), counts.accepted]).toEqual([['a', 'a'], ['a'], 1])
    expect(states).toEqual(['connected', 'lost', 'connected'])
  })
  marbles('does not accept what RabbitMQ refuses: it is written again, in order, over a new connection', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    rabbit.answer('refuse')
    const { counts } = write(m, 'ab', rabbit)
    at(100, () => rabbit.answer('confirm'))
    m.flush()
    expect([rabbit.waiting(queue), counts.accepted]).toEqual([['a', 'b'], 2])
  })
  marbles('rejects what AMQP cannot carry, unsent, and that alone', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    const long = 'n'.repeat(256)
    const unsent: Partial<Message>[] = [{ id: long }, { properties: { [long]: 'x' } }, { properties: { site: 'x'.repeat(61_440) } }]
    const given = m.source('abcd')
    const deliveries = given.deliveries.pipe(map(({ value, settle }, n): Delivery<Message> => ({ value: { ...message(value), ...unsent[n] }, settle })))
    m.expectObservable(deliveries.pipe(rabbitmqSink(amqpWriter({ urls, queue, open: rabbit.open })), map(({ outcome }) => outcome.kind)), '5s !')
    m.rows([given.settled, 'ABC-d'])
    m.flush()
    expect([rabbit.published, rabbit.waiting(queue)]).toEqual([['d'], ['d']])
  })
  marbles('gives up a broker that confirms nothing, by its own time-out, and writes all of it again in order', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    rabbit.answer('nothing')
    const { counts, states } = write(m, 'ab', rabbit, { confirmTimeoutMs: 50 })
    at(60, () => rabbit.answer('confirm'))
    m.flush()
    expect(states).toEqual(['connected', 'lost', 'connected'])
    expect([rabbit.published, rabbit.waiting(queue), counts.accepted]).toEqual([['a', 'b', 'a', 'b'], ['a', 'b'], 2])
  })
  marbles('sends nothing while the broker blocks publishers, waits as long as that lasts, and then goes on in order', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    const { counts, states } = write(m, '--ab', rabbit, { confirmTimeoutMs: 50 })
    const before: string[][] = []
    at(1, () => rabbit.block('memory'))
    at(999, () => before.push([...rabbit.published]))
    at(1000, () => rabbit.block(undefined))
    m.flush()
    expect([before, states]).toEqual([[[]], ['connected', 'blocked', 'unblocked']])
    expect([rabbit.published, counts.accepted]).toEqual([['a', 'b'], 2])
  })
  marbles('has in a restarted broker what it said was accepted', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    const { counts } = write(m, 'ab', rabbit)
    at(100, rabbit.restart)
    m.flush()
    expect([rabbit.waiting(queue), counts.accepted]).toEqual([['a', 'b'], 2])
  })
  marbles('writes again what was confirmed last, before what came back: RabbitMQ confirms what is on its way to a queue that is being deleted', (m) => {
    const rabbit = fakeRabbit({ queues: [queue], confirmMs: 3 })
    const { counts } = write(m, '(ab)---c', rabbit)
    at(4, () => rabbit.remove(queue))
    // Another program makes it anew before we do.
    at(100, () => rabbit.put(queue))
    m.flush()
    expect([rabbit.published, rabbit.waiting(queue), counts.accepted]).toEqual([['a', 'b', 'c', 'a', 'b', 'c'], ['a', 'b', 'c'], 3])
  })
  marbles('so it does when nothing came back, and the queue had to be made: by somebody else here, or by itself', (m) => {
    const [told, found] = [fakeRabbit({ queues: [queue] }), fakeRabbit({ queues: [queue] })]
    const made = new Subject<void>()
    let times = 0
    const counts = [write(m, 'a', told, { made }).counts, write(m, 'a', found, { onMade: () => (times += 1) }).counts]
    at(9, () => [told, found].forEach(({ remove }) => remove(queue)))
    at(10, () => made.next())
    at(10, found.restart)
    m.flush()
    expect([told, found].map(({ published, waiting }) => [published, waiting(queue)])).toEqual([[['a', 'a'], ['a']], [['a', 'a'], ['a']]])
    expect([...counts.map(({ accepted }) => accepted), times]).toEqual([1, 1, 1])
  })
  marbles('not what a later confirm has proven: that was in the queue, and was deleted with it', (m) => {
    const rabbit = fakeRabbit({ queues: [queue], confirmMs: 3 })
    const { counts } = write(m, 'a---b---c', rabbit)
    at(8, () => rabbit.remove(queue))
    m.flush()
    expect([rabbit.published, rabbit.waiting(queue), counts.accepted]).toEqual([['a', 'b', 'c', 'b', 'c'], ['b', 'c'], 3])
  })
  marbles('writes it again in its order, when the queue is gone once more meanwhile', (m) => {
    const rabbit = fakeRabbit({ queues: [queue], confirmMs: 3 })
    const { counts } = write(m, '(ab)---c', rabbit)
    at(4, () => rabbit.remove(queue))
    at(214, () => rabbit.remove(queue))
    m.flush()
    expect([rabbit.published, rabbit.waiting(queue), counts.accepted]).toEqual([[...'abcabcabc'], ['a', 'b', 'c'], 3])
  })
  marbles('takes the return of one message for that one alone', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    const { counts } = write(m, '-(aa)', rabbit)
    at(1, () => rabbit.remove(queue))
    m.flush()
    expect([rabbit.waiting(queue), counts.accepted]).toEqual([['a', 'a'], 2])
  })
  for (const [version, queueArguments] of [['3.12.1', {}], ['4.0.5', { 'x-queue-type': 'quorum', 'x-delivery-limit': -1 }]] as const)
    marbles(`makes a missing queue so that RabbitMQ ${version} syncs before it confirms, and leaves an existing one as it is`, (m) => {
      const [missing, existing] = [fakeRabbit({ version }), fakeRabbit({ version, queues: [queue] })]
      write(m, 'a', missing)
      write(m, 'a', existing)
      m.flush()
      expect([missing.declared, existing.declared]).toEqual([[{ queue, queueArguments }], []])
    })
  marbles('gives a quorum queue of RabbitMQ 3 no delivery limit: -1 would drop a message there at its first return', (m) => {
    const rabbit = fakeRabbit({ version: '3.10.8' })
    write(m, 'a', rabbit, { queueType: 'quorum' })
    m.flush()
    expect(rabbit.declared).toEqual([{ queue, queueArguments: { 'x-queue-type': 'quorum' } }])
  })
})

describe('rabbitmqSource', () => {
  const ids = (count: number) => Array.from({ length: count }, (_, i) => ({ id: String.fromCharCode(97 + i) }))
  const read = (m: Marbles, rabbit: FakeRabbit, answer: (delivery: Delivery<Message>, seen: readonly string[]) => void, window = 9) => {
    const counts = newCounts()
    const seen: string[] = []
    const source = rabbitmqSource(amqpReader({ urls, open: rabbit.open }).channels({ queue }), { window, counts })
    const taken = tap<Delivery<Message>>((delivery) => {
      seen.push(`${delivery.value.id}${delivery.value.redelivered === true ? '+' : ''}`)
      answer(delivery, seen)
    })
    m.expectObservable(source.pipe(taken, map(({ value }) => value.id)), '20s !')
    return { counts, seen }
  }

  marbles('gives in order, no more than its window, and acknowledges what came in one turn together', (m) => {
    const rabbit = fakeRabbit()
    rabbit.put(queue, ...ids(5))
    const { seen, counts } = read(m, rabbit, ({ settle }) => settle(accepted), 3)
    m.flush()
    expect([seen.join(''), rabbit.waiting(queue)]).toEqual(['abcde', []])
    expect(rabbit.acknowledged).toEqual(['upTo 3', 'upTo 5'])
    expect(counts).toMatchObject({ taken: 5, accepted: 5, unsettled: 0 })
  })
  marbles('acknowledges no more than the contiguous prefix: what is not answered stays with the broker', (m) => {
    const rabbit = fakeRabbit()
    rabbit.put(queue, ...ids(4))
    read(m, rabbit, ({ value, settle }) => value.id !== 'b' && settle(accepted))
    const before: string[][] = []
    at(19_000, () => before.push([...rabbit.acknowledged]))
    m.flush()
    expect(before).toEqual([['upTo 1']])
    expect(rabbit.waiting(queue), 'on cancel the others are acknowledged one by one').toEqual(['b'])
    expect(rabbit.acknowledged).toEqual(['upTo 1', 'one 3', 'one 4'])
  })
  marbles('lets what was released come again in its place, before anything new, and destroys nothing', (m) => {
    const rabbit = fakeRabbit()
    rabbit.put(queue, ...ids(6))
    const { seen, counts } = read(m, rabbit, ({ value, settle }, all) => settle(value.id === 'b' && all.length < 3 ? released(false) : accepted), 3)
    m.flush()
    expect(seen.join('')).toBe('abb+c+def')
    expect([rabbit.waiting(queue), counts.accepted]).toEqual([[], 6])
  })
  marbles('destroys nothing that was rejected: it comes again', (m) => {
    const rabbit = fakeRabbit()
    rabbit.put(queue, ...ids(2))
    const { seen } = read(m, rabbit, ({ value, settle }, all) => settle(value.id === 'a' && all.length < 2 ? { kind: 'rejected', reason: 'no', stage: 'test', attempts: 1 } : accepted))
    m.flush()
    expect(seen.join('')).toBe('aa+b+')
  })
  marbles('lets what is refused again and again come ever more slowly, until something is accepted', (m) => {
    const rabbit = fakeRabbit()
    rabbit.put(queue, ...ids(1))
    const { seen } = read(m, rabbit, ({ settle }) => settle(released(false)))
    m.flush()
    expect(seen.length, '50 ms, doubling to 5 s, in 20 s').toBeLessThan(15)
    expect(seen.length).toBeGreaterThan(7)
  })
  marbles('takes nothing after a loss until all that was outside is answered; then what was lost comes first', (m) => {
    const rabbit = fakeRabbit()
    rabbit.put(queue, ...ids(4))
    const late: Delivery<Message>[] = []
    const { seen, counts } = read(m, rabbit, (delivery, all) => (all.length <= 2 ? late.push(delivery) : delivery.settle(accepted)), 2)
    at(10, rabbit.lose)
    at(5000, () => late.forEach(({ settle }) => settle(accepted)))
    const before: number[] = []
    at(4999, () => before.push(seen.length))
    m.flush()
    expect([before, seen.join('')]).toEqual([[2], 'aba+b+cd'])
    expect(counts).toMatchObject({ stale: 2, accepted: 4 })
  })
  marbles('comes back as quickly after its tenth loss as after its first, where it has acknowledged something between them', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    const { seen } = read(m, rabbit, ({ settle }) => settle(accepted))
    const late: number[] = []
    for (let n = 1; n <= 10; n += 1) {
      at(n * 1000, rabbit.lose)
      at(n * 1000 + 300, () => rabbit.put(queue, { id: `${n}` }))
      at(n * 1000 + 400, () => seen.length < n && late.push(n))
    }
    m.flush()
    expect([late, seen.length]).toEqual([[], 10])
  })
  marbles('heals a consumer that the broker cancels, and makes its queue anew', (m) => {
    const rabbit = fakeRabbit()
    rabbit.put(queue, ...ids(1))
    const { seen } = read(m, rabbit, ({ settle }) => settle(accepted))
    at(10, () => rabbit.remove(queue))
    at(1000, () => rabbit.put(queue, { id: 'z' }))
    m.flush()
    expect([seen.join(''), rabbit.declared.length]).toEqual(['az', 1])
  })
  marbles('reads over a connection of its own: a publisher that is blocked does not hold its acknowledgements', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    read(m, rabbit, ({ settle }) => settle(accepted))
    m.expectObservable(amqpWriter({ urls, queue, open: rabbit.open }).pipe(map((writer) => typeof writer)), '9ms !')
    m.flush()
    expect(rabbit.opened()).toBe(2)
  })
})

describe('a queue with both its ends', () => {
  marbles('what its reader had to make anew has again what was confirmed last', (m) => {
    const rabbit = fakeRabbit({ queues: [queue] })
    const reader = amqpReader({ urls, open: rabbit.open })
    const both = rabbitQueue({ amqpUrl: urls, queueType: 'auto', confirmTimeoutMs: 1500, window: 10 }, queue, reader, () => {}, undefined, { openAmqp: rabbit.open })
    const given = m.source('a')
    const deliveries = given.deliveries.pipe(map(({ value, settle }): Delivery<Message> => ({ value: message(value), settle })))
    m.expectObservable(deliveries.pipe(both.sink, map(({ value }) => value.id)), '5s !')
    m.expectObservable(both.read({ window: 10, stop: NEVER }).pipe(tap(({ settle }) => settle(accepted)), map(({ value }) => value.id)), '5s !')
    at(10, () => rabbit.remove(queue))
    m.flush()
    expect([rabbit.published, rabbit.waiting(queue)]).toEqual([['a', 'a'], []])
  })
})
