/** What runs against RabbitMQ, in virtual time: the real writer, reader and source over a scripted broker. */
import { map, timer } from 'rxjs'
import { describe, expect } from 'vitest'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Delivery, Outcome } from '../../src/delivery.js'
import { amqpReader } from '../../src/connections/amqp-reader.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { newCounts } from '../../src/ledger.js'
import type { Message } from '../../src/message.js'
import { each } from '../../src/operators/each.js'
import { rabbitmqSink } from '../../src/sinks/rabbitmq.js'
import { rabbitmqSource } from '../../src/sources/rabbitmq.js'
import { message } from '../../src/testing.js'
import type { ScriptedAmqp } from '../../src/testing.js'
import { marbles, settleAfter } from './marbles.js'

const urls = ['amqp://scripted']
const sinkTo = ({ open }: ScriptedAmqp, queue = 'queue') => rabbitmqSink(amqpWriter({ urls, queue, open, confirmTimeoutMs: 50 }))
const sourceFrom = ({ open }: ScriptedAmqp, options: Parameters<typeof rabbitmqSource>[1] = {}) => rabbitmqSource(amqpReader({ urls, open }).channels({ queue: 'queue' }), options)
const messages = { values: message }

describe('amqpWriter', () => {
  marbles('accepts when the broker has confirmed, and not before', ({ source, amqp, run, rows }) => {
    const broker = amqp('          o', { a: 3, b: 5 })
    const { deliveries, settled } = source('ab', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         ab'], [settled, '              ---a--b'])
  })
  marbles('takes one confirm for several as the confirm of each, in order', ({ source, amqp, run, rows }) => {
    const broker = amqp('          o', { a: 'multiple', b: 'multiple', c: 4, d: 9 })
    const { deliveries, settled } = source('abcd', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         abcd'], [settled, '              ------(abc)-d'])
  })
  marbles('takes confirms in any order, and what comes later does not wait', ({ source, amqp, run, rows }) => {
    const broker = amqp('          o', { a: 9, b: 2 })
    const { deliveries, settled } = source('ab', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         ab'], [settled, '              ---b-----a'])
  })
  marbles('does not wait for ever for a confirm that is late: the connection is given up, all of it goes again, in order, and the queue has a repeat', ({ source, amqp, run, rows, flush }) => {
    const broker = amqp('          o', { a: [70, 1] })
    const { deliveries, settled } = source('ab', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         ab 248ms a'], [settled, '              --b 248ms a'])
    flush()
    expect([broker.holds(), broker.links()]).toEqual(['aba', 1])
  })
  marbles('after a refusal sends one message and waits for its confirm: what the queue takes again cannot arrive before what it still refused', ({ source, amqp, run, flush }) => {
    const broker = amqp('          o', { a: ['refused', 'refused', 3], b: ['refused', 1], c: ['refused', 1] })
    const { deliveries } = source('abc', messages)
    run(deliveries.pipe(sinkTo(broker)))
    flush()
    expect([broker.holds(), broker.links()]).toEqual(['abc', 1])
  })
  marbles('rejects what is larger than RabbitMQ takes, once that has told so by closing the channel, and its neighbours arrive', ({ source, amqp, run, rows, flush }) => {
    const large = { a: message('a'), b: message('b', { text: 'x'.repeat(200) }), c: message('c'), d: message('d', { text: 'x'.repeat(200) }) }
    const broker = amqp('          o', {}, { maxMessageBytes: 100 })
    const { deliveries, settled } = source('abc 300ms d', { values: large })
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         abc 199ms c'], [settled, '              -a- 199ms Bc 99ms D'])
    flush()
    expect([broker.holds(), broker.links()]).toEqual(['ac', 1])
  })
  marbles('publishes again what was out when the connection was lost, in order, before anything new', ({ source, amqp, run, rows, flush }) => {
    const broker = amqp('          o---x 300ms o', { a: ['silent', 1], c: ['silent', 1] })
    const { deliveries, settled } = source('abc-----d', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         abc 302ms (acd)'], [settled, '              --b 303ms (acd)'])
    flush()
    expect(broker.holds(), 'a and c were in the queue when their confirms were lost').toBe('abcacd')
  })
  marbles('does the same when only the channel is closed', ({ source, amqp, run, rows }) => {
    const broker = amqp('          o--c', { a: ['silent', 1] })
    const { deliveries, settled } = source('a----b', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         a 202ms (ab)'], [settled, '              204ms (ab)'])
  })
  marbles('accepts nothing that came back as unroutable, though it was confirmed', ({ source, amqp, run, rows, flush }) => {
    const broker = amqp('          o', { a: ['returned', 1] })
    const { deliveries, settled } = source('a', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         a 200ms a'], [settled, '              202ms a'])
    flush()
    expect(broker.holds()).toBe('a')
  })
  marbles('makes a queue that is missing before it writes', ({ source, amqp, run, rows, flush }) => {
    const broker = amqp('          o')
    const { deliveries, settled } = source('a', messages)
    run(deliveries.pipe(sinkTo(broker, 'other')))
    rows([broker.writes, '         a'], [settled, '              -a'])
    flush()
    expect([broker.holds(), broker.holds('other')]).toEqual(['', 'a'])
  })
  marbles('takes a refusal for the connection’s fault, not the message’s', ({ source, amqp, run, rows }) => {
    const broker = amqp('          o', { a: ['refused', 1] })
    const { deliveries, settled } = source('ab', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         ab 199ms ab'], [settled, '              202ms ab'])
  })
  marbles('publishes nothing while the broker blocks, then all of it in order, and no confirm is late for that', ({ source, amqp, run, rows }) => {
    const broker = amqp('          o-b 99ms u', { a: 150 })
    const { deliveries, settled } = source('a--bc', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         a 101ms (bc)'], [settled, '              103ms (bc) 43ms a'])
  })
  marbles('rests longer after each attempt that was not proven, and waits for a broker that is away', ({ source, amqp, run, rows, flush }) => {
    const broker = amqp('          o-x 2s o', {})
    const { deliveries, settled } = source('---a', messages)
    run(deliveries.pipe(sinkTo(broker)))
    rows([broker.writes, '         2003ms a'], [settled, '              2004ms a'])
    flush()
    expect(broker.links()).toBe(1)
  })
  marbles('closes its connection when it is unsubscribed, and releases all', ({ source, amqp, run, rows, flush }) => {
    const broker = amqp('          o', { a: 'silent' })
    const { deliveries, settled } = source('a', messages)
    run(deliveries.pipe(sinkTo(broker)), ' ^--!')
    rows([broker.writes, '         a'], [settled, '              ---*'])
    flush()
    expect(broker.links()).toBe(0)
  })
})

/** Settles each message by its letter, so many frames after it came; accepted after 1 if nothing is said. */
const answering = (answers: Readonly<Record<string, readonly [frames: number, outcome: Outcome]>>) => {
  const told = new Set<string>()
  return map(({ value, settle }: Delivery<Message>): string => {
    const [frames, outcome] = (told.has(value.id) ? undefined : answers[value.id]) ?? [1, accepted]
    told.add(value.id)
    timer(frames).subscribe(() => settle(outcome))
    return value.id
  })
}

describe('rabbitmqSource', () => {
  marbles('takes no more than its window, in order, and acknowledges what is accepted', ({ amqp, run, rows, flush }) => {
    const broker = amqp('            o', {}, { arrivals: 'abcd' })
    run(sourceFrom(broker, { window: 2 }).pipe(settleAfter(4)))
    rows([broker.given, '            ab--cd'], [broker.accepted, '         ----ab--cd'])
    flush()
    expect(broker.holds()).toBe('')
  })
  marbles('acknowledges only the contiguous prefix: what is accepted beyond a gap waits for the gap', ({ amqp, run, rows }) => {
    const broker = amqp('            o', {}, { arrivals: 'abc' })
    run(sourceFrom(broker).pipe(answering({ a: [6, accepted] })))
    rows([broker.given, '            abc'], [broker.accepted, '         ------(abc)'])
  })
  marbles('gets what was out again, in order and marked, before anything new, after the connection is lost', ({ amqp, run, rows, flush }) => {
    const counts = newCounts()
    const redelivered: string[] = []
    const broker = amqp('            o---x 300ms o', {}, { arrivals: 'abc--d' })
    run(sourceFrom(broker, { counts }).pipe(each((value: Message) => (value.redelivered === true && redelivered.push(value.id), [value])), answering({ b: [20, accepted], c: [20, accepted] })))
    rows([broker.given, '            abc 302ms (bcd)'], [broker.accepted, '         -a 304ms (bcd)'])
    flush()
    expect(redelivered).toEqual(['b', 'c'])
    expect(counts).toMatchObject({ taken: 6, accepted: 4, released: 2, stale: 2, unsettled: 0 })
  })
  marbles('sends no answer that comes after the channel is gone: it is counted, and the message comes again', ({ amqp, run, rows, flush }) => {
    const counts = newCounts()
    const broker = amqp('            o--c', {}, { arrivals: 'ab' })
    run(sourceFrom(broker, { counts }).pipe(answering({ a: [9, accepted], b: [5, rejected('late', 'test')] })))
    rows([broker.given, '            ab 51ms (ab)'], [broker.accepted, '         54ms (ab)'])
    flush()
    expect(counts).toMatchObject({ taken: 4, accepted: 2, released: 2, rejected: 0, stale: 2 })
  })
  marbles('takes nothing new before everything that was lost has been answered: it could overtake what comes again', ({ amqp, run, rows }) => {
    const broker = amqp('            o--c', {}, { arrivals: 'a-b--c' })
    run(sourceFrom(broker).pipe(answering({ a: [200, accepted], b: [2, accepted] })))
    rows([broker.given, '            a-b 197ms (abc)'], [broker.accepted, '         201ms (abc)'])
  })
  marbles('takes nothing while another consumer is left: what that one was given comes first once it is gone', ({ amqp, run, rows }) => {
    const broker = amqp('            o', {}, { arrivals: 'abcd' })
    run(sourceFrom(broker, { window: 2 }).pipe(settleAfter(10_000)), '^--- 100ms !')
    run(sourceFrom(broker).pipe(settleAfter(1)), ' --^')
    rows([broker.given, '            ab 150ms (abcd)'])
  })
  marbles('shares the queue with a consumer that stays, after 5 s', ({ amqp, run, rows }) => {
    const broker = amqp('            o', {}, { arrivals: 'abcd' })
    run(sourceFrom(broker, { window: 2 }).pipe(settleAfter(10_000)))
    run(sourceFrom(broker).pipe(settleAfter(1)), ' --^')
    rows([broker.given, '            ab 5s (cd)'])
  })
  marbles('begins with a quorum queue when that has something: one that starts again tells of nothing until it knows who held what', ({ amqp, run, rows }) => {
    const broker = amqp('            o', {}, { arrivals: '---a 100ms b' })
    run(rabbitmqSource(amqpReader({ urls, open: broker.open }).channels({ queue: 'queue', queueType: 'quorum' })).pipe(settleAfter(1)))
    rows([broker.given, '            50ms a 53ms b'])
  })
  marbles('consumes again when the broker cancels its consumer', ({ amqp, run, rows }) => {
    const broker = amqp('            o--!', {}, { arrivals: 'ab---c' })
    run(sourceFrom(broker).pipe(answering({ b: [9, accepted] })))
    rows([broker.given, '            ab 51ms (bc)'], [broker.accepted, '         -a 52ms (bc)'])
  })
  marbles('gives back what is released, with all that is out: it comes again in order, without what was accepted beyond it', ({ amqp, run, rows }) => {
    const broker = amqp('            o', {}, { arrivals: 'abc' })
    run(sourceFrom(broker).pipe(answering({ a: [5, released(false)], b: [9, accepted] })))
    rows([broker.given, '            abc 52ms (ab)'], [broker.accepted, '         -----c 50ms (ab)'])
  })
  marbles('never destroys what is rejected: it comes again', ({ amqp, run, rows, flush }) => {
    const counts = newCounts()
    const broker = amqp('            o', {}, { arrivals: 'ab' })
    run(sourceFrom(broker, { counts }).pipe(answering({ b: [3, rejected('no', 'test')] })))
    rows([broker.given, '            ab 52ms b'], [broker.accepted, '         -a 53ms b'])
    flush()
    expect(counts).toMatchObject({ taken: 3, accepted: 2, rejected: 1 })
  })
  marbles('takes nothing after stop, and completes with the last settlement', ({ amqp, hot, run, rows, flush }) => {
    const broker = amqp('            o', {}, { arrivals: 'ab--c' })
    const out = run(sourceFrom(broker, { stop: hot('---s') }).pipe(settleAfter(6)))
    rows([broker.given, '            ab'], [broker.accepted, '         ------ab'], [out, 'ab-----|'])
    flush()
    expect([broker.holds(), broker.links()]).toEqual(['c', 0])
  })
  marbles('releases all when it is unsubscribed: what was accepted is acknowledged first, the rest stays in its order', ({ amqp, run, rows, flush }) => {
    const broker = amqp('            o', {}, { arrivals: 'abcd' })
    run(sourceFrom(broker).pipe(answering({ a: [99, accepted], b: [1, accepted], c: [99, accepted] })), '-----!')
    rows([broker.given, '            abcd'], [broker.accepted, '         -----(bd)'])
    flush()
    expect([broker.holds(), broker.links()]).toEqual(['ac', 0])
  })
  marbles('heals what the broker does to it, whatever comes: nothing is lost, and the order of the first time stands', ({ amqp, run, flush }) => {
    const first: string[] = []
    const broker = amqp('            o---c 60ms ! 200ms x 300ms o 99ms b', {}, { arrivals: 'ab 60ms c 200ms d 200ms ef' })
    run(sourceFrom(broker, { window: 3 }).pipe(map((delivery) => (first.includes(delivery.value.id) || first.push(delivery.value.id), delivery)), settleAfter(7)))
    flush()
    expect([first.join(''), broker.holds()]).toEqual(['abcdef', ''])
  })
})

describe('from one queue to another', () => {
  marbles('nothing is lost when both brokers go away in turn; each loss repeats what was out', ({ amqp, run, rows, flush }) => {
    const near = amqp('              o------x 300ms o', {}, { arrivals: 'abcd' })
    const far = amqp('               o---x 100ms o', { b: ['silent', 1], c: ['silent', 1] })
    run(sourceFrom(near).pipe(sinkTo(far)))
    rows([near.given, '              abcd 304ms (bcd)'], [far.writes, '                abcd 200ms (bcd) 99ms (bcd)'], [near.accepted, '           -a 307ms (bcd)'])
    flush()
    expect([near.holds(), far.holds()]).toEqual(['', 'abcdbcdbcd'])
  })
})
