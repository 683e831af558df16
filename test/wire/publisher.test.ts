import amqp from 'amqplib'
import { afterEach, expect, it } from 'vitest'
import { createPublisher } from '../../src/pipelines/publisher.js'
import { describeWire } from './brokers.js'
import { dropQueues, eventually, expectBalanced, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

await describeWire('createPublisher', ({ amqpUrl, pulsarUrl }) => {
  let { queue, topic } = ownNames()
  const daemons: Daemon[] = []
  afterEach(async () => {
    for (const daemon of daemons.splice(0)) {
      daemon.signal('SIGKILL')
      await daemon.ended
    }
    await dropQueues(amqpUrl, queue, `${queue}.dead`)
  })

  it('to amqp:// resolves when RabbitMQ has the enriched record, in the order of the calls', async () => {
    ;({ queue } = ownNames())
    const { publish, close } = createPublisher({ to: amqpUrl, queue, deviceId: 'cam-1', idField: 'CameraSerial' })
    const ids = await Promise.all(Array.from({ length: 500 }, (_, n) => publish({ n }, { properties: { site: 'north' } })))
    await close()
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createChannel()
    const there: string[] = []
    for (let next = await channel.get(queue, { noAck: true }); next !== false; next = await channel.get(queue, { noAck: true })) {
      there.push(String(next.properties.messageId))
      expect(next.content.toString()).toMatch(/^\{"n":\d+,"UploadedUTCDateTime":".*","CameraSerial":"cam-1"\}$/)
    }
    await connection.close()
    expect(there).toEqual(ids)
  })

  it('to http:// keeps the order, resolves with the daemon’s ids, and survives its restart without losing or doubling', async () => {
    ;({ queue, topic } = ownNames())
    const settings = { BACKHAUL_AMQP_URL: amqpUrl, BACKHAUL_PULSAR_URL: pulsarUrl, BACKHAUL_QUEUE: queue, BACKHAUL_PULSAR_TOPIC: topic, BACKHAUL_ROLES: 'ingest,forward' }
    const first = await startDaemon(settings)
    daemons.push(first)
    const { publish, close } = createPublisher({ to: first.url, timeoutMs: 30_000, window: 200 })
    const published: Promise<string>[] = []
    for (let n = 0; n < 500; n += 1) published.push(publish({ n }))
    await Promise.all(published.slice(0, 200))
    expect(await first.stop()).toBe(0)
    for (let n = 500; n < 1000; n += 1) published.push(publish({ n }))
    daemons.push(await startDaemon({ ...settings, BACKHAUL_HTTP_PORT: new URL(first.url).port }))
    const ids = await Promise.all(published)
    await close()
    expect(new Set(ids).size).toBe(1000)
    const arrived = await readTopic(pulsarUrl, topic, { until: (all) => all.some(({ properties }) => properties['messageId'] === ids[999]), deadlineMs: 30_000 })
    const order = [...new Set(arrived.map(({ properties }) => properties['messageId']))]
    expect(order).toEqual(ids)
    await eventually('nothing is left', async () => (await (daemons.at(-1) as Daemon).metric('backhaul_queued_messages', `queue="${queue}"`)) === 0)
    await expectBalanced(daemons.at(-1) as Daemon, 'ingest', 'forward')
  }, 90_000)
})
