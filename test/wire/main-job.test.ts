import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, it } from 'vitest'
import amqp from 'amqplib'
import { describeWire } from './brokers.js'
import { booksOf, dropQueues, eventually, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

const dataset = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../node_modules/vega-datasets/data/${name}`, import.meta.url), 'utf8'))

/** Real records that nobody here wrote: Unicode, nulls, nested objects, large arrays. */
const earthquakes = (dataset('earthquakes.json') as { features: object[] }).features
const movies = dataset('movies.json') as object[]
const flights = dataset('flights-20k.json') as object[]
const maps = [dataset('us-10m.json'), dataset('world-110m.json'), ...(dataset('countries.json') as object[]).slice(0, 200)] as object[]

const inserted =
  /^,"UploadedUTCDateTime":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","UploadedLocalDateTime":"[\d-]+T[\d:.]+[+-]\d\d:\d\d","DeviceID":"test-device"$/
/** What arrived is what was sent, with the three fields after its last value and nothing else. */
const unchanged = (sent: string, arrived: Buffer): boolean => {
  const end = /\s*\}$/.exec(sent)?.index ?? 0
  const [head, tail] = [Buffer.from(sent.slice(0, end)), Buffer.from(sent.slice(end))]
  const middle = arrived.subarray(head.length, arrived.length - tail.length).toString()
  return arrived.subarray(0, head.length).equals(head) && arrived.subarray(-tail.length).equals(tail) && inserted.test(middle)
}

interface Sent {
  readonly text: string
  readonly client: number
  readonly begun: number
  readonly answered: number
}

await describeWire('the main job on real brokers', ({ amqpUrl, pulsarUrl }) => {
  let daemon: Daemon | undefined
  let names = ownNames()
  const start = (settings: Record<string, string> = {}) => {
    names = ownNames()
    return startDaemon({
      BACKHAUL_AMQP_URL: amqpUrl,
      BACKHAUL_PULSAR_URL: pulsarUrl,
      BACKHAUL_QUEUE: names.queue,
      BACKHAUL_PULSAR_TOPIC: names.topic,
      BACKHAUL_CONFIG_TOPIC: names.configTopic,
      BACKHAUL_ROLES: 'ingest,forward',
      ...settings,
    })
  }
  const ready = (it: Daemon) => eventually('ready', async () => (await it.get('/readyz')).status === 200)
  afterEach(async () => {
    if (daemon !== undefined) {
      daemon.signal('SIGKILL')
      await daemon.ended
    }
    daemon = undefined
    await dropQueues(amqpUrl, names.queue, `${names.queue}.dead`)
  })

  it('brings 25,000 real records to Pulsar: none lost, none doubled, first come first served, every byte as it was', async () => {
    const it = (daemon = await start())
    await ready(it)
    const sent = new Map<string, Sent>()
    let clock = 0
    const post = async (client: number, records: readonly object[], how: 'single' | 'array' | 'lines'): Promise<void> => {
      const texts = records.map((record, i) => (how === 'array' && i % 10 === 0 ? JSON.stringify(record, null, 1) : JSON.stringify(record)))
      const body = how === 'single' ? (texts[0] as string) : how === 'array' ? `[${texts.join(' ,\n')}]` : texts.join('\n')
      const begun = ++clock
      const reply = await it.post(body, { 'content-type': how === 'lines' ? 'application/x-ndjson' : 'application/json' })
      const answered = ++clock
      expect(reply.status, JSON.stringify(reply.body).slice(0, 300)).toBe(202)
      const ids = how === 'single' ? [reply.body.id as string] : (reply.body.ids ?? [])
      expect(ids).toHaveLength(texts.length)
      texts.forEach((text, i) => sent.set(ids[i] as string, { text, client, begun, answered }))
    }
    const singles = async (client: number, records: readonly object[]) => {
      for (const record of records) await post(client, [record], 'single')
    }
    const batches = async (client: number, records: readonly object[], size: number, how: 'array' | 'lines') => {
      for (let at = 0; at < records.length; at += size) await post(client, records.slice(at, at + size), how)
    }
    await Promise.all([
      singles(1, earthquakes),
      singles(2, movies),
      singles(3, maps),
      batches(4, flights.slice(0, 10_000), 100, 'array'),
      batches(5, flights.slice(10_000), 500, 'lines'),
    ])
    expect(sent.size).toBe(earthquakes.length + movies.length + maps.length + flights.length)
    expect(sent.size).toBeGreaterThanOrEqual(20_000)

    const arrived = await readTopic(pulsarUrl, names.topic, { until: sent.size, deadlineMs: 60_000 })
    const ids = arrived.map(({ properties }) => properties['messageId'] as string)
    expect(new Set(ids).size, 'none doubled').toBe(ids.length)
    expect(ids.filter((id) => !sent.has(id)), 'nothing that was not sent').toEqual([])
    const changed = arrived.filter(({ payload }, i) => !unchanged(sent.get(ids[i] as string)?.text ?? '', payload))
    expect(changed.map(({ payload }) => payload.toString()).slice(0, 3), 'every byte').toEqual([])
    expect(arrived.every(({ key }) => key === 'test-device')).toBe(true)
    // What was sent after another's 202 never comes before it: no later one may have been answered before this one began.
    let earliestAnswer = Number.POSITIVE_INFINITY
    for (const id of ids.toReversed()) {
      const { begun, answered } = sent.get(id) as Sent
      expect(earliestAnswer).toBeGreaterThan(begun)
      earliestAnswer = Math.min(earliestAnswer, answered)
    }
    const inRequestOrder = [...sent.keys()].filter((id) => sent.get(id)?.client === 4)
    expect(ids.filter((id) => sent.get(id)?.client === 4)).toEqual(inRequestOrder)
    const books = await booksOf(it, names.queue)
    expect(books).toMatchObject({ accepted: sent.size, delivered: sent.size, queued: 0, foreign: 0, deadLettered: 0 })
    expect(books.in).toBe(books.out)
    expect(await it.stop()).toBe(0)
  }, 240_000)

  it('takes what another AMQP program writes, and puts what is no JSON object into the dead letters with a reason', async () => {
    const it = (daemon = await start())
    await ready(it)
    const texts = ['{"from":"elsewhere","n":1}', 'not json', '[1,2]', '{"from":"elsewhere","n":2}', '\u0007', '{"from":"elsewhere","n":3}']
    await publishElsewhere(amqpUrl, names.queue, texts)
    const arrived = await readTopic(pulsarUrl, names.topic, { until: 3, deadlineMs: 30_000 })
    expect(arrived.map(({ payload }) => payload.toString())).toEqual([texts[0], texts[3], texts[5]])
    const dead = await eventually('three dead letters', () => deadLetters(amqpUrl, `${names.queue}.dead`, 3))
    expect(dead.map(({ text }) => text)).toEqual([texts[1], texts[2], texts[4]])
    expect(dead.map(({ headers }) => headers['backhaul-reason'])).toEqual(['not JSON', 'not a JSON object', 'not JSON'])
    expect(dead[0]?.headers).toMatchObject({ 'backhaul-stage': 'check', 'backhaul-attempts': '1', 'backhaul-first-seen': expect.stringMatching(/Z$/) as string })
    const books = await booksOf(it, names.queue)
    expect(books).toMatchObject({ accepted: 0, foreign: 6, delivered: 3, deadLettered: 3, queued: 0 })
    expect(books.in).toBe(books.out)
  }, 90_000)

  it('drops a repeat under the same key and bytes, and counts it', async () => {
    const it = (daemon = await start())
    await ready(it)
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'k1', 'backhaul-property-site': 'north' }
    for (let i = 0; i < 3; i += 1) expect((await it.post('{"a":1}', headers)).body).toEqual({ id: 'k1' })
    expect((await it.post('{"a":2}', headers)).status).toBe(422)
    expect((await it.post('{"last":1}')).status).toBe(202)
    const arrived = await readTopic(pulsarUrl, names.topic, { until: 2, deadlineMs: 30_000 })
    expect(arrived[0]?.properties).toEqual({ messageId: 'k1', site: 'north' })
    await eventually('the books', async () => (await it.metric('backhaul_repeats_dropped_total')) + (await it.metric('backhaul_delivered_total')) === 4)
    expect((await booksOf(it, names.queue)).queued).toBe(0)
  }, 60_000)

  it('stops under load within 5 s with code 0: nothing lost, nothing doubled', async () => {
    const it = (daemon = await start())
    await ready(it)
    const accepted: string[] = []
    let stopping = false
    const client = async (n: number) => {
      for (let i = 0; !stopping; i += 1) {
        const reply = await it.post(`[${Array.from({ length: 20 }, (_, k) => `{"c":${n},"i":${i},"k":${k}}`).join()}]`).catch(() => undefined)
        if (reply?.status === 202) accepted.push(...(reply.body.ids ?? []))
        for (const result of reply?.body.results ?? []) if (result.status === 'accepted') accepted.push(result.id as string)
        if (reply === undefined) return
      }
    }
    const clients = Promise.all(Array.from({ length: 8 }, (_, n) => client(n)))
    await eventually('load', () => accepted.length > 2000)
    const began = performance.now()
    it.signal('SIGTERM')
    const { code } = await it.ended
    expect(performance.now() - began).toBeLessThan(5000)
    stopping = true
    await clients
    expect(code).toBe(0)
    // What was accepted and not yet forwarded is in the queue: another run brings it.
    const next = (daemon = await startDaemon({
      BACKHAUL_AMQP_URL: amqpUrl,
      BACKHAUL_PULSAR_URL: pulsarUrl,
      BACKHAUL_QUEUE: names.queue,
      BACKHAUL_PULSAR_TOPIC: names.topic,
      BACKHAUL_ROLES: 'ingest,forward',
    }))
    await ready(next)
    const { body } = await next.post('{"last":true}')
    const arrived = await readTopic(pulsarUrl, names.topic, { until: (messages) => messages.at(-1)?.properties['messageId'] === body.id, deadlineMs: 60_000 })
    const ids = arrived.map(({ properties }) => properties['messageId'])
    expect(new Set(ids).size, 'none doubled').toBe(ids.length)
    expect(accepted.filter((id) => !ids.includes(id)), 'none lost').toEqual([])
    const books = await booksOf(next, names.queue)
    expect(books.queued).toBe(0)
  }, 120_000)

  it('ends at once at the second signal', async () => {
    const it = (daemon = await start({ BACKHAUL_PULSAR_URL: 'ws://127.0.0.1:9' }))
    await eventually('accepts', async () => (await it.post('{"a":1}')).status === 202)
    it.signal('SIGTERM')
    it.signal('SIGINT')
    const { code } = await it.ended
    expect(code).toBe(130)
  })

  it('stops within 5 s with code 0 while Pulsar is away, and keeps what was accepted', async () => {
    const it = (daemon = await start({ BACKHAUL_PULSAR_URL: 'ws://127.0.0.1:9' }))
    await eventually('accepts', async () => (await it.post('{"a":1}')).status === 202)
    const { deliver } = (await (await it.get('/readyz')).json()) as { deliver: { ready: boolean; reasons: string[] } }
    expect(deliver.ready).toBe(false)
    expect(deliver.reasons[0]).toMatch(/^pulsar: lost for \d+ s/)
    await eventually('out of the spool', async () => /^backhaul_spooled_messages 0$/m.test(await (await it.get('/metrics')).text()))
    const began = performance.now()
    expect(await it.stop()).toBe(0)
    expect(performance.now() - began).toBeLessThan(5000)
    daemon = undefined
    // a quorum queue counts late
    await eventually('in the queue', async () => (await depthOf(amqpUrl, names.queue)) === 1)
  })
})

/** Through Python's pika where it is (CI), else through a bare AMQP channel: never through our own writer. */
const publishElsewhere = async (amqpUrl: string, queue: string, texts: readonly string[]): Promise<void> => {
  const python = process.env['BACKHAUL_TEST_PYTHON']
  if (python !== undefined) {
    const script = fileURLToPath(new URL('python/publish.py', import.meta.url))
    await new Promise<void>((resolve, reject) => {
      const child = execFile(python, [script, amqpUrl, queue], (error) => (error === null ? resolve() : reject(new Error(error.message))))
      child.stdin?.end(`${texts.join('\n')}\n`)
    })
    return
  }
  const connection = await amqp.connect(amqpUrl)
  const channel = await connection.createConfirmChannel()
  for (const text of texts) channel.sendToQueue(queue, Buffer.from(text), { deliveryMode: 2 })
  await channel.waitForConfirms()
  await connection.close()
}

const depthOf = async (amqpUrl: string, queue: string): Promise<number> => {
  const connection = await amqp.connect(amqpUrl)
  const channel = await connection.createChannel()
  const { messageCount } = await channel.checkQueue(queue)
  await connection.close()
  return messageCount
}

const deadLetters = async (amqpUrl: string, queue: string, count: number) => {
  if ((await depthOf(amqpUrl, queue)) < count) return undefined
  const connection = await amqp.connect(amqpUrl)
  const channel = await connection.createChannel()
  const letters: { text: string; headers: Record<string, unknown> }[] = []
  for (let message = await channel.get(queue); message !== false; message = await channel.get(queue))
    letters.push({ text: message.content.toString(), headers: message.properties.headers ?? {} })
  await connection.close()
  return letters
}

