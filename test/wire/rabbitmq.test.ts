import amqp from 'amqplib'
import type { ChannelModel, ConfirmChannel } from 'amqplib'
import { count, defer, filter, firstValueFrom, from, lastValueFrom, map, Subject, tap } from 'rxjs'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { openAmqp } from '../../src/connections/amqp-client.js'
import type { OpenAmqp } from '../../src/connections/amqp-port.js'
import type { AmqpState } from '../../src/connections/amqp-queue.js'
import { amqpReader } from '../../src/connections/amqp-reader.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { accepted, released } from '../../src/delivery.js'
import type { Delivery } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import type { Message } from '../../src/message.js'
import { rabbitmqSink } from '../../src/sinks/rabbitmq.js'
import { rabbitmqSource } from '../../src/sources/rabbitmq.js'
import { describeFaults, describeWire } from './brokers.js'
import { eventually, ownNames } from './daemon-process.js'

const message = (n: number): Message => ({ id: `m${n}`, body: Buffer.from(`{"n": ${n}}`), properties: { site: 'north' }, digest: `d${n}` })

/** Gives deliveries by hand, and keeps what was settled. */
const feed = () => {
  const deliveries = new Subject<Delivery<Message>>()
  const settled: string[] = []
  const give = (...numbers: readonly number[]): void =>
    numbers.forEach((n) => deliveries.next({ value: message(n), settle: ({ kind }) => settled.push(`${kind} m${n}`) }))
  return { deliveries, settled, give, acceptedCount: () => settled.filter((line) => line.startsWith('accepted')).length }
}
/** The arguments of a queue that Backhaul makes, by RabbitMQ's version. */
const madeWith = ({ connection }: ChannelModel): Record<string, unknown> =>
  Number.parseInt(connection.serverProperties.version, 10) >= 4 ? { 'x-queue-type': 'quorum', 'x-delivery-limit': -1 } : {}
const range = (from_: number, to: number): number[] => Array.from({ length: to - from_ }, (_, i) => from_ + i)

await describeWire('RabbitMQ', ({ amqpUrl }) => {
  let connection: ChannelModel
  let channel: ConfirmChannel
  const queues: string[] = []
  const ownQueue = (): string => {
    const { queue } = ownNames()
    queues.push(queue)
    return queue
  }
  beforeAll(async () => {
    connection = await amqp.connect(amqpUrl)
    channel = await connection.createConfirmChannel()
  })
  afterAll(async () => {
    for (const queue of queues) await channel.deleteQueue(queue)
    await connection.close()
  })
  const fill = async (queue: string, size: number): Promise<void> => {
    for (const n of range(0, size)) channel.sendToQueue(queue, message(n).body, { deliveryMode: 2, messageId: `m${n}` })
    await channel.waitForConfirms()
  }
  /** On a channel of its own: a queue that is not there costs it. */
  const depth = async (queue: string): Promise<number> => {
    const own = await connection.createChannel()
    own.on('error', () => undefined)
    const { messageCount } = await own.checkQueue(queue)
    await own.close()
    return messageCount
  }

  it('gets a missing queue made, durable, on RabbitMQ 4 a quorum queue without a limit, and messages that any AMQP program can read', async () => {
    const queue = ownQueue()
    await lastValueFrom(from([message(1)]).pipe(map((value) => ({ value, settle: () => undefined })), rabbitmqSink(amqpWriter({ urls: [amqpUrl], queue }))))
    const plain = await channel.get(queue)
    if (plain === false) throw new Error('nothing there')
    expect(plain.content.toString()).toBe('{"n": 1}')
    expect(plain.properties).toMatchObject({ deliveryMode: 2, messageId: 'm1', contentType: 'application/json', appId: 'backhaul', headers: { site: 'north', 'backhaul-digest': 'd1' } })
    expect(Math.abs(Number(plain.properties.timestamp) - Date.now() / 1000)).toBeLessThan(60)
    channel.ack(plain)
    const own = await connection.createChannel()
    own.on('error', () => undefined)
    await own.assertQueue(queue, { durable: true, arguments: madeWith(connection) }) // closes the channel if its arguments are others
    await own.close()
  })

  it('an existing queue with other arguments is used as it is', async () => {
    const queue = ownQueue()
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-max-length': 50_000, 'x-queue-mode': 'lazy' } })
    const { deliveries, give, acceptedCount } = feed()
    const running = deliveries.pipe(rabbitmqSink(amqpWriter({ urls: [amqpUrl], queue }))).subscribe()
    give(...range(0, 100))
    await eventually('all accepted', () => acceptedCount() === 100)
    running.unsubscribe()
    expect(await depth(queue)).toBe(100)
  })

  it('20,000 go in and come out in order, never more than the window outside, each acknowledged', async () => {
    const queue = ownQueue()
    const size = 20_000
    await lastValueFrom(from(range(0, size)).pipe(map((n) => ({ value: message(n), settle: () => undefined })), rabbitmqSink(amqpWriter({ urls: [amqpUrl], queue })), count()))
    const stop = new Subject<void>()
    const counts = newCounts()
    const seen: Message[] = []
    let most = 0
    const waiting: Delivery<Message>[] = []
    await lastValueFrom(
      rabbitmqSource(amqpReader({ urls: [amqpUrl] }).channels({ queue }), { window: 50, stop, counts }).pipe(
        tap((delivery) => {
          seen.push(delivery.value)
          waiting.push(delivery)
          most = Math.max(most, counts.unsettled)
          // Out of order, some later than others: only the contiguous prefix may be acknowledged.
          if (waiting.length === 25 || seen.length === size) waiting.splice(0).reverse().forEach(({ settle }) => settle(accepted))
          if (seen.length === size) stop.next()
        }),
      ),
    )
    expect(seen.map(({ id }) => id)).toEqual(range(0, size).map((n) => `m${n}`))
    expect(seen[7]).toMatchObject({ body: Buffer.from('{"n": 7}'), properties: { site: 'north' }, digest: 'd7', redelivered: false })
    expect(most).toBeLessThanOrEqual(50)
    expect(counts).toMatchObject({ taken: size, accepted: size, released: 0, stale: 0 })
    await eventually('empty', async () => (await depth(queue)) === 0)
  })

  it('a queue that is deleted under load: what was not routed is not accepted, and the queue is made anew', async () => {
    const queue = ownQueue()
    const { deliveries, give, acceptedCount } = feed()
    const running = deliveries.pipe(rabbitmqSink(amqpWriter({ urls: [amqpUrl], queue }), { window: 100 })).subscribe()
    give(...range(0, 200))
    await eventually('accepted', () => acceptedCount() === 200)
    const { messageCount } = await channel.deleteQueue(queue)
    give(...range(200, 1200))
    await eventually('accepted into the new queue', () => acceptedCount() === 1200, 5000)
    running.unsubscribe()
    expect(messageCount).toBe(200)
    expect(await depth(queue), 'every yes after the deletion is in the new queue').toBeGreaterThanOrEqual(1000)
  })

  it('a queue that refuses: never counted as accepted', async () => {
    const queue = ownQueue()
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-max-length': 10, 'x-overflow': 'reject-publish' } })
    const { deliveries, give, acceptedCount } = feed()
    const lost: string[] = []
    const running = deliveries.pipe(rabbitmqSink(amqpWriter({ urls: [amqpUrl], queue, onState: (state) => state.kind === 'lost' && lost.push(String(state.error)) }))).subscribe()
    give(...range(0, 30))
    await eventually('refused', () => lost.some((text) => text.includes('refused')), 5000)
    expect(acceptedCount()).toBeLessThanOrEqual(await depth(queue))
    running.unsubscribe()
  })

  it('a released delivery comes again, with everything after it, in order; what was accepted does not', async () => {
    const queue = ownQueue()
    await channel.assertQueue(queue, { durable: true })
    await fill(queue, 100)
    const stop = new Subject<void>()
    const counts = newCounts()
    const order: string[] = []
    let refused = false
    await lastValueFrom(
      rabbitmqSource(amqpReader({ urls: [amqpUrl] }).channels({ queue }), { window: 20, stop, counts }).pipe(
        tap(({ value: { id }, settle }) => {
          if (id === 'm30' && !refused) {
            refused = true
            settle(released(false))
          } else {
            order.push(id)
            settle(accepted)
          }
          if (id === 'm99') stop.next()
        }),
      ),
    )
    expect([...new Set(order)], 'first come, first served').toEqual(range(0, 100).map((n) => `m${n}`))
    await eventually('empty', async () => (await depth(queue)) === 0)
    expect(counts.taken).toBe(counts.accepted + counts.rejected + counts.released + counts.unsettled)
  })

  it.each(['classic', 'quorum'])('takes nothing before an earlier consumer is gone: what that one was given comes first, %s queue', async (type) => {
    const queue = ownQueue()
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': type } })
    await fill(queue, 30)
    const earlier = await amqp.connect(amqpUrl)
    onTestFinished(() => earlier.close().catch(() => undefined))
    const held: string[] = []
    const theirs = await earlier.createChannel()
    await theirs.prefetch(10)
    await theirs.consume(queue, (given) => held.push(String(given?.properties.messageId)))
    await eventually('the earlier one holds ten', () => held.length === 10)
    let asked = 0
    const counting: OpenAmqp = (url, options) =>
      openAmqp(url, options).pipe(
        map((link) => ({
          ...link,
          channel: (how) => link.channel(how).pipe(map((open) => ({ ...open, check: (name) => defer(() => ((asked += 1), open.check(name))) }))),
        })),
      )
    const seen: string[] = []
    const running = rabbitmqSource(amqpReader({ urls: [amqpUrl], open: counting }).channels({ queue })).subscribe(({ value, settle }) => {
      seen.push(value.id)
      settle(accepted)
    })
    onTestFinished(() => running.unsubscribe())
    await eventually('it has asked some times, or has begun', () => asked > 5 || seen.length > 0)
    await earlier.close()
    await eventually('all of them', () => seen.length >= 30)
    expect(seen).toEqual(range(0, 30).map((n) => `m${n}`))
  })

  it('a consumer that the broker cancels is healed', async () => {
    const queue = ownQueue()
    await channel.assertQueue(queue, { durable: true })
    await fill(queue, 5)
    const seen: string[] = []
    const running = rabbitmqSource(amqpReader({ urls: [amqpUrl] }).channels({ queue })).subscribe(({ value, settle }) => {
      seen.push(value.id)
      settle(accepted)
    })
    await eventually('five', () => seen.length === 5)
    await channel.deleteQueue(queue)
    await eventually('made anew', () => channel.assertQueue(queue, { durable: true }).then(() => true), 5000)
    await fill(queue, 5)
    await eventually('five more', () => seen.length === 10, 10_000)
    running.unsubscribe()
  })

  it('stopped under load, it leaves nothing that comes twice', async () => {
    const queue = ownQueue()
    await channel.assertQueue(queue, { durable: true })
    await fill(queue, 2000)
    const stop = new Subject<void>()
    const seen: string[] = []
    await lastValueFrom(
      rabbitmqSource(amqpReader({ urls: [amqpUrl] }).channels({ queue }), { window: 100, stop }).pipe(
        tap(({ value, settle }) => {
          seen.push(value.id)
          settle(accepted)
          if (seen.length === 700) stop.next()
        }),
      ),
    )
    await eventually('the rest is ready again', async () => (await depth(queue)) === 2000 - seen.length, 5000)
    const next = await channel.get(queue, { noAck: true })
    expect(next !== false && next.properties.messageId).toBe(`m${seen.length}`)
  })

  it('never tells a password', async () => {
    const url = new URL(amqpUrl)
    url.username = 'nobody'
    url.password = 'hunter2'
    const states: string[] = []
    const running = amqpReader({ urls: [url.href], onState: (state: AmqpState) => states.push(JSON.stringify(state, (_, value: unknown) => (value instanceof Error ? `${value.message} ${value.stack}` : value))) })
      .channels({ queue: 'x' })
      .subscribe()
    await eventually('refused', () => states.length > 0)
    running.unsubscribe()
    expect(states.join()).toMatch(/ACCESS_REFUSED|403/)
    expect(states.join()).not.toContain('hunter2')
  })
})

describeFaults('RabbitMQ with alarms', (own) => {
  beforeAll(() => own.start('rabbitmq'), 120_000)

  it('blocks publishers: nothing is sent meanwhile, nothing is lost or doubled, and it goes on', async () => {
    const queue = 'alarmed'
    const { deliveries, give, acceptedCount } = feed()
    const states: string[] = []
    const writer = amqpWriter({ urls: [own.amqpUrl], queue, onState: ({ kind }) => states.push(kind) })
    const running = deliveries.pipe(rabbitmqSink(writer, { window: 50 })).subscribe()
    await firstValueFrom(writer.pipe(filter((opened) => opened !== undefined)))
    give(...range(0, 10))
    await eventually('ten', () => acceptedCount() === 10)
    await own.rabbitmqctl('set_vm_memory_high_watermark', 'absolute', '1MB')
    give(...range(10, 500))
    await eventually('blocked', () => states.includes('blocked'), 20_000)
    const before = acceptedCount()
    await own.rabbitmqctl('set_vm_memory_high_watermark', '0.6')
    await eventually('all of them', () => acceptedCount() === 500, 20_000)
    expect(before).toBeLessThan(500)
    expect(await firstValueFrom(amqpReader({ urls: [own.amqpUrl] }).depth(queue)), 'none doubled').toBe(500)
    expect(states.filter((kind) => kind === 'lost')).toEqual([])
    running.unsubscribe()
  }, 90_000)

  it('closes the channel on what is larger than its max_message_size: that one is rejected, and its neighbours arrive', async () => {
    const queue = 'small'
    const { deliveries, settled, give } = feed()
    await own.rabbitmqctl('eval', 'application:set_env(rabbit, max_message_size, 100000).')
    onTestFinished(async () => void (await own.rabbitmqctl('eval', 'application:unset_env(rabbit, max_message_size).')))
    const running = deliveries.pipe(rabbitmqSink(amqpWriter({ urls: [own.amqpUrl], queue }))).subscribe()
    give(0)
    deliveries.next({ value: { ...message(1), body: Buffer.alloc(200_000, 'x') }, settle: (outcome) => settled.push(outcome.kind === 'rejected' ? `rejected: ${outcome.reason}` : outcome.kind) })
    give(2)
    await eventually('all answered', () => settled.length === 3)
    expect([...settled].sort()).toEqual(['accepted m0', 'accepted m2', 'rejected: larger than the 100000 bytes that RabbitMQ takes'])
    running.unsubscribe()
  }, 30_000)

  it('connections that the broker closes under load: nothing is lost, first deliveries keep their order', async () => {
    const queue = 'closed'
    const { deliveries, give, acceptedCount } = feed()
    const reasons: string[] = []
    const onState = (state: AmqpState): unknown => state.kind === 'lost' && reasons.push(String(state.error))
    const running = deliveries.pipe(rabbitmqSink(amqpWriter({ urls: [own.amqpUrl], queue, onState }), { window: 100 })).subscribe()
    const seen: string[] = []
    running.add(
      rabbitmqSource(amqpReader({ urls: [own.amqpUrl] }).channels({ queue }), { window: 100 }).subscribe(({ value, settle }) => {
        seen.push(value.id)
        setImmediate(() => settle(accepted))
      }),
    )
    for (let round = 0; round < 3; round += 1) {
      give(...range(round * 2000, (round + 1) * 2000))
      await eventually('some', () => seen.length > round * 2000 + 200)
      await own.rabbitmqctl('close_all_connections', 'a test')
    }
    await eventually('all accepted', () => acceptedCount() === 6000, 30_000)
    await eventually('all seen', () => new Set(seen).size === 6000, 30_000)
    running.unsubscribe()
    expect(reasons.length).toBeGreaterThan(2)
    for (const reason of reasons) expect(reason).toMatch(/CONNECTION_FORCED - a test/)
    expect([...new Set(seen)]).toEqual(range(0, 6000).map((n) => `m${n}`))
  }, 90_000)
})

describeFaults('RabbitMQ that freezes and dies', (own) => {
  beforeAll(() => own.start('rabbitmq'), 120_000)

  it('killed and started again, its quorum queue gives what a consumer held before what lies behind it', async () => {
    const queue = 'held'
    const connection = await amqp.connect(own.amqpUrl)
    connection.on('error', () => undefined)
    const channel = await connection.createConfirmChannel()
    channel.on('error', () => undefined)
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
    for (const n of range(0, 2000)) channel.sendToQueue(queue, message(n).body, { deliveryMode: 2, messageId: `m${n}` })
    await channel.waitForConfirms()
    let held = 0
    await channel.prefetch(600)
    await channel.consume(queue, () => (held += 1))
    await eventually('600 are held', () => held === 600)
    await own.remember()
    await own.kill('rabbitmq')
    const started = own.start('rabbitmq')
    // As soon as it can be reached: then the queue does not know yet that its consumer is dead.
    await eventually('it can be reached', () => amqp.connect(own.amqpUrl).then((open) => open.close().then(() => true), () => false), 60_000)
    const seen: string[] = []
    const running = rabbitmqSource(amqpReader({ urls: [own.amqpUrl] }).channels({ queue, queueType: 'quorum' })).subscribe(({ value, settle }) => {
      seen.push(value.id)
      settle(accepted)
    })
    onTestFinished(() => running.unsubscribe())
    await eventually('all of them', () => seen.length >= 2000, 30_000)
    await started
    expect(seen).toEqual(range(0, 2000).map((n) => `m${n}`))
  }, 120_000)

  it('frozen, it is given up by our own confirm time-out; thawed, it gets everything again, in order', async () => {
    const queue = 'frozen'
    const { deliveries, give, acceptedCount } = feed()
    const lost: string[] = []
    const writer = amqpWriter({ urls: [own.amqpUrl], queue, confirmTimeoutMs: 300, connectTimeoutMs: 1000, onState: (state) => state.kind === 'lost' && lost.push(String(state.error)) })
    const running = deliveries.pipe(rabbitmqSink(writer)).subscribe()
    give(...range(0, 10))
    await eventually('ten', () => acceptedCount() === 10)
    await own.freeze('rabbitmq')
    give(...range(10, 20))
    // Three heartbeats would be 30 s.
    await eventually('given up', () => lost.some((text) => text.includes('no confirm')), 5000).finally(() => own.thaw('rabbitmq'))
    await eventually('all accepted', () => acceptedCount() === 20)
    running.unsubscribe()
    const seen: string[] = []
    const reading = rabbitmqSource(amqpReader({ urls: [own.amqpUrl] }).channels({ queue })).subscribe(({ value, settle }) => {
      seen.push(value.id)
      settle(accepted)
    })
    await eventually('all seen', () => new Set(seen).size === 20)
    reading.unsubscribe()
    expect([...new Set(seen)]).toEqual(range(0, 20).map((n) => `m${n}`))
  }, 90_000)

  it('killed and started again, it has everything that was accepted', async () => {
    const queue = 'killed'
    const { deliveries, give, acceptedCount } = feed()
    const running = deliveries.pipe(rabbitmqSink(amqpWriter({ urls: [own.amqpUrl], queue }))).subscribe()
    give(...range(0, 1))
    await eventually('declared', () => acceptedCount() === 1)
    await own.remember()
    give(...range(1, 100))
    await eventually('all accepted', () => acceptedCount() === 100)
    running.unsubscribe()
    await own.kill('rabbitmq')
    await own.start('rabbitmq')
    // A quorum queue tells for a moment what it had when its last snapshot was made.
    await eventually('all of them', async () => (await firstValueFrom(amqpReader({ urls: [own.amqpUrl] }).depth(queue))) === 100)
  }, 90_000)
})
