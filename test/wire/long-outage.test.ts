/** Forwarding without harm: a Pulsar that opens connections and confirms nothing must not use RabbitMQ's patience up. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import amqp from 'amqplib'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { WebSocketServer } from 'ws'
import { describeFaults } from './brokers.js'
import { booksOf, eventually, expectBooks, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'

/** RabbitMQ gives a consumer so long to acknowledge, and looks so often. */
const acknowledgeMs = 3000
const limit = 3

/** Pulsar's WebSocket API as far as a producer sees it: opens for everybody, and confirms when it is told to. */
const mutePulsar = async () => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  const stored: string[] = []
  let written = 0
  let confirms = false
  server.on('connection', (socket) =>
    socket.on('message', (data) => {
      const { context, properties } = JSON.parse((data as Buffer).toString()) as { context: string; properties: { messageId: string } }
      written += 1
      if (!confirms) return
      stored.push(properties.messageId)
      socket.send(JSON.stringify({ result: 'ok', messageId: `m${stored.length}`, context }))
    }),
  )
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stored,
    written: () => written,
    /** A new connection is given answers; the old ones end, as with a broker that was started anew. */
    heal: () => {
      confirms = true
      server.clients.forEach((client) => client.terminate())
    },
    /** Opens again, and confirms nothing still. */
    cut: () => server.clients.forEach((client) => client.terminate()),
    close: () => {
      server.clients.forEach((client) => client.terminate())
      server.close()
    },
  }
}

describeFaults('a long outage of Pulsar', (own) => {
  let daemon: Daemon | undefined
  let pulsar: Awaited<ReturnType<typeof mutePulsar>> | undefined
  let operator: Awaited<ReturnType<typeof amqp.connect>> | undefined
  beforeAll(async () => {
    await own.start('rabbitmq')
    await own.rabbitmqctl('eval', `application:set_env(rabbit, consumer_timeout, ${acknowledgeMs}), application:set_env(rabbit, channel_tick_interval, 1000).`)
    operator = await amqp.connect(own.amqpUrl)
  }, 120_000)
  afterEach(async () => {
    daemon?.signal('SIGKILL')
    await daemon?.ended
    pulsar?.close()
  })
  afterAll(() => operator?.close())

  /** A bare consumer that never answers; resolves when RabbitMQ has ended its channel for it. */
  const ranOut = async (): Promise<string> => {
    const channel = await (operator as NonNullable<typeof operator>).createConfirmChannel()
    const { queue } = await channel.assertQueue('', { exclusive: true })
    channel.sendToQueue(queue, Buffer.from('unanswered'))
    await channel.waitForConfirms()
    const ended = new Promise<string>((resolve) => channel.once('error', ({ message }: Error) => resolve(message)))
    await channel.consume(queue, () => undefined)
    return ended
  }
  /** How often RabbitMQ has ended a channel because an acknowledgement did not come. */
  const complaints = () => [...own.rabbitmqLog().matchAll(/precondition_failed: delivery acknowledgement/gi)].length
  const start = async (patienceMs: number) => {
    const { queue, topic } = ownNames()
    const channel = await (operator as NonNullable<typeof operator>).createChannel()
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': limit } })
    await channel.close()
    pulsar = await mutePulsar()
    const started = (daemon = await startDaemon({
      BACKHAUL_AMQP_URL: own.amqpUrl,
      BACKHAUL_PULSAR_URL: pulsar.url,
      BACKHAUL_QUEUE: queue,
      BACKHAUL_PULSAR_TOPIC: topic,
      BACKHAUL_ROLES: 'ingest,forward',
      BACKHAUL_PATIENCE_MS: String(patienceMs),
    }))
    const batch = `[${Array.from({ length: 50 }, (_, n) => `{"n":${n}}`).join()}]`
    const { body } = await eventually('accepted', async () => {
      const reply = await started.post(batch)
      return reply.status === 202 && reply
    })
    return { daemon: started, pulsar, queue, ids: body.ids ?? [] }
  }

  it('costs each message no more than one return, though Pulsar opens again and again, and nothing is lost', async () => {
    const it = await start(1000)
    await eventually('the window is out', () => it.pulsar.written() >= 50)
    // RabbitMQ's time-out passes twice for one who sits on a message, while we have been through it many times over.
    for (const tries of [1, 2]) {
      expect(await ranOut(), 'the time-out bites').toContain('acknowledgement')
      const before = it.pulsar.written()
      it.pulsar.cut()
      await eventually(`it was tried again (${tries})`, () => it.pulsar.written() > before, 60_000)
    }
    expect((await booksOf(it.daemon, it.queue)).delivered, 'nothing was confirmed').toBe(0)
    expect(complaints(), 'RabbitMQ has complained of the bare consumers only').toBe(2)
    it.pulsar.heal()
    await expectBooks(it.daemon, it.queue)
    expect([...new Set(it.pulsar.stored)]).toEqual(it.ids)
    expect(it.pulsar.stored, 'what Pulsar was tried with is known when it comes again').toHaveLength(50)
    expect(await it.daemon.metric('backhaul_repeats_dropped_total')).toBe(1)
    expect(await it.daemon.stop()).toBe(0)
  }, 180_000)

  it('with more patience than RabbitMQ has, the consumer is cut: the control', async () => {
    const it = await start(600_000)
    await eventually('the window is out', () => it.pulsar.written() >= 50)
    const before = complaints()
    await eventually('RabbitMQ has complained', () => complaints() > before, 60_000)
    await eventually('the daemon says so', () => it.daemon.said().includes('the consumer was ended') && it.daemon.said().includes('acknowledgement'))
    it.pulsar.heal()
    await eventually('the rest arrives', () => new Set(it.pulsar.stored).size === it.ids.length)
  }, 180_000)
})
