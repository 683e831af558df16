/** One message that cannot be carried holds up no other. */
import amqp from 'amqplib'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { createPublisher } from '../../src/pipelines/publisher.js'
import { describeWire } from './brokers.js'
import { dropQueues, eventually, expectBooks, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

await describeWire('a message that cannot be carried', ({ amqpUrl, pulsarUrl }) => {
  let own: ReturnType<typeof ownNames>
  let daemon: Daemon | undefined
  beforeEach(() => {
    own = ownNames()
  })
  afterEach(async () => {
    daemon?.signal('SIGKILL')
    await daemon?.ended
    daemon = undefined
    await dropQueues(amqpUrl, own.queue, `${own.queue}.dead`)
  })
  const start = async (): Promise<Daemon> => {
    const started = await startDaemon({ BACKHAUL_AMQP_URL: amqpUrl, BACKHAUL_PULSAR_URL: pulsarUrl, BACKHAUL_QUEUE: own.queue, BACKHAUL_PULSAR_TOPIC: own.topic, BACKHAUL_ROLES: 'ingest,forward' })
    daemon = started
    await eventually('ready', async () => (await started.get('/readyz')).status === 200)
    return started
  }
  const inQueue = async (started: Daemon, queue: string): Promise<number | undefined> => {
    const { queues } = (await (await started.get('/v1/queues')).json()) as { queues: readonly { queue: string; messages?: number }[] }
    return queues.find((one) => one.queue === queue)?.messages
  }
  const arrived = async (count: number): Promise<readonly string[]> =>
    (await readTopic(pulsarUrl, own.topic, { until: count })).map(({ payload }) => (JSON.parse(payload.toString()) as { name: string }).name)

  it('is refused by the door, and those behind it arrive', async () => {
    const { post } = await start()
    const json = { 'content-type': 'application/json' }
    expect(await post('{"name":"before"}')).toMatchObject({ status: 202 })
    expect(await post('{"name":"it"}', { ...json, [`backhaul-property-${'n'.repeat(256)}`]: 'x' })).toMatchObject({ status: 422, body: { error: { code: 'not-a-message' } } })
    expect(await post('{"name":"longest"}', { ...json, [`backhaul-property-${'n'.repeat(255)}`]: 'x' })).toMatchObject({ status: 202 })
    expect(await post('{"name":"behind"}')).toMatchObject({ status: 202 })
    expect(await arrived(3)).toEqual(['before', 'longest', 'behind'])
    await expectBooks(daemon as Daemon, own.queue)
  }, 60_000)

  it('from another program becomes a dead letter without its properties, and those behind it reach the dead letters too', async () => {
    const started = await start()
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createConfirmChannel()
    const given = [
      ['no JSON, in large headers', { messageId: 'large', headers: { site: 'x'.repeat(65_480) } }],
      ['no JSON either', { messageId: 'x', headers: { site: 'north' } }],
      ['{"name":"good"}', { messageId: 'good', headers: {} }],
    ] as const
    for (const [body, properties] of given) channel.sendToQueue(own.queue, Buffer.from(body), { persistent: true, ...properties })
    await channel.waitForConfirms()
    await connection.close()
    expect(await arrived(1)).toEqual(['good'])
    await eventually('both are in the queue of dead letters', async () => (await inQueue(started, `${own.queue}.dead`)) === 2)
    const { dead } = (await (await started.get('/v1/dead')).json()) as { dead: readonly { id: string; reason: string }[] }
    expect(dead).toMatchObject([{ id: 'large', reason: expect.stringContaining('could not be kept') as string }, { id: 'x' }])
    expect(await (await started.get('/v1/dead/x')).json()).toMatchObject({ properties: { site: 'north' } })
  }, 60_000)

  it.each([
    ['amqp://', 'an id that is too long', { id: 'i'.repeat(256) }],
    ['amqp://', 'a property whose name is too long', { properties: { ['n'.repeat(256)]: 'x' } }],
    ['amqp://', 'more bytes than a daemon takes', {}, 'x'.repeat(700 * 1024)],
    ['http://', 'more bytes than the daemon takes', {}, 'x'.repeat(700 * 1024)],
    ['http://', 'a property that no header carries', { properties: { site: 'Łódź' } }],
    ['http://', 'an id that no header carries', { id: 'a\nb' }],
    ['http://', 'more properties than the door takes', { properties: { site: 'x'.repeat(20_000) } }],
  ])('is refused by a publisher to %s, for %s, and those behind it are accepted', async (to, _why, options, text = '') => {
    const started = await start()
    const { publish, close } = createPublisher({ to: to === 'amqp://' ? amqpUrl : started.url, queue: own.queue })
    const [before, it, behind] = await Promise.allSettled([publish({ name: 'before' }), publish({ name: 'it', text }, options), publish({ name: 'behind' })])
    expect(it).toMatchObject({ status: 'rejected', reason: { code: 'BACKHAUL_REJECTED', maybeSent: false } })
    expect([before?.status, behind?.status]).toEqual(['fulfilled', 'fulfilled'])
    await close()
    expect(await arrived(2)).toEqual(['before', 'behind'])
  }, 60_000)
})
