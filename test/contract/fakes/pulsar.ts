/** Pulsar as a script: an endpoint of its WebSocket API on loopback, and a native client with the package's own types. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { Client, MessageId, Producer, ProducerConfig, ProducerMessage } from 'pulsar-client'
import { WebSocketServer } from 'ws'
import type { WebSocket } from 'ws'
import type { PulsarModule } from '../../../src/connections/pulsar-native.js'

/** One write as the far end saw it, and the ways to answer. */
export interface Seen {
  readonly id: string
  readonly payload: string
  /** The connection that it came over, from 1. */
  readonly session: number
  readonly store: () => void
  /** For good: this message alone. */
  readonly refuse: () => void
  /** Not now. */
  readonly fail: () => void
}

export interface FakePulsar {
  readonly url: string
  readonly load?: () => Promise<PulsarModule>
  readonly seen: Seen[]
  /** Waits until so many writes have come. */
  readonly until: (count: number) => Promise<readonly Seen[]>
  readonly sessions: () => number
  /** How many connections are open now. */
  readonly open: () => number
  /** Ends every connection. */
  readonly lose: () => void
  readonly dispose: () => Promise<void>
}

const watched = () => {
  const seen: Seen[] = []
  let wake: (() => void)[] = []
  return {
    seen,
    add: (one: Seen): void => {
      seen.push(one)
      wake.forEach((tell) => tell())
      wake = []
    },
    until: async (count: number): Promise<readonly Seen[]> => {
      const late = AbortSignal.timeout(5000)
      while (seen.length < count) {
        if (late.aborted) throw new Error(`${seen.length} of ${count} writes came`)
        await Promise.race([new Promise<void>((resolve) => wake.push(resolve)), new Promise((resolve) => setTimeout(resolve, 100))])
      }
      return seen
    },
  }
}

/** What a real one does only when it is ill. */
export interface WebSocketIllness {
  /** Closes the socket, as a server that cannot bear the message. */
  readonly poison?: (id: string) => boolean
  /** Answers no ping. */
  readonly deaf?: boolean
  readonly pinged?: () => void
}

export const fakeWebSocketPulsar = async ({ poison = () => false, deaf = false, pinged = () => undefined }: WebSocketIllness = {}): Promise<FakePulsar> => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', autoPong: !deaf })
  await once(server, 'listening')
  const { seen, add, until } = watched()
  let sessions = 0
  server.on('connection', (socket: WebSocket) => {
    sessions += 1
    const session = sessions
    socket.on('ping', pinged)
    socket.on('message', (data: Buffer) => {
      const { payload, context, properties } = JSON.parse(data.toString()) as { payload: string; context: string; properties: { messageId: string } }
      const say = (reply: object): void => socket.send(JSON.stringify({ errorCode: 0, ...reply }))
      if (poison(properties.messageId)) return socket.close(1011)
      add({
        id: properties.messageId,
        payload: Buffer.from(payload, 'base64').toString(),
        session,
        store: () => say({ result: 'ok', messageId: 'CAE=', context }),
        refuse: () => say({ result: 'send-error:8', errorMsg: 'org.apache.pulsar.client.api.PulsarClientException$InvalidMessageException: too large', context }),
        fail: () => say({ result: 'send-error:8', errorMsg: 'org.apache.pulsar.client.api.PulsarClientException$ProducerQueueIsFullError: full', context }),
      })
    })
  })
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    until,
    sessions: () => sessions,
    open: () => server.clients.size,
    lose: () => server.clients.forEach((socket) => socket.terminate()),
    dispose: async () => {
      server.clients.forEach((socket) => socket.terminate())
      server.close()
      await once(server, 'close')
    },
  }
}

export const fakeNativePulsar = (): Promise<FakePulsar> => {
  const { seen, add, until } = watched()
  let sessions = 0
  let open = 0
  let lost: (() => void)[] = []
  class FakeClient implements Pick<Client, 'createProducer' | 'close'> {
    static setLogHandler(): void {
      // A real one would print to standard output.
    }
    createProducer(config: ProducerConfig): Promise<Producer> {
      sessions += 1
      open += 1
      const session = sessions
      const send = ({ data, properties = {} }: ProducerMessage): Promise<MessageId> =>
        new Promise((resolve, reject) => {
          const error = (result: string) => reject(new Error(`Failed to send message: ${result}`))
          lost.push(() => error('AlreadyClosed'))
          add({
            id: properties['messageId'] ?? '',
            payload: data.toString(),
            session,
            store: () => resolve({} as MessageId),
            refuse: () => error('MessageTooBig'),
            fail: () => error('ProducerQueueIsFull'),
          })
        })
      let closed = false
      const close = (): Promise<null> => {
        if (!closed) open -= 1
        closed = true
        return Promise.resolve(null)
      }
      return Promise.resolve({ send, close, flush: () => Promise.resolve(null), getProducerName: () => '', getTopic: () => config.topic, isConnected: () => true })
    }
    close(): Promise<null> {
      return Promise.resolve(null)
    }
  }
  const module = { Client: FakeClient, AuthenticationToken: class {} } as unknown as PulsarModule
  return Promise.resolve({
    url: 'pulsar://127.0.0.1:1',
    load: () => Promise.resolve(module),
    seen,
    until,
    sessions: () => sessions,
    open: () => open,
    lose: () => lost.splice(0).forEach((end) => end()),
    dispose: () => {
      lost = []
      return Promise.resolve()
    },
  })
}
