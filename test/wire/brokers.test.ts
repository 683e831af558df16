import { connect } from 'amqplib'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { describeFaults, describeWire } from './brokers.js'
import { publishTopic, readTopic, uniqueTopic } from './independent-consumer.js'

const python = process.env['BACKHAUL_TEST_PYTHON']
const required = process.env['BACKHAUL_TEST_REQUIRE_BROKERS'] === '1'

await describeWire('the brokers that the tests run against', ({ amqpUrl, pulsarUrl }) => {
  it('RabbitMQ gives back what it has confirmed', async () => {
    const queue = `brokers-test-${randomUUID()}`
    const connection = await connect(amqpUrl)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue(queue, { durable: true })
    channel.sendToQueue(queue, Buffer.from('{"n":1}'), { persistent: true })
    await channel.waitForConfirms()
    const got = await channel.get(queue, { noAck: true })
    await channel.deleteQueue(queue)
    await connection.close()
    expect(got && got.content.toString()).toBe('{"n":1}')
  })

  it.skipIf(!python && !required)('RabbitMQ takes lines from a client in another language', async () => {
    const queue = `brokers-test-${randomUUID()}`
    const connection = await connect(amqpUrl)
    const channel = await connection.createChannel()
    await channel.assertQueue(queue, { durable: true })
    const publish = fileURLToPath(new URL('python/publish.py', import.meta.url))
    const printed = execFileSync(python ?? '', [publish, amqpUrl, queue], { input: '{"n":1}\n{"n":2}\n' })
    const { messageCount } = await channel.checkQueue(queue)
    await channel.deleteQueue(queue)
    await connection.close()
    expect([printed.toString().trim(), messageCount]).toEqual(['2', 2])
  })

  it('Pulsar gives back every byte, property and key, in order', async () => {
    const topic = uniqueTopic('brokers-test')
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index))
    const inputs = [
      { payload: bytes, properties: { number: '1' }, key: 'device' },
      { payload: '', properties: {}, key: 'device' },
      { payload: '{"text":"ü"}', properties: {}, key: 'device' },
    ]
    await publishTopic(pulsarUrl, topic, inputs)
    const read = await readTopic(pulsarUrl, topic)
    expect(read.map(({ payload, properties, key }) => ({ payload, properties, key }))).toEqual(
      inputs.map((input) => ({ ...input, payload: Buffer.from(input.payload) })),
    )
  })

  it('a topic is read past the thousand that the server sends without an answer', async () => {
    const topic = uniqueTopic('brokers-test')
    const texts = Array.from({ length: 2500 }, (_, index) => `{"n":${index}}`)
    await publishTopic(pulsarUrl, topic, texts.map((payload) => ({ payload })))
    const read = await readTopic(pulsarUrl, topic, { until: texts.length })
    expect(read.map(({ payload }) => payload.toString())).toEqual(texts)
  })
})

describeFaults('brokers of one test alone', (own) => {
  it('RabbitMQ comes back after SIGKILL on the same port, with what it had confirmed', async () => {
    await own.start('rabbitmq')
    const before = await connect(own.amqpUrl)
    before.on('error', () => {})
    const channel = await before.createConfirmChannel()
    channel.on('error', () => {})
    await channel.assertQueue('kept', { durable: true })
    channel.sendToQueue('kept', Buffer.from('{"n":1}'), { persistent: true })
    await channel.waitForConfirms()
    await own.remember()
    await own.kill('rabbitmq')
    await expect(connect(own.amqpUrl)).rejects.toThrow('ECONNREFUSED')

    await own.start('rabbitmq')
    const after = await connect(own.amqpUrl)
    const got = await (await after.createChannel()).get('kept', { noAck: true })
    await after.close()
    expect(got && got.content.toString()).toBe('{"n":1}')
  })

  it('a frozen broker takes a connection, and does not answer until it is thawed', async () => {
    await own.start('rabbitmq')
    await own.freeze('rabbitmq')
    let answered = false
    const connection = connect(own.amqpUrl).then((opened) => {
      answered = true
      return opened
    })
    await expect(own.start('rabbitmq')).rejects.toThrow('frozen')
    expect(answered).toBe(false)
    await own.thaw('rabbitmq')
    await (await connection).close()
  })
})
