import { Subject } from 'rxjs'
import type { Subscription } from 'rxjs'
import { afterEach, describe, expect, it } from 'vitest'
import { classify, isPoison, unavailable } from '../../src/connections/pulsar-answers.js'
import { pulsarNativeWriter } from '../../src/connections/pulsar-native.js'
import { pulsarWebSocketWriter } from '../../src/connections/pulsar-websocket.js'
import type { PulsarWriterSettings } from '../../src/connections/pulsar-websocket.js'
import { HandshakeRefused, SocketClosed } from '../../src/connections/web-socket.js'
import type { Delivery, Outcome } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'
import { fakeNativePulsar, fakeWebSocketPulsar } from './fakes/pulsar.js'
import type { FakePulsar, WebSocketIllness } from './fakes/pulsar.js'

const eventually = async (what: string, ask: () => boolean): Promise<void> => {
  for (const end = Date.now() + 5000; !ask(); await new Promise((resolve) => setTimeout(resolve, 5))) if (Date.now() > end) throw new Error(what)
}

/** One contract for both adapters: only the fake far end differs. */
for (const [name, fake] of [['WebSocket', fakeWebSocketPulsar], ['native', fakeNativePulsar]] as const)
  describe(`the ${name} writer`, () => {
    let pulsar: FakePulsar | undefined
    let running: Subscription | undefined
    afterEach(async () => {
      running?.unsubscribe()
      await pulsar?.dispose()
    })
    const start = async (settings: Partial<PulsarWriterSettings> = {}, window = 1000) => {
      const far = (pulsar = await fake())
      const late: string[] = []
      const given: PulsarWriterSettings = { url: far.url, topic: 'persistent://public/default/t', key: 'k', confirmTimeoutMs: 5000, lateAnswer: () => late.push('late'), ...settings }
      const connection = far.load === undefined ? pulsarWebSocketWriter(given) : pulsarNativeWriter(given, far.load)
      const deliveries = new Subject<Delivery<Message>>()
      const settled: string[] = []
      running = deliveries.pipe(pulsarSink(connection, { window })).subscribe()
      const give = (...ids: string[]): void =>
        ids.forEach((id) => deliveries.next({ value: { id, body: Buffer.from(`{"id":"${id}"}`), properties: {} }, settle: ({ kind }: Outcome) => settled.push(`${id} ${kind}`) }))
      return { far, give, settled, late, deliveries }
    }
    const ids = (far: FakePulsar, session?: number) => far.seen.filter((one) => session === undefined || one.session === session).map(({ id }) => id)

    it('writes in order, byte for byte, and settles at the receipt and not before', async () => {
      const { far, give, settled } = await start()
      give('a', 'b', 'c')
      const [a, b] = await far.until(3)
      expect(ids(far)).toEqual(['a', 'b', 'c'])
      expect(a?.payload).toBe('{"id":"a"}')
      expect(settled).toEqual([])
      a?.store()
      await eventually('a', () => settled.length === 1)
      b?.store()
      await eventually('b', () => settled.length === 2)
      expect(settled).toEqual(['a accepted', 'b accepted'])
    })
    it('matches receipts that come in another order', async () => {
      const { far, give, settled } = await start()
      give('a', 'b', 'c')
      const seen = await far.until(3)
      for (const i of [2, 0, 1]) {
        seen[i]?.store()
        await eventually('one more', () => settled.length === [2, 0, 1].indexOf(i) + 1)
      }
      expect(settled).toEqual(['c accepted', 'a accepted', 'b accepted'])
    })
    it('never has more out than the window', async () => {
      const { far, give, settled } = await start({}, 2)
      give('a', 'b', 'c', 'd')
      await far.until(2)
      far.seen[0]?.store()
      await far.until(3)
      expect(ids(far)).toEqual(['a', 'b', 'c'])
      expect(settled).toEqual(['a accepted'])
    })
    it('rejects what is refused for good, that alone, and goes on', async () => {
      const { far, give, settled } = await start()
      give('a', 'b', 'c')
      const seen = await far.until(3)
      seen[1]?.refuse()
      await eventually('b', () => settled.length === 1)
      seen[0]?.store()
      seen[2]?.store()
      await eventually('all', () => settled.length === 3)
      expect(settled.sort()).toEqual(['a accepted', 'b rejected', 'c accepted'])
      expect(far.sessions()).toBe(1)
    })
    it('takes any other failure for the connection’s: everything unconfirmed again, in order, before anything new', async () => {
      const { far, give, settled } = await start()
      give('a', 'b', 'c')
      const seen = await far.until(3)
      seen[0]?.store()
      await eventually('a', () => settled.length === 1)
      seen[1]?.fail()
      give('d')
      await eventually('written again', () => ids(far, 2).length === 3)
      expect(ids(far, 2)).toEqual(['b', 'c', 'd'])
    })
    it('writes everything unconfirmed again after a loss, in order', async () => {
      const { far, give } = await start()
      give('a', 'b', 'c')
      await far.until(3)
      far.lose()
      await eventually('written again', () => ids(far, 2).length === 3)
      expect(ids(far, 2)).toEqual(['a', 'b', 'c'])
    })
    it('gives a far end up that is silent, by its own confirm time-out', async () => {
      const { far, give, settled } = await start({ confirmTimeoutMs: 100 })
      give('a', 'b')
      await eventually('written again', () => ids(far, 2).length === 2)
      // On a busy machine the second session may be given up too before it has answered.
      await eventually('settled', () => {
        far.seen.filter(({ session }) => session > 1).forEach((one) => one.store())
        return settled.length === 2
      })
      expect(settled).toEqual(['a accepted', 'b accepted'])
    })
    it('settles nothing by a receipt of a connection that is gone', async () => {
      const { far, give, settled } = await start({ confirmTimeoutMs: 100 })
      give('a')
      const [first] = await far.until(1)
      await far.until(2)
      first?.store()
      await new Promise((resolve) => setTimeout(resolve, 20))
      expect(settled).toEqual([])
    })
    it('rejects what is too large, unsent, and its neighbours arrive', async () => {
      const { far, give, settled, deliveries } = await start({ maxMessageBytes: 100 })
      give('a')
      deliveries.next({ value: { id: 'big', body: Buffer.alloc(101), properties: {} }, settle: ({ kind }) => settled.push(`big ${kind}`) })
      give('c')
      await far.until(2)
      expect(ids(far)).toEqual(['a', 'c'])
      expect(settled).toEqual(['big rejected'])
    })
    it('closes when it is unsubscribed', async () => {
      const { far, give } = await start()
      give('a')
      await far.until(1)
      running?.unsubscribe()
      await eventually('closed', () => far.open() === 0)
    })
  })

describe('the WebSocket writer, with a server that is ill', () => {
  let pulsar: FakePulsar | undefined
  let running: Subscription | undefined
  afterEach(async () => {
    running?.unsubscribe()
    await pulsar?.dispose()
  })
  const start = async (illness: WebSocketIllness) => {
    const far = (pulsar = await fakeWebSocketPulsar(illness))
    const lost: string[] = []
    const settled: string[] = []
    const connection = pulsarWebSocketWriter({
      url: far.url,
      topic: 'persistent://public/default/t',
      key: 'k',
      pingMs: 50,
      silenceMs: 500,
      onState: (state) => state.kind === 'lost' && lost.push(String(state.error)),
    })
    const deliveries = new Subject<Delivery<Message>>()
    running = deliveries.pipe(pulsarSink(connection)).subscribe()
    const give = (...ids: string[]): void =>
      ids.forEach((id) => deliveries.next({ value: { id, body: Buffer.from('{}'), properties: {} }, settle: ({ kind }) => settled.push(`${id} ${kind}`) }))
    return { far, give, lost, settled }
  }

  it('finds the message for which the server closes the socket, rejects it, and its neighbours arrive in order', async () => {
    const { far, give, settled } = await start({ poison: (id) => id === 'c' })
    give('a', 'b', 'c', 'd')
    // The first socket dies with all of them out; then each goes alone.
    await eventually('all answered', () => {
      far.seen.filter(({ session }) => session > 1).forEach((one) => one.store())
      return settled.length === 4
    })
    expect(settled).toEqual(['a accepted', 'b accepted', 'c rejected', 'd accepted'])
  })
  it('gives up a peer that answers no ping', async () => {
    const { lost } = await start({ deaf: true })
    await eventually('noticed', () => lost.length > 0)
    expect(lost[0]).toMatch(/nothing heard for 500 ms/)
  })
  it('keeps a peer that answers pings, though nothing is said', async () => {
    let pings = 0
    const { far, lost } = await start({ pinged: () => (pings += 1) })
    await eventually('pinged for longer than the silence it bears', () => pings >= 15 || lost.length > 0)
    expect([lost, far.sessions()]).toEqual([[], 1])
  })
})

describe('the native client', () => {
  it('that is missing is an error with a code, and says how to get it', async () => {
    const missing = pulsarNativeWriter({ url: 'pulsar://x', topic: 't', key: 'k' }, () => Promise.reject(new Error('Cannot find module')))
    const error = await new Promise<{ code?: string; message?: string }>((resolve) => missing.subscribe({ error: resolve }))
    expect(error).toMatchObject({ code: 'BACKHAUL_PULSAR_NATIVE_MISSING', message: expect.stringMatching(/npm install pulsar-client.*npm rebuild pulsar-client.*ws:\/\//) as string })
  })
})

describe('what an answer means', () => {
  const failure = (name: string) => JSON.stringify({ result: 'send-error:8', errorMsg: `org.apache.pulsar.client.api.PulsarClientException$${name}: text`, context: '7' })
  it.each([
    ['{"result":"ok","messageId":"x","context":"7"}', { kind: 'stored', context: '7' }],
    ['{"result":"send-error:7","errorMsg":"bad payload","context":"7"}', { kind: 'refused', context: '7' }],
    [failure('InvalidMessageException'), { kind: 'refused' }],
    [failure('IncompatibleSchemaException'), { kind: 'refused' }],
    [failure('TopicTerminatedException'), { kind: 'failed', retryAfterMs: 60_000 }],
    [failure('ProducerBlockedQuotaExceededException'), { kind: 'failed', retryAfterMs: 0 }],
    [failure('SomethingNobodyNamed'), { kind: 'failed', retryAfterMs: 0 }],
    ['{"result":"send-error:3","errorMsg":"not understood"}', { kind: 'fault' }],
    ['{"result":"ok"}', { kind: 'fault' }],
    ['no JSON', { kind: 'fault' }],
  ])('%s', (text, expected) => expect(classify(text)).toMatchObject(expected))
  it.each([
    [new HandshakeRefused(401, 'Authentication required'), 'unauthorised', 5000],
    [new HandshakeRefused(403, 'Not authorized'), 'unauthorised', 5000],
    [new HandshakeRefused(404, 'Namespace not found'), 'misconfigured', 60_000],
    [new HandshakeRefused(500, 'java.lang.IllegalArgumentException'), 'misconfigured', 60_000],
    [new HandshakeRefused(503, 'busy'), 'away', 0],
    [new Error('ECONNREFUSED'), 'away', 0],
  ] as const)('%s: %s', (error, kind, retryAfterMs) => expect(unavailable(error)).toMatchObject({ kind, retryAfterMs }))
  it('closes with 1002, 1007, 1009 and 1011 point at a message, others at the connection', () => {
    expect([1002, 1007, 1009, 1011].every((code) => isPoison(new SocketClosed(code, '')))).toBe(true)
    expect([1000, 1001, 1006].some((code) => isPoison(new SocketClosed(code, '')))).toBe(false)
  })
})
