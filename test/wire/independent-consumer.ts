/**
 * A witness for tests: reads and writes Pulsar topics with nothing of Backhaul's own, straight over the
 * WebSocket API, so that what a test counts was not counted by the code under test.
 */
import { randomUUID } from 'node:crypto'
import WebSocket from 'ws'

export interface TopicMessage {
  /** The bytes as Pulsar stored them. */
  readonly payload: Buffer
  readonly properties: Readonly<Record<string, string>>
  readonly key: string | undefined
  readonly messageId: string
}

export interface ReadOptions {
  /** How many, or a test over all read so far. Left out: all that the topic held when the read began. */
  readonly until?: number | ((messages: readonly TopicMessage[]) => boolean)
  /** A read that has not reached `until` by then fails, and says how far it came (30 s). */
  readonly deadlineMs?: number
}

interface Frame {
  readonly messageId: string
  readonly payload: string
  readonly properties?: Record<string, string>
  readonly key?: string
}

const endMark = 'backhaul-test-end'

const path = (topic: string): string => {
  const [, domain = 'persistent', name = `public/default/${topic}`] = /^(\w[\w-]*):\/\/(.+)$/.exec(topic) ?? []
  return `${domain}/${name}`
}

const open = (url: string): WebSocket =>
  new WebSocket(url, { perMessageDeflate: false, handshakeTimeout: 10_000, maxPayload: 64 * 1024 * 1024 })

/** A topic name that no other test has. */
export const uniqueTopic = (name: string): string => `persistent://public/default/${name}-${randomUUID()}`

/**
 * All messages of a topic from its first one, in order, with the end marks of other reads left out.
 *
 * **Fails**: at the deadline, and when the socket closes early.
 */
export const readTopic = async (
  pulsarUrl: string,
  topic: string,
  { until, deadlineMs = 30_000 }: ReadOptions = {},
): Promise<readonly TopicMessage[]> => {
  const mark = until === undefined ? randomUUID() : undefined
  if (mark) await publishTopic(pulsarUrl, topic, [{ payload: '', properties: { [endMark]: mark } }])
  const complete = (messages: readonly TopicMessage[]): boolean =>
    typeof until === 'number' ? messages.length >= until : (until?.(messages) ?? false)

  return new Promise((resolve, reject) => {
    const messages: TopicMessage[] = []
    const socket = open(`${pulsarUrl}/ws/v2/reader/${path(topic)}?messageId=earliest&receiverQueueSize=1000`)
    const finish = (error?: Error): void => {
      clearTimeout(timer)
      socket.removeAllListeners()
      socket.on('error', () => {})
      socket.terminate()
      if (error) reject(error)
      else resolve(messages)
    }
    const failure = (what: string): Error => new Error(`${what} after ${messages.length} messages of ${topic}`)
    const timer = setTimeout(() => finish(failure(`deadline of ${deadlineMs} ms`)), deadlineMs)
    socket.on('open', () => {
      if (complete(messages)) finish()
    })
    socket.on('message', (data: Buffer) => {
      const { messageId, payload, properties = {}, key } = JSON.parse(data.toString()) as Frame
      // the server counts these frames, and stops at a thousand unanswered ones
      socket.send(JSON.stringify({ messageId }))
      if (mark && properties[endMark] === mark) return finish()
      if (endMark in properties) return
      messages.push({ messageId, payload: Buffer.from(payload, 'base64'), properties, key })
      if (complete(messages)) finish()
    })
    socket.on('error', (error) => finish(failure(error.message)))
    socket.on('close', (code) => finish(failure(`socket closed with ${code}`)))
  })
}

export interface TopicInput {
  readonly payload: string | Buffer
  readonly properties?: Readonly<Record<string, string>>
  readonly key?: string
}

/** Publishes in order; resolves when the last one is confirmed. */
export const publishTopic = (pulsarUrl: string, topic: string, inputs: readonly TopicInput[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const socket = open(`${pulsarUrl}/ws/v2/producer/${path(topic)}?sendTimeoutMillis=0`)
    let confirmed = 0
    const finish = (error?: Error): void => {
      socket.removeAllListeners()
      socket.on('error', () => {})
      socket.close()
      if (error) reject(error)
      else resolve()
    }
    socket.on('open', () => {
      if (inputs.length === 0) return finish()
      inputs.forEach(({ payload, properties = {}, key }, index) =>
        socket.send(
          JSON.stringify({ payload: Buffer.from(payload).toString('base64'), properties, key, context: `${index}` }),
        ),
      )
    })
    socket.on('message', (data: Buffer) => {
      const reply = JSON.parse(data.toString()) as { result: string; errorMsg?: string }
      if (reply.result !== 'ok') finish(new Error(`${reply.result} ${reply.errorMsg ?? ''}`))
      else if (++confirmed === inputs.length) finish()
    })
    socket.on('error', (error) => finish(error))
    socket.on('close', (code) => finish(new Error(`socket closed with ${code} after ${confirmed} confirms`)))
  })
