import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import amqp from 'amqplib'
import { afterAll, afterEach, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { describeWire } from './brokers.js'
import { dropQueues, eventually, expectBooks, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

interface Frame {
  readonly sequence?: string
  readonly id?: string
  readonly message?: Record<string, unknown>
  readonly gap?: { readonly from: string; readonly to: string }
}

await describeWire('copies', ({ amqpUrl, pulsarUrl }) => {
  const daemons: Daemon[] = []
  const sockets: WebSocket[] = []
  const names = new Set<string>()
  const start = async (settings: Record<string, string>) => {
    const { queue, topic } = ownNames()
    names.add(queue)
    const daemon = await startDaemon({
      BACKHAUL_AMQP_URL: amqpUrl,
      BACKHAUL_PULSAR_URL: pulsarUrl,
      BACKHAUL_QUEUE: queue,
      BACKHAUL_PULSAR_TOPIC: topic,
      BACKHAUL_ROLES: 'ingest,forward,broadcast',
      ...settings,
    })
    daemons.push(daemon)
    await eventually('ready', async () => (await daemon.get('/readyz')).status === 200)
    return { daemon, queue, topic }
  }
  const listen = async (daemon: Daemon, path: string, read = true) => {
    const socket = new WebSocket(`${daemon.url.replace('http', 'ws')}${path}`, { perMessageDeflate: false })
    sockets.push(socket)
    const frames: Frame[] = []
    const texts: string[] = []
    socket.on('message', (data: Buffer) => {
      texts.push(data.toString())
      frames.push(JSON.parse(data.toString()) as Frame)
    })
    await once(socket, 'open')
    if (!read) socket.pause()
    return { socket, frames, texts }
  }
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.terminate()
    for (const daemon of daemons.splice(0)) {
      daemon.signal('SIGKILL')
      await daemon.ended
    }
    await dropQueues(amqpUrl, 'websocketQueue', 'UDPQueue')
  })
  afterAll(() => dropQueues(amqpUrl, ...[...names].flatMap((name) => [name, `${name}.dead`])))

  it('go to every WebSocket client, byte for byte and in order, and can be resumed', async () => {
    const { daemon, queue } = await start({ BACKHAUL_WEBSOCKET: 'true' })
    const one = await listen(daemon, '/v1/stream')
    const two = await listen(daemon, '/v1/stream')
    const posted = await daemon.post('[{"n": 1},{"n":2e400},{"n":9007199254740993}]')
    await eventually('three frames for both', () => one.frames.length === 3 && two.frames.length === 3)
    expect(one.frames.map(({ id }) => id)).toEqual(posted.body.ids)
    expect(one.texts[0]).toContain('"message":{"n": 1,"Uploaded')
    expect(one.texts[1]).toContain('"message":{"n":2e400,')
    expect(one.texts[2]).toContain('"message":{"n":9007199254740993,')
    expect(two.texts).toEqual(one.texts)
    const back = await listen(daemon, `/v1/stream?after=${one.frames[0]?.sequence}`)
    await eventually('the two it missed', () => back.frames.length === 2)
    expect(back.texts).toEqual(one.texts.slice(1))
    const stranger = await listen(daemon, '/v1/stream?after=otherepoch-7')
    await eventually('a gap, then what there is', () => stranger.frames.length === 4)
    expect(stranger.frames[0]?.gap).toMatchObject({ from: 'otherepoch-7' })
    const tail = await listen(daemon, '/v1/tail?last=2')
    await eventually('the last two delivered', () => tail.frames.length === 2)
    expect(tail.frames.map(({ id }) => id)).toEqual(posted.body.ids?.slice(1))
    await expectBooks(daemon, queue)
  }, 60_000)

  it('leave as one datagram for each message and target; what is too large is dropped and counted, never split', async () => {
    const target = createSocket('udp4')
    const datagrams: Buffer[] = []
    target.on('message', (datagram) => datagrams.push(datagram))
    target.bind(0, '127.0.0.1')
    await once(target, 'listening')
    const { port } = target.address()
    const { daemon, topic, queue } = await start({ BACKHAUL_UDP: `127.0.0.1:${port}` })
    await daemon.post('{"n":1}')
    await daemon.post(`{"n":2,"pad":"${'x'.repeat(66_000)}"}`)
    await daemon.post('{"n":3}')
    await eventually('two datagrams and a drop', async () => datagrams.length === 2 && (await daemon.metric('backhaul_copies_dropped_total', 'sink="udp"')) === 1)
    const arrived = await readTopic(pulsarUrl, topic, { until: 3, deadlineMs: 30_000 })
    expect(datagrams).toEqual([arrived[0]?.payload, arrived[2]?.payload])
    target.close()
    await expectBooks(daemon, queue)
  }, 60_000)

  it('change neither the order nor the count of what reaches Pulsar when a client is stuck and a target is dead', async () => {
    const dead = createSocket('udp4')
    dead.bind(0, '127.0.0.1')
    await once(dead, 'listening')
    const { port } = dead.address()
    dead.close()
    const { daemon, topic, queue } = await start({ BACKHAUL_WEBSOCKET: 'true', BACKHAUL_UDP: `127.0.0.1:${port},nowhere.invalid:9` })
    const stuck = await listen(daemon, '/v1/stream', false)
    const healthy = await listen(daemon, '/v1/stream')
    const pad = 'x'.repeat(2000)
    const ids: string[] = []
    for (let i = 0; i < 60; i += 1) {
      const { status, body } = await daemon.post(`[${Array.from({ length: 100 }, (_, k) => `{"n":${i * 100 + k},"pad":"${pad}"}`).join()}]`)
      expect(status).toBe(202)
      ids.push(...(body.ids ?? []))
    }
    const arrived = await readTopic(pulsarUrl, topic, { until: ids.length, deadlineMs: 60_000 })
    expect(arrived.map(({ properties }) => properties['messageId'])).toEqual(ids)
    await eventually('the client that does not read is cut', async () => (await daemon.metric('backhaul_stream_clients_cut_total')) === 1)
    await eventually('the one that reads has everything', () => healthy.frames.length === ids.length)
    expect(healthy.frames.map(({ id }) => id)).toEqual(ids)
    expect(stuck.frames.length).toBeLessThan(ids.length)
    await expectBooks(daemon, queue)
    expect(await daemon.metric('backhaul_delivered_total')).toBe(ids.length)
    expect(daemon.said()).not.toContain('"level":50')
  }, 120_000)

  it('do not fill a queue of others that nobody reads: beyond 100,000 they are dropped and counted', async () => {
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue('websocketQueue', { durable: true })
    for (let i = 0; i < 100_100; i += 1) channel.sendToQueue('websocketQueue', Buffer.from('{}'), { deliveryMode: 1 })
    await channel.waitForConfirms()
    const { daemon, topic, queue } = await start({ BACKHAUL_WEBSOCKET: 'true', BACKHAUL_ROLES: 'ingest,forward' })
    await eventually(
      'a copy is dropped',
      async () => {
        await daemon.post('{"n":1}')
        return (await daemon.metric('backhaul_copies_dropped_total', 'sink="websocket"')) > 0
      },
      20_000,
    )
    const { body } = await daemon.post('{"last":1}')
    await readTopic(pulsarUrl, topic, { until: (messages) => messages.at(-1)?.properties['messageId'] === body.id, deadlineMs: 30_000 })
    await connection.close()
    await expectBooks(daemon, queue)
  }, 90_000)
})
