import amqp from 'amqplib'
import { amqpReader } from '../../src/connections/amqp-reader.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { pulsarWebSocketWriter } from '../../src/connections/pulsar-websocket.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'
import { rabbitmqSink } from '../../src/sinks/rabbitmq.js'
import { rabbitmqSource } from '../../src/sources/rabbitmq.js'
import { sinkContract } from '../contract/sink.js'
import { sourceContract } from '../contract/source.js'
import { describeWire } from './brokers.js'
import { ownNames } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

await describeWire('the contracts on real brokers', ({ amqpUrl, pulsarUrl }) => {
  const openQueue = async () => {
    const { queue } = ownNames()
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue(queue, { durable: true })
    const dispose = async () => {
      await channel.deleteQueue(queue)
      await connection.close()
    }
    return { queue, channel, dispose }
  }
  sourceContract('RabbitMQ', async () => {
    const { queue, channel, dispose } = await openQueue()
    const reader = amqpReader({ urls: [amqpUrl] })
    return {
      source: (options) => rabbitmqSource(reader.channels({ queue }), options),
      feed: async (numbers) => {
        for (const n of numbers) channel.sendToQueue(queue, Buffer.from(`{"n":${n}}`), { deliveryMode: 2 })
        await channel.waitForConfirms()
      },
      waiting: async () => (await channel.checkQueue(queue)).messageCount,
      dispose,
    }
  })
  sinkContract('RabbitMQ', async () => {
    const { queue, channel, dispose } = await openQueue()
    return {
      sink: rabbitmqSink(amqpWriter({ urls: [amqpUrl], queue })),
      received: async () => {
        const bodies: string[] = []
        for (let next = await channel.get(queue, { noAck: true }); next !== false; next = await channel.get(queue, { noAck: true })) bodies.push(next.content.toString())
        return bodies
      },
      dispose,
    }
  })
  sinkContract('Pulsar', () => {
    const { topic } = ownNames()
    return Promise.resolve({
      sink: pulsarSink(pulsarWebSocketWriter({ url: pulsarUrl, topic, key: 'k' })),
      received: async () => (await readTopic(pulsarUrl, topic, { until: 300, deadlineMs: 20_000 })).map(({ payload }) => payload.toString()),
      dispose: () => Promise.resolve(),
    })
  })
})
