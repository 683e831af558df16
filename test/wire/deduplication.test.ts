import amqp from 'amqplib'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { OwnBrokers } from './brokers.js'
import { describeFaults, describeWire } from './brokers.js'
import { dropQueues, eventually, expectBalanced, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

/** Kills of the worker; a fifth as many of Pulsar. */
const kills = Number(process.env['BACKHAUL_TEST_KILLS'] ?? 3)
const pulsarKills = Math.max(1, Math.floor(kills / 5))
const perRound = 3000

const rest = (pulsarUrl: string) => pulsarUrl.replace('ws', 'http')
const ask = async (pulsarUrl: string, method: string, path: string, body?: string): Promise<Response> =>
  fetch(`${rest(pulsarUrl)}/admin/v2/${path}`, { method, headers: { 'content-type': 'application/json' }, ...(body === undefined ? {} : { body }) })
const makeNamespace = async (pulsarUrl: string, deduplication: boolean): Promise<string> => {
  const name = `public/dedup-${deduplication ? 'on' : 'off'}-${process.pid}`
  const made = await ask(pulsarUrl, 'PUT', `namespaces/${name}`)
  if (!made.ok && made.status !== 409) throw new Error(`${name}: ${made.status}`)
  const set = await ask(pulsarUrl, 'POST', `namespaces/${name}/deduplication`, String(deduplication))
  if (!set.ok) throw new Error(`${name}: ${set.status}`)
  // Without a subscription Pulsar deletes what is old at the next change of its ledger: the judge would take it for lost.
  const kept = await ask(pulsarUrl, 'POST', `namespaces/${name}/retention`, '{"retentionTimeInMinutes":-1,"retentionSizeInMB":-1}')
  if (!kept.ok) throw new Error(`${name}: ${kept.status}`)
  return name
}
const topicIn = (namespace: string) => `persistent://${namespace}/${ownNames().queue}`

/** How many of the ids are in the topic more than once, and which are not, and whether first deliveries are in order. */
const judge = (sent: readonly string[], arrived: readonly string[]) => {
  const firsts = [...new Set(arrived)]
  const there = new Set(firsts)
  return { doubled: arrived.length - firsts.length, lost: sent.filter((id) => !there.has(id)), inOrder: firsts.join() === sent.filter((id) => there.has(id)).join() }
}
const idsOf = async (pulsarUrl: string, topic: string, last: string) =>
  (await readTopic(pulsarUrl, topic, { until: (all) => all.at(-1)?.properties['messageId'] === last, deadlineMs: 180_000 })).map(({ properties }) => properties['messageId'] as string)

let workers: Daemon[] = []
afterEach(async () => {
  for (const worker of workers) {
    worker.signal('SIGKILL')
    await worker.ended
  }
  workers = []
})
const startWorker = async (settings: Record<string, string>): Promise<Daemon> => {
  const worker = await startDaemon(settings)
  workers.push(worker)
  return worker
}
const killWorker = async (worker: Daemon): Promise<void> => {
  worker.signal('SIGKILL')
  await worker.ended
}

/** How many messages the topic has taken in; undefined while nobody says. */
const takenIn = async (pulsarUrl: string, topic: string): Promise<number | undefined> => {
  try {
    const reply = await ask(pulsarUrl, 'GET', `${topic.replace('://', '/')}/stats`)
    return reply.ok ? ((await reply.json()) as { msgInCounter: number }).msgInCounter : reply.status === 404 ? 0 : undefined
  } catch {
    return undefined
  }
}

/** Messages into RabbitMQ, confirmed, with ids of their own; every tenth as another program would write it. */
const feeder = async (amqpUrl: string, queue: string) => {
  const connection = await amqp.connect(amqpUrl)
  const channel = await connection.createConfirmChannel()
  await channel.assertQueue(queue, { durable: true })
  const sent: string[] = []
  return {
    sent,
    feed: async (count: number): Promise<void> => {
      for (let i = 0; i < count; i += 1) {
        const id = `m${sent.length}`
        sent.push(id)
        const foreign = sent.length % 10 === 0
        channel.sendToQueue(queue, Buffer.from(`{"n":${sent.length},"pad":"${'x'.repeat(200)}"}`), { persistent: true, messageId: id, headers: foreign ? {} : { 'backhaul-digest': `digest-${id}` } })
        if (i % 100 === 99) await channel.waitForConfirms()
      }
      await channel.waitForConfirms()
    },
    close: () => connection.close(),
  }
}

/** Posts one batch after the other, and each again under its key until it is taken: by whichever worker is there. */
const poster = (address: () => string) => {
  const sent: string[] = []
  const post = async (batch: number): Promise<void> => {
    const key = `k${batch}`
    const body = `[${Array.from({ length: 20 }, (_, i) => `{"batch":${batch},"i":${i},"pad":"${'x'.repeat(100)}"}`).join()}]`
    await eventually('taken', async () => {
      try {
        const reply = await fetch(`${address()}/v1/messages`, { method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': key }, body })
        return reply.status === 202
      } catch {
        return false
      }
    }, 120_000)
    sent.push(...Array.from({ length: 20 }, (_, i) => `${key}-${i}`))
  }
  return {
    sent,
    feed: async (count: number): Promise<void> => {
      for (let i = 0; i < count / 20; i += 1) await post(sent.length / 20)
    },
    close: () => Promise.resolve(),
  }
}

/** Kills the worker again and again in the middle of a window, and Pulsar now and then. */
const underKills = async (own: OwnBrokers, deduplication: boolean, embedded = false) => {
  const topic = topicIn(await makeNamespace(own.pulsarUrl, deduplication))
  const { queue } = ownNames()
  const settings = {
    ...(embedded ? {} : { BACKHAUL_AMQP_URL: own.amqpUrl, BACKHAUL_ROLES: 'forward' }),
    BACKHAUL_PULSAR_URL: own.pulsarUrl,
    BACKHAUL_PULSAR_TOPIC: topic,
    BACKHAUL_CONFIG_TOPIC: `${topic}-configuration`,
    BACKHAUL_QUEUE: queue,
    BACKHAUL_DEDUPLICATION: String(deduplication),
  }
  let worker = await startWorker(settings)
  const { feed, sent, close } = embedded ? poster(() => worker.url) : await feeder(own.amqpUrl, queue)
  const again = { BACKHAUL_DATA_DIR: worker.folder, ...settings }
  let pulsarKilled = 0
  for (let round = 0; round < kills; round += 1) {
    const fed = feed(perRound)
    const before = (await eventually('statistics', () => takenIn(own.pulsarUrl, topic), 60_000)) ?? 0
    const enough = before + 200 + ((round * 977) % 2000)
    await eventually('something is on its way', async () => ((await takenIn(own.pulsarUrl, topic)) ?? 0) >= enough, 60_000)
    const killsPulsar = Math.floor(((round + 1) * pulsarKills) / kills) > pulsarKilled
    // Now the worker while Pulsar is away, now Pulsar while the worker is there.
    if (killsPulsar && pulsarKilled % 2 === 0) await own.kill('pulsar')
    await killWorker(worker)
    if (killsPulsar && pulsarKilled % 2 === 1) await own.kill('pulsar')
    worker = await startWorker(again)
    if (killsPulsar) {
      await own.start('pulsar')
      pulsarKilled += 1
    }
    await fed
  }
  await feed(20)
  const arrived = await idsOf(own.pulsarUrl, topic, sent.at(-1) as string)
  await eventually('all answered', async () => (await worker.metric('backhaul_pipeline_unsettled', 'forward')) === 0)
  await expectBalanced(worker, 'forward')
  await worker.stop()
  await close()
  if (!embedded) await dropQueues(own.amqpUrl, queue, `${queue}.dead`)
  const { lost, ...found } = judge(sent, arrived)
  console.log(`deduplication ${deduplication ? 'on' : 'off'}, ${embedded ? 'embedded queue' : 'RabbitMQ'}: ${kills} kills of the worker, ${pulsarKilled} of Pulsar, ${sent.length} messages: ${found.doubled} doubled, ${lost.length} lost`)
  return { ...found, lost: lost.length, firstLost: lost.slice(0, 5) }
}

describeFaults('deduplication under kills', (own) => {
  beforeAll(() => own.start(), 180_000)
  const limitMs = 120_000 + kills * 20_000 + pulsarKills * 60_000

  it('on: nothing doubled, nothing lost, in order', async () => {
    expect(await underKills(own, true)).toEqual({ doubled: 0, lost: 0, firstLost: [], inOrder: true })
  }, limitMs)

  it('on, with the embedded queue and senders that post again: nothing doubled, nothing lost, in order', async () => {
    expect(await underKills(own, true, true)).toEqual({ doubled: 0, lost: 0, firstLost: [], inOrder: true })
  }, limitMs)

  it('off: the same kills double something, and lose nothing', async () => {
    const { doubled, lost, inOrder } = await underKills(own, false)
    expect(lost).toBe(0)
    expect(inOrder).toBe(true)
    expect(doubled, 'the control must show what the other test is about').toBeGreaterThan(0)
  }, limitMs)
})

await describeWire('deduplication', ({ amqpUrl, pulsarUrl }) => {
  describe('where the broker does not drop repeats', () => {
    it('nothing is sent, and the state says why', async () => {
      const namespace = await makeNamespace(pulsarUrl, false)
      const topic = topicIn(namespace)
      const { queue } = ownNames()
      const { feed, close } = await feeder(amqpUrl, queue)
      await feed(1)
      const worker = await startWorker({ BACKHAUL_AMQP_URL: amqpUrl, BACKHAUL_PULSAR_URL: pulsarUrl, BACKHAUL_PULSAR_TOPIC: topic, BACKHAUL_QUEUE: queue, BACKHAUL_ROLES: 'ingest,forward', BACKHAUL_DEDUPLICATION: 'true' })
      await eventually('told', () => worker.said().includes('does not drop repeats'))
      const readiness = await worker.get('/readyz')
      expect(await readiness.text()).toContain('does not drop repeats (deduplication is Disabled)')
      expect(await takenIn(pulsarUrl, topic)).toBe(0)
      await worker.stop()
      await close()
      await dropQueues(amqpUrl, queue, `${queue}.dead`)
    })
  })
})
