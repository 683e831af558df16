import { asyncScheduler, catchError, defer, Observable, Subject, switchMap, throwError } from 'rxjs'
import type { Subscriber, Subscription } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Connection } from '../delivery.js'
import { defaultMaxMessageBytes } from '../message.js'
import type { Message } from '../message.js'
import { classify, isPoison, PulsarUnavailable, unavailable } from './pulsar-answers.js'
import { authorization, topicPath } from './pulsar-endpoint.js'
import type { PulsarSettings } from './pulsar-endpoint.js'
import { patience } from './patience.js'
import { reconnect } from './reconnect.js'
import { openWebSocket } from './web-socket.js'
import type { OpenSocket } from './web-socket.js'

export interface PulsarWriterSettings extends PulsarSettings {
  /** The key of every message: the device's serial. */
  readonly key: string
  /** The most messages that will be unconfirmed at once. @default 1000 */
  readonly window?: number
  /** A larger payload is rejected unsent. @default 700 KiB */
  readonly maxMessageBytes?: number
  /** The oldest unconfirmed message may be this old, then the socket is given up. @default 30000 */
  readonly confirmTimeoutMs?: number
  /** Called for an answer that came for nothing that is out. */
  readonly lateAnswer?: () => void
}

/** What Pulsar's server takes as one text frame, as shipped; whoever allows larger messages has raised it there. */
const frameLimit = (maxMessageBytes: number): number => Math.max(1024 * 1024, Math.ceil((maxMessageBytes * 4) / 3) + 16 * 1024)
/** A frozen peer takes nothing: beyond this, frames wait here. */
const maxBufferedBytes = 1024 * 1024
const drainMs = 5
/** Answers that cannot be attributed, in a row, before the culprit is looked for. */
const maxFaults = 3

/** What Pulsar says to a message that it has: whether this was a repeat, which it did not store again. */
export interface Receipt {
  readonly repeat: boolean
}

interface Write {
  readonly message: Message
  readonly done: Subscriber<Receipt>
  since: number
}

/** What survives a socket: whether the next one must find out which message the server cannot bear. */
interface Suspicion {
  /** So many messages go one at a time: they were in flight when it happened. */
  alone: number
  faults: number
}

/** Whether it is too large to be sent, by a bound that needs no frame; what passes here passes there. */
export const tooLarge = ({ id, body, properties }: Message, { key, maxMessageBytes = defaultMaxMessageBytes }: PulsarWriterSettings): string | undefined => {
  if (body.length > maxMessageBytes) return `larger than ${maxMessageBytes} bytes`
  const frameBytes = Math.ceil((body.length + 2) / 3) * 4 + Buffer.byteLength(JSON.stringify({ properties, id, key })) + 200
  return frameBytes > frameLimit(maxMessageBytes) ? `larger than the ${frameLimit(maxMessageBytes)} bytes of one frame` : undefined
}

const frameOf = ({ id, body, properties }: Message, key: string, context: string): string =>
  JSON.stringify({ payload: body.toString('base64'), properties: { ...properties, messageId: id }, key, context })

const writerOn = (
  socket: OpenSocket,
  answers: Observable<string>,
  { key, confirmTimeoutMs = 30_000, maxMessageBytes = defaultMaxMessageBytes, lateAnswer = () => {} }: PulsarWriterSettings,
  suspicion: Suspicion,
  proven: () => void,
): Observable<(message: Message) => Observable<Receipt>> =>
  new Observable((subscriber) => {
    const maxFrameBytes = frameLimit(maxMessageBytes)
    const out = new Map<string, Write>() // sent and unconfirmed, in order
    const held: Write[] = [] // not sent: the socket takes no more, or one goes at a time
    let number = 0
    let drain: Subscription | undefined

    const oldest = (): number | undefined => {
      const [first] = out.values()
      return first?.since
    }
    const receipts = patience(confirmTimeoutMs, oldest, () =>
      subscriber.error(new PulsarUnavailable('away', `no receipt for ${confirmTimeoutMs} ms`, 0)),
    )
    const closed = (): boolean => (suspicion.alone > 0 ? out.size > 0 : socket.bufferedBytes() > maxBufferedBytes)
    const send = (write: Write): void => {
      number += 1
      const context = String(number)
      const frame = frameOf(write.message, key, context)
      if (Buffer.byteLength(frame) > maxFrameBytes)
        return write.done.error(new Rejection(`larger than the ${maxFrameBytes} bytes of one frame`, 'pulsar'))
      write.since = asyncScheduler.now()
      out.set(context, write)
      socket.send(frame)
      receipts.watch()
    }
    const pump = (): void => {
      drain = undefined
      while (held.length > 0 && !closed()) {
        const write = held.shift() as Write
        if (!write.done.closed) send(write)
      }
      if (held.length > 0 && out.size === 0) drain = asyncScheduler.schedule(pump, drainMs)
    }
    /** Ends the socket; when something that is out has killed it, finds out what. */
    const giveUp = (error: unknown): void => {
      const reason = unavailable(error)
      const suspects = [...out.values()]
      if ((isPoison(error) || suspicion.faults >= maxFaults) && suspects.length > 0) {
        // Alone on the socket, and again: it is this message that the server cannot bear.
        const found = suspicion.alone > 0 && suspects.length === 1
        suspicion.alone = found ? 0 : suspects.length
        suspicion.faults = 0
        if (found) suspects[0]?.done.error(new Rejection(`Pulsar cannot take it: ${reason.message}`, 'pulsar'))
      }
      subscriber.error(reason)
    }
    const answered = (text: string): void => {
      const answer = classify(text)
      if (answer.kind === 'fault') suspicion.faults += 1
      if (answer.kind === 'fault' || answer.kind === 'failed')
        return giveUp(new PulsarUnavailable('away', answer.reason, answer.kind === 'failed' ? answer.retryAfterMs : 0))
      const write = out.get(answer.context)
      if (write === undefined) return lateAnswer()
      out.delete(answer.context)
      suspicion.alone = Math.max(0, suspicion.alone - 1)
      suspicion.faults = 0
      proven()
      if (answer.kind === 'stored') {
        write.done.next({ repeat: answer.repeat })
        write.done.complete()
      } else write.done.error(new Rejection(answer.reason, 'pulsar'))
      if (held.length > 0) pump()
    }
    subscriber.add(answers.subscribe({ next: answered, error: giveUp }))
    subscriber.next((message) => {
      if (message.body.length > maxMessageBytes) throw new Rejection(`larger than ${maxMessageBytes} bytes`, 'pulsar')
      return new Observable<Receipt>((done) => {
        const write: Write = { message, done, since: 0 }
        if (held.length > 0 || closed()) {
          held.push(write)
          drain ??= asyncScheduler.schedule(pump, drainMs)
        } else send(write)
      })
    })
    return () => {
      receipts.stop()
      drain?.unsubscribe()
    }
  })

/** One attempt at a producer: a writer, once its socket is open. */
export type OpenProducer = (query: Readonly<Record<string, string>>, proven: () => void) => Observable<(message: Message) => Observable<Receipt>>

/** Opens producers of a topic, one after the other; they share what is known about messages that the server cannot bear. */
export const pulsarProducers = (settings: PulsarWriterSettings): OpenProducer => {
  const { url, topic, token, open = openWebSocket } = settings
  const address = `${url.replace(/\/$/, '')}/ws/v2/producer/${topicPath(topic)}`
  const suspicion: Suspicion = { alone: 0, faults: 0 }
  return (query, proven) =>
    defer(() => {
      const answers = new Subject<string>()
      const asked = new URLSearchParams({ ...query, sendTimeoutMillis: '0' }).toString()
      return open(`${address}?${asked}`, (text) => answers.next(text), { ...settings, headers: authorization(token) }).pipe(
        catchError((error: unknown) => {
          answers.error(error)
          return throwError(() => unavailable(error))
        }),
        switchMap((socket) => writerOn(socket, answers, settings, suspicion, proven)),
      )
    })
}

/**
 * Sends to a topic over Pulsar's WebSocket API, batched by the server.
 *
 * A write completes at Pulsar's receipt for it, matched by context. It errors with a
 * `Rejection` when the payload or the frame is too large, when Pulsar refuses this message
 * for good, and when it has proved to be what makes the server close the socket. Everything
 * else, a receipt that does not come within `confirmTimeoutMs` included, ends the socket.
 *
 * **Orders**: a topic without partitions stores in the order of writing.
 */
export const pulsarWebSocketWriter = (settings: PulsarWriterSettings): Connection<Message> => {
  const { window = 1000, onState } = settings
  const query = {
    batchingEnabled: 'true',
    batchingMaxMessages: '1000',
    batchingMaxPublishDelay: '5',
    maxPendingMessages: String(2 * window),
  }
  const producers = pulsarProducers(settings)
  return reconnect((proven) => producers(query, proven), onState === undefined ? {} : { onState })
}
