import { afterEach, beforeAll, expect, it } from 'vitest'
import { describeFaults } from './brokers.js'
import { booksOf, eventually, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

describeFaults('brokers that start late, die and come back', (own) => {
  let daemon: Daemon | undefined
  afterEach(async () => {
    daemon?.signal('SIGKILL')
    await daemon?.ended
    daemon = undefined
  })
  const start = async () => {
    const { queue, topic } = ownNames()
    const it = (daemon = await startDaemon({
      BACKHAUL_AMQP_URL: own.amqpUrl,
      BACKHAUL_PULSAR_URL: own.pulsarUrl,
      BACKHAUL_QUEUE: queue,
      BACKHAUL_PULSAR_TOPIC: topic,
      BACKHAUL_ROLES: 'ingest,forward',
    }))
    return { it, queue, topic }
  }
  const ready = (it: Daemon) => eventually('ready', async () => (await it.get('/readyz')).status === 200, 90_000)

  /** Posts numbered batches one after the other until told to stop; keeps what was accepted, in order. */
  const sender = (it: Daemon) => {
    const accepted: string[] = []
    const unknown: string[] = []
    const refused: number[] = []
    let going = true
    const run = async () => {
      for (let i = 0; going; i += 1) {
        const key = `b${i}-${it.pid}`
        const body = `[${Array.from({ length: 20 }, (_, k) => `{"i":${i},"k":${k}}`).join()}]`
        const reply = await it.post(body, { 'content-type': 'application/json', 'idempotency-key': key })
        if (reply.status !== 202) refused.push(reply.status)
        if (reply.status === 202) accepted.push(...(reply.body.ids ?? []))
        else if (reply.status === 504) unknown.push(...(reply.body.ids ?? []))
        else {
          for (const { status, id } of reply.body.results ?? []) (status === 'accepted' ? accepted : unknown).push(id as string)
          if (reply.status !== 207) await new Promise((resolve) => setTimeout(resolve, 20))
        }
      }
    }
    const running = run()
    return { accepted, unknown, refused, stop: () => ((going = false), running) }
  }
  /** All that was accepted is there, in the order of acceptance by first occurrence, and the books balance. */
  const judge = async (it: Daemon, queue: string, topic: string, accepted: readonly string[]) => {
    const { body } = await eventually('the last one', async () => {
      const reply = await it.post('{"last":true}')
      return reply.status === 202 && reply
    })
    const arrived = await readTopic(own.pulsarUrl, topic, {
      until: (messages) => messages.at(-1)?.properties['messageId'] === body.id,
      deadlineMs: 60_000,
    })
    const ids = [...new Set(arrived.map(({ properties }) => properties['messageId'] as string))]
    const there = new Set(ids)
    expect(accepted.filter((id) => !there.has(id)), 'lost').toEqual([])
    const expected = new Set(accepted)
    expect(ids.filter((id) => expected.has(id)), 'order of first deliveries').toEqual(accepted)
    const books = await eventually('the books balance', async () => {
      const now = await booksOf(it, queue)
      return now.queued === 0 && now.spooled === 0 && now
    })
    return { doubled: arrived.length - ids.length, books }
  }

  beforeAll(async () => {
    await own.start()
    await own.stop()
  }, 180_000)

  it('the daemon waits for brokers that start later, keeps in the spool what comes until then, and needs no hand', async () => {
    const { it, queue, topic } = await start()
    const early = await eventually('the spool is open', async () => {
      const reply = await it.post('{"early":true}')
      return reply.status === 202 && reply
    })
    expect(await booksOf(it, queue)).toMatchObject({ accepted: 1, spooled: 1, delivered: 0 })
    const readiness = await it.get('/readyz')
    expect(readiness.status, 'it accepts, and cannot deliver').toBe(503)
    expect(await readiness.json()).toMatchObject({ accept: { ready: true }, deliver: { ready: false, reasons: [/^pulsar: /, /^rabbitmq-consume: /].map((reason) => expect.stringMatching(reason) as string) } })
    await own.start()
    await ready(it)
    const { doubled, books } = await judge(it, queue, topic, [early.body.id as string])
    expect(doubled).toBe(0)
    expect(books).toMatchObject({ accepted: 2, delivered: 2 })
  }, 180_000)

  it('RabbitMQ killed and started again under load: the spool takes over, senders hear no refusal, order holds', async () => {
    const { it, queue, topic } = await start()
    await ready(it)
    await own.remember()
    const load = sender(it)
    await eventually('load', () => load.accepted.length > 1000)
    await own.kill('rabbitmq')
    await eventually('the spool takes what comes', async () => (await it.metric('backhaul_spooled_messages')) > 1000, 60_000)
    await own.start('rabbitmq')
    await eventually('the spool is empty again', async () => (await it.metric('backhaul_spooled_messages')) === 0, 60_000)
    const before = load.accepted.length
    await eventually('and goes on', () => load.accepted.length > before + 1000, 60_000)
    await load.stop()
    expect(load.refused, 'a 202 for each').toEqual([])
    const { doubled } = await judge(it, queue, topic, load.accepted)
    expect(doubled, 'at most the windows').toBeLessThanOrEqual(2000)
  }, 180_000)

  it('RabbitMQ frozen: the confirm time-out brings the spool in, and it drains when it thaws', async () => {
    const { it, queue, topic } = await start()
    await ready(it)
    const load = sender(it)
    await eventually('load', () => load.accepted.length > 500)
    await own.freeze('rabbitmq')
    const before = load.accepted.length
    await eventually('the spool takes what comes', async () => (await it.metric('backhaul_spooled_messages')) > 0 && load.accepted.length > before + 100, 10_000)
    await own.thaw('rabbitmq')
    await eventually('the spool is empty again', async () => (await it.metric('backhaul_spooled_messages')) === 0, 60_000)
    await load.stop()
    expect(load.refused, 'a 202 for each').toEqual([])
    await judge(it, queue, topic, load.accepted)
  }, 180_000)

  it('Pulsar killed and started again under load: ingest goes on, nothing is lost, order holds', async () => {
    const { it, queue, topic } = await start()
    await ready(it)
    const load = sender(it)
    await eventually('load', async () => load.accepted.length > 1000 && (await it.metric('backhaul_delivered_total')) > 500)
    await own.kill('pulsar')
    const before = load.accepted.length
    await eventually('still accepts', () => load.accepted.length > before + 500)
    await load.stop()
    await own.start('pulsar')
    await ready(it)
    const { doubled } = await judge(it, queue, topic, load.accepted)
    expect(doubled, 'at most the window').toBeLessThanOrEqual(1000)
    expect(await it.stop()).toBe(0)
  }, 240_000)
})
