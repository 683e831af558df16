import { lastValueFrom, Subject } from 'rxjs'
import { beforeAll, expect, it } from 'vitest'
import { deduplicationIsOn } from '../../src/connections/pulsar-deduplication.js'
import { pulsarNumberedWriter } from '../../src/connections/pulsar-numbered.js'
import { pulsarWebSocketWriter } from '../../src/connections/pulsar-websocket.js'
import type { Delivery } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'
import { describeFaults } from './brokers.js'
import { eventually, temporaryFolder } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'
import { admin, tokenConf, tokenFor } from './pulsar-token.js'

const rest = (pulsarUrl: string, method: string, path: string, body?: string, token?: string): Promise<Response> =>
  fetch(`${pulsarUrl.replace('ws', 'http')}/admin/v2/${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    ...(body === undefined ? {} : { body }),
  })
const must = async (reply: Promise<Response>): Promise<void> => {
  const { ok, status, url } = await reply
  if (!ok) throw new Error(`${url}: ${status}`)
}
const namespace = 'public/faults'
const makeNamespace = async (pulsarUrl: string, token?: string): Promise<void> => {
  await must(rest(pulsarUrl, 'PUT', `namespaces/${namespace}`, undefined, token))
  await must(rest(pulsarUrl, 'POST', `namespaces/${namespace}/deduplication`, 'true', token))
  await must(rest(pulsarUrl, 'POST', `namespaces/${namespace}/retention`, '{"retentionTimeInMinutes":-1,"retentionSizeInMB":-1}', token))
}
const message = (id: string): Message => ({ id, body: Buffer.from(`{"id":"${id}","pad":"${'x'.repeat(200)}"}`), properties: {}, digest: `digest of ${id}` })
const range = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => `m${from + i}`)

const sender = (pulsarUrl: string, topic: string, numbered: boolean) => {
  const states: string[] = []
  const given = {
    url: pulsarUrl,
    topic,
    key: 'device',
    pingMs: 200,
    silenceMs: 600,
    handshakeTimeoutMs: 1000,
    onState: (state: { kind: string; error?: unknown }) => states.push(state.kind === 'lost' ? `lost ${String(state.error)}` : state.kind),
  }
  const deliveries = new Subject<Delivery<Message>>()
  const settled: string[] = []
  const running = deliveries.pipe(pulsarSink(numbered ? pulsarNumberedWriter({ ...given, folder: temporaryFolder('numbers') }) : pulsarWebSocketWriter(given))).subscribe()
  return { states, settled, running, give: (ids: readonly string[]): void => ids.forEach((id) => deliveries.next({ value: message(id), settle: ({ kind }) => kind === 'accepted' && settled.push(id) })) }
}

describeFaults('deduplication, and Pulsar that freezes', (own) => {
  beforeAll(async () => {
    await own.start('pulsar')
    await makeNamespace(own.pulsarUrl)
  }, 120_000)
  const topicOf = (name: string) => `persistent://${namespace}/${name}`
  const arrivedIn = async (topic: string, last: string) =>
    (await readTopic(own.pulsarUrl, topic, { until: (all) => all.at(-1)?.properties['messageId'] === last, deadlineMs: 60_000 })).map(({ properties }) => properties['messageId'])

  for (const numbered of [true, false])
    it(`frozen with a window in flight, given up, thawed: ${numbered ? 'each is there once' : 'without numbers, some twice'}`, async () => {
      const topic = topicOf(`frozen-${numbered}`)
      const { give, settled, states, running } = sender(own.pulsarUrl, topic, numbered)
      give(range(0, 100))
      await eventually('all', () => settled.length === 100)
      await own.freeze('pulsar')
      give(range(100, 600))
      await eventually('noticed', () => states.some((state) => state.includes('nothing heard')), 10_000)
      await own.thaw('pulsar')
      await eventually('all again', () => settled.length === 600, 90_000)
      give(['last'])
      await eventually('the last', () => settled.length === 601, 60_000)
      running.unsubscribe()
      const arrived = await arrivedIn(topic, 'last')
      expect([...new Set(arrived)]).toEqual([...range(0, 600), 'last'])
      if (numbered) expect(arrived.length).toBe(601)
      else expect(arrived.length, 'the control must show what the other test is about').toBeGreaterThan(601)
    }, 180_000)

  it('unloaded again and again while messages are sent: each is there once', async () => {
    const topic = topicOf('unloaded')
    const { give, settled, running } = sender(own.pulsarUrl, topic, true)
    let count = 0
    for (let round = 0; round < 5; round += 1) {
      give(range(count, count + 2000))
      count += 2000
      await eventually('some', () => settled.length > count - 1900, 60_000)
      await must(rest(own.pulsarUrl, 'PUT', `namespaces/${namespace}/unload`))
    }
    await eventually('all', () => settled.length === count, 90_000)
    give(['last'])
    await eventually('the last', () => settled.length === count + 1, 60_000)
    running.unsubscribe()
    expect(await arrivedIn(topic, 'last')).toEqual([...range(0, count), 'last'])
  }, 240_000)
})

describeFaults(
  'deduplication, and a token with few rights',
  (own) => {
    beforeAll(async () => {
      process.env['PULSAR_TOKEN'] = admin
      await own.start('pulsar')
      await makeNamespace(own.pulsarUrl, admin)
      await must(rest(own.pulsarUrl, 'POST', `namespaces/${namespace}/permissions/device`, '["produce"]', admin))
      // The topic must be there.
      const topic = `persistent/${namespace}/t`
      await must(rest(own.pulsarUrl, 'PUT', topic, undefined, admin))
    }, 120_000)

    it('one that may only produce is enough to see that repeats are dropped; one that may nothing is told apart', async () => {
      const ask = (token: string) => lastValueFrom(deduplicationIsOn({ url: own.pulsarUrl, topic: `persistent://${namespace}/t`, token: () => token }))
      await rest(own.pulsarUrl, 'GET', `persistent/${namespace}/t/stats`, undefined, admin) // loads it
      expect(await ask(tokenFor('device'))).toBe(true)
      await expect(ask(tokenFor('stranger'))).rejects.toMatchObject({ kind: 'unauthorised' })
    })
  },
  { pulsarConf: tokenConf },
)
