/** The guarantees where other systems lose at-least-once: one message, and everything that can be done to it. */
import { filter, map, mergeMap, pipe, Subject, takeUntil, tap, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { amqpReader } from '../../src/connections/amqp-reader.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { accepted, rejected } from '../../src/delivery.js'
import type { Delivery, Sink } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import type { Message } from '../../src/message.js'
import { batch } from '../../src/operators/batch.js'
import { deliver } from '../../src/operators/deliver.js'
import { each } from '../../src/operators/each.js'
import { fanOut } from '../../src/operators/fan-out.js'
import { rescue } from '../../src/operators/rescue.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { rabbitmqSink } from '../../src/sinks/rabbitmq.js'
import { rabbitmqSource } from '../../src/sources/rabbitmq.js'
import { marbles as play } from '../../src/testing.js'
import type { Marbles, ScriptedAmqp } from '../../src/testing.js'
import { marbles } from './marbles.js'

const to = (m: Marbles, row: string, plans: Parameters<Marbles['far']>[1] = {}): Sink<string> => deliver(m.far(row, plans).connection, { sink: 'far', retryMs: 2 })

describe('several effects per message', () => {
  marbles('settle it once, after the last of them', (m) => {
    const { deliveries, settled } = m.source('a')
    m.run(deliveries.pipe(each(() => ['1', '2', '3']), to(m, 'w', { 1: 5, 2: 9, 3: 2 })))
    m.rows([settled, '---------a'])
  })
  marbles('settle it once, after the last of them, in every sink', (m) => {
    const { deliveries, settled } = m.source('a')
    m.run(deliveries.pipe(each(() => ['1', '2']), fanOut(to(m, 'w', { 1: 2, 2: 3 }), to(m, '----w', { 1: 4, 2: 1 }))))
    m.rows([settled, '--------a'])
  })
  marbles('reject it when one is refused, and the others have taken place', (m) => {
    const { deliveries, settled } = m.source('a')
    const far = m.far('w', { 1: 2, 2: 'refused', 3: 4 })
    m.run(deliveries.pipe(each(() => ['1', '2', '3']), deliver(far.connection, { sink: 'far' })))
    m.rows([settled, '----A'])
    m.flush()
    expect(far.confirmed).toEqual(['1', '3'])
  })
})

describe('batch then split', () => {
  marbles('settles the whole batch after its last part: what was joined is answered as one', (m) => {
    const { deliveries, settled } = m.source('abc')
    m.run(deliveries.pipe(batch(3, 9), each((parts) => parts), to(m, 'w', { a: 1, b: 6, c: 2 })))
    m.rows([settled, '--------(abc)'])
  })
  marbles('rejects the whole batch when one part of it is refused', (m) => {
    const { deliveries, settled } = m.source('abc')
    m.run(deliveries.pipe(batch(3, 9), each((parts) => parts), to(m, 'w', { b: 'refused' })))
    m.rows([settled, '---(ABC)'])
  })
})

describe('one branch slow and one failing', () => {
  marbles('is answered when both have said their last, with the worse of the two', (m) => {
    const { deliveries, settled } = m.source('ab')
    const [slow, failing] = [m.far('w', { a: 7, b: 7 }), m.far('w', { a: 'refused', b: ['failed', 'failed', 1] })]
    m.run(deliveries.pipe(fanOut(deliver(slow.connection, { sink: 'slow' }), deliver(failing.connection, { sink: 'failing', retryMs: 2 }))))
    m.rows([slow.writes, 'ab'], [failing.writes, 'ab-b-b'], [settled, '-------Ab'])
  })
  marbles('keeps what was refused, and accepts it only when the dead letters and the slow one have it', (m) => {
    const { deliveries, settled } = m.source('a')
    const dead = m.far<DeadLetter<string>>('---------w')
    const sinks = fanOut(to(m, 'w', { a: 7 }), to(m, 'w', { a: 'refused' }))
    m.run(deliveries.pipe(rescue(sinks, deliver(dead.connection, { sink: 'dead' }))))
    m.rows([dead.writes, '---------a'], [settled, '----------a'])
  })
})

describe('reordering by concurrency', () => {
  marbles('cannot happen in each: the next step begins when this one has completed', (m) => {
    const { deliveries, settled } = m.source('abc')
    const far = m.far('w')
    const wait: Record<string, number> = { a: 5, b: 1, c: 1 }
    m.run(deliveries.pipe(each((value) => timer(wait[value] as number).pipe(map(() => value))), deliver(far.connection, { sink: 'far' })))
    m.rows([far.writes, '-----abc'], [settled, '------abc'])
  })
  marbles('does not reach the far end when its confirms come in another order', (m) => {
    const { deliveries, settled } = m.source('abc')
    const far = m.far('w', { a: 9, b: 4, c: 1 })
    m.run(deliveries.pipe(deliver(far.connection, { sink: 'far' })))
    m.rows([far.writes, 'abc'], [settled, '---c-b---a'])
  })
  marbles('is what mergeMap on deliveries does, which is why nobody here uses it', (m) => {
    const { deliveries } = m.source('abc')
    const far = m.far('w')
    const wait: Record<string, number> = { a: 5, b: 1, c: 1 }
    const concurrent = mergeMap((delivery: Delivery<string>) => timer(wait[delivery.value] as number).pipe(map(() => delivery)))
    m.run(deliveries.pipe(concurrent, deliver(far.connection, { sink: 'far' })))
    m.rows([far.writes, '--bc-a'])
  })
})

describe('dropping by a filter', () => {
  marbles('inside each accepts what is dropped, and counts it', (m) => {
    const dropped: string[] = []
    const { deliveries, settled, counts } = m.source('a--b-c')
    m.run(deliveries.pipe(each((value) => (value === 'b' ? [] : [value]), { filtered: (value) => dropped.push(value) }), to(m, 'w')))
    m.rows([settled, '-a-b--c'])
    m.flush()
    expect([dropped, counts.accepted]).toEqual([['b'], 3])
  })
  it('by filter on deliveries forgets them, and the kit names each', () => {
    const forgetful = (m: Marbles) => {
      const { deliveries } = m.source('abc')
      m.run(deliveries.pipe(filter(({ value }) => value !== 'b'), to(m, 'w')))
    }
    expect(() => play(forgetful)).toThrow('b is unsettled: given by source at 1 ms; seen by no far end')
  })
})

describe('reconnect with deliveries in flight', () => {
  for (const lost of [1, 2, 3, 4, 5, 6, 7, 8])
    marbles(`lost at ${lost}: everything unconfirmed is written again, in order, before anything new, and accepted once`, (m) => {
      const { deliveries, counts } = m.source('abc-d-e')
      const far = m.far(`w${'-'.repeat(lost - 1)}x---v`, { a: [4, 1], b: [2, 3], c: [5, 2], d: [3, 1] })
      const seen: string[] = []
      far.writes.subscribe((letter) => seen.push(letter))
      m.run(deliveries.pipe(deliver(far.connection, { sink: 'far' })))
      m.flush()
      const again = seen.slice(seen.findIndex((letter, i) => seen.indexOf(letter) < i))
      expect(far.first.join('')).toBe('abcde')
      expect([...again].sort(), 'in order').toEqual(again)
      expect(counts).toMatchObject({ taken: 5, accepted: 5, stale: 0 })
    })
})

describe('settled twice', () => {
  marbles('counts once: the second answer changes nothing, is counted, and the timeline tells of it', (m) => {
    const counts = newCounts()
    const { deliveries, settled } = m.source('ab', { counts })
    m.run(deliveries.pipe(map(({ value, settle }) => (settle(accepted), settle(rejected('late', 'test')), value))))
    m.rows([settled, 'ab'])
    m.flush()
    expect(counts).toMatchObject({ taken: 2, accepted: 2, rejected: 0, stale: 2 })
    expect(m.timeline()).toContain('a is answered again (rejected), which changes nothing')
  })
})

const urls = ['amqp://scripted']
const read = ({ open }: ScriptedAmqp, options: Parameters<typeof rabbitmqSource>[1]) => rabbitmqSource(amqpReader({ urls, open }).channels({ queue: 'queue' }), options)
const write = ({ open }: ScriptedAmqp) => rabbitmqSink(amqpWriter({ urls, queue: 'queue', open }))

describe('settled after the channel is gone', () => {
  marbles('is not sent, is counted, and the message comes again', (m) => {
    const counts = newCounts()
    const broker = m.amqp('o--c', {}, { arrivals: 'a' })
    const late = map(({ value, settle }: Delivery<Message>) => (timer(9).subscribe(() => settle(accepted)), value))
    m.run(read(broker, { counts }).pipe(late))
    m.rows([broker.given, 'a 52ms a'], [broker.accepted, '62ms a'])
    m.flush()
    expect(counts).toMatchObject({ taken: 2, accepted: 1, released: 1, stale: 1 })
  })
})

/** One message: comes into a queue at 2, is given, waits in a step until 5, is published, and confirmed at 8. */
const life = (m: Marbles, until: Observable<unknown>, stop: Observable<unknown>) => {
  const [near, far] = [m.amqp('o', {}, { arrivals: '--a' }), m.amqp('o', { a: 3 })]
  let completed = false
  const step = each((value: Message) => timer(3).pipe(map(() => value)))
  m.run(read(near, { stop }).pipe(pipe(step, write(far)), takeUntil(until), tap({ complete: () => (completed = true) })))
  return { near, far, completed: () => completed }
}

describe('shutdown at every point of one message’s life', () => {
  for (let at = 0; at <= 10; at += 1) {
    marbles(`cancelled at ${at}: it is in the queue, or the far end has it, and everything is closed`, (m) => {
      const { near, far } = life(m, timer(at), new Subject())
      m.flush()
      expect(near.holds() + far.holds(), 'somewhere').toContain('a')
      expect(near.holds(), 'gone from the queue only when confirmed').toBe(at > 8 ? '' : 'a')
      expect(far.holds()).toBe(at > 5 ? 'a' : '')
      expect([near.links(), far.links()]).toEqual([0, 0])
    })
    marbles(`stopped at ${at}: what is out is finished, nothing new is taken, and it completes`, (m) => {
      const { near, far, completed } = life(m, new Subject(), timer(at))
      m.flush()
      const taken = at > 1
      expect([near.holds(), far.holds()]).toEqual(taken ? ['', 'a'] : ['a', ''])
      expect(completed()).toBe(true)
    })
    marbles(`stopped at ${at}, with a deadline that comes before the confirm: it stays in the queue, and comes again`, (m) => {
      const { near, completed } = life(m, timer(Math.max(at, 6)), timer(at))
      m.flush()
      expect(near.holds()).toBe(at > 8 ? '' : 'a')
      expect(completed()).toBe(true)
    })
  }
})
