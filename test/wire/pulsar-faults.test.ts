import { Subject } from 'rxjs'
import { beforeAll, expect, it } from 'vitest'
import { pulsarWebSocketWriter } from '../../src/connections/pulsar-websocket.js'
import type { PulsarWriterSettings } from '../../src/connections/pulsar-websocket.js'
import type { Delivery } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'
import { describeFaults, describeWire } from './brokers.js'
import { eventually, ownNames } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'
import { admin, tokenConf, tokenFor } from './pulsar-token.js'

const sender = (settings: Omit<PulsarWriterSettings, 'key'>) => {
  const states: string[] = []
  const connection = pulsarWebSocketWriter({ key: 'k', ...settings, onState: (state) => states.push(state.kind === 'lost' ? `lost ${String(state.error)}` : state.kind) })
  const deliveries = new Subject<Delivery<Message>>()
  const settled: string[] = []
  const running = deliveries.pipe(pulsarSink(connection)).subscribe()
  const give = (messages: readonly Message[]): void => messages.forEach((value) => deliveries.next({ value, settle: ({ kind }) => settled.push(`${kind} ${value.id}`) }))
  return { states, settled, give, running }
}
const message = (n: number, properties: Record<string, string> = {}): Message => ({ id: `m${n}`, body: Buffer.from(`{"n":${n},"pad":"${'x'.repeat(200)}"}`), properties })
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
const firsts = (ids: readonly (string | undefined)[]) => [...new Set(ids)]

await describeWire('Pulsar', ({ pulsarUrl }) => {
  it('a message that makes the server close the socket is found, rejected, and its neighbours arrive in order', async () => {
    const { topic } = ownNames()
    const { give, settled, running } = sender({ url: pulsarUrl, topic })
    const poison = { ...message(25), properties: { bad: null as unknown as string } }
    give([...range(0, 25).map((n) => message(n)), poison, ...range(26, 50).map((n) => message(n))])
    await eventually('all answered', () => settled.length === 50, 20_000)
    running.unsubscribe()
    expect(settled.filter((line) => line.startsWith('rejected'))).toEqual(['rejected m25'])
    const arrived = await readTopic(pulsarUrl, topic, { until: (all) => all.at(-1)?.properties['messageId'] === 'm49', deadlineMs: 20_000 })
    expect(firsts(arrived.map(({ properties }) => properties['messageId']))).toEqual(range(0, 50).filter((n) => n !== 25).map((n) => `m${n}`))
  }, 90_000)

  it('a topic that cannot be is told apart from a broker that is away, and tried again slowly', async () => {
    const { states, running, give } = sender({ url: pulsarUrl, topic: 'persistent://public/nowhere/t' })
    give([message(1)])
    await eventually('told', () => states.some((state) => state.includes('misconfigured')))
    running.unsubscribe()
  })
})

describeFaults('Pulsar that dies and freezes', (own) => {
  beforeAll(() => own.start('pulsar'), 120_000)

  it('killed with a window in flight and started again: all there, first occurrences in order', async () => {
    const topic = 'persistent://public/default/killed'
    const { give, settled, running } = sender({ url: own.pulsarUrl, topic })
    give(range(0, 500).map((n) => message(n)))
    await eventually('some', () => settled.length > 100)
    give(range(500, 5000).map((n) => message(n)))
    await own.kill('pulsar')
    expect(settled.length, 'something was in flight').toBeLessThan(5000)
    await own.start('pulsar')
    await eventually('all', () => settled.length === 5000, 90_000)
    running.unsubscribe()
    expect(settled.every((line) => line.startsWith('accepted'))).toBe(true)
    const arrived = await readTopic(own.pulsarUrl, topic, { until: (all) => all.at(-1)?.properties['messageId'] === 'm4999', deadlineMs: 60_000 })
    expect(firsts(arrived.map(({ properties }) => properties['messageId']))).toEqual(range(0, 5000).map((n) => `m${n}`))
    expect(arrived.length - 5000, 'at most the window is doubled').toBeLessThanOrEqual(1000)
  }, 240_000)

  it('frozen: noticed by the ping, and everything unconfirmed is sent again when it thaws', async () => {
    const topic = 'persistent://public/default/frozen'
    const { give, settled, states, running } = sender({ url: own.pulsarUrl, topic, pingMs: 200, silenceMs: 600, handshakeTimeoutMs: 1000 })
    give(range(0, 100).map((n) => message(n)))
    await eventually('all', () => settled.length === 100)
    await own.freeze('pulsar')
    give(range(100, 200).map((n) => message(n)))
    await eventually('noticed', () => states.some((state) => state.includes('nothing heard')), 10_000)
    await own.thaw('pulsar')
    await eventually('all again', () => settled.length === 200, 60_000)
    running.unsubscribe()
    const arrived = await readTopic(own.pulsarUrl, topic, { until: (all) => all.at(-1)?.properties['messageId'] === 'm199', deadlineMs: 30_000 })
    expect(firsts(arrived.map(({ properties }) => properties['messageId']))).toEqual(range(0, 200).map((n) => `m${n}`))
  }, 120_000)
})

describeFaults(
  'Pulsar that asks for a token',
  (own) => {
    beforeAll(async () => {
      process.env['PULSAR_TOKEN'] = admin
      await own.start('pulsar')
    }, 120_000)

    it('none and a wrong one are told as unauthorised, and asked for again; the right one is taken, and never told', async () => {
      let token: string | undefined
      const { give, settled, states, running } = sender({ url: own.pulsarUrl, topic: 'persistent://public/default/guarded', token: () => token })
      give([message(1)])
      await eventually('none', () => states.some((state) => state.includes('unauthorised')))
      token = tokenFor('admin', Buffer.from('another secret, of 32 bytes too!'))
      const before = states.length
      await eventually('wrong', () => states.slice(before).some((state) => state.includes('unauthorised')), 20_000)
      expect(settled).toEqual([])
      token = admin
      await eventually('taken', () => settled.length === 1, 30_000)
      running.unsubscribe()
      expect(states.join()).not.toContain(admin)
    }, 90_000)
  },
  { pulsarConf: tokenConf },
)
