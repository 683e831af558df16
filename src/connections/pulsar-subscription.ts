import { Observable, Subject } from 'rxjs'
import { PulsarUnavailable, unavailable } from './pulsar-answers.js'
import { authorization, topicPath } from './pulsar-endpoint.js'
import type { PulsarSettings } from './pulsar-endpoint.js'
import { reconnect } from './reconnect.js'
import { openWebSocket } from './web-socket.js'

/** A message of a topic that is followed. */
export interface TopicMessage {
  readonly topic: string
  readonly messageId: string
  readonly payload: Buffer
  readonly properties: Readonly<Record<string, string>>
}

/** A durable subscription that is connected. Nothing comes before it is asked for. */
export interface TopicConsumer {
  readonly messages: Observable<TopicMessage>
  /** Asks for so many more. */
  readonly permit: (count: number) => void
  readonly accept: (messageId: string) => void
  /** Lets the connection go; what was not accepted comes again with the next. */
  readonly reopen: () => void
}

export interface PulsarSubscriptionSettings extends PulsarSettings {
  /** The name under which the broker keeps our place, and the messages from it on. */
  readonly subscription: string
}

interface ConsumerFrame {
  readonly messageId?: unknown
  readonly payload?: unknown
  readonly properties?: Record<string, string>
}

/** Undefined for a frame about something else. **Fails** when it is no frame of this API. */
const topicMessage = (topic: string, text: string): TopicMessage | undefined => {
  const { messageId, payload = '', properties = {} } = JSON.parse(text) as ConsumerFrame
  if (messageId === undefined) return undefined
  if (typeof messageId !== 'string' || typeof payload !== 'string') throw new TypeError('neither an id nor a payload')
  return { topic, messageId, payload: Buffer.from(payload, 'base64'), properties }
}

/**
 * Follows a topic over Pulsar's WebSocket API by a durable subscription: what is published
 * while nobody is connected waits there. A new subscription starts with the oldest message.
 */
export const pulsarWebSocketSubscription = (settings: PulsarSubscriptionSettings): Observable<TopicConsumer | undefined> => {
  const { url, topic, subscription, token, onState, open = openWebSocket } = settings
  const query = 'subscriptionType=Failover&subscriptionInitialPosition=Earliest&receiverQueueSize=10&pullMode=true'
  const address = `${url.replace(/\/$/, '')}/ws/v2/consumer/${topicPath(topic)}/${encodeURIComponent(subscription)}?${query}`
  const attempt = (proven: () => void): Observable<TopicConsumer> =>
    new Observable((subscriber) => {
      const messages = new Subject<TopicMessage>()
      const understood = (text: string): TopicMessage | undefined => {
        try {
          return topicMessage(topic, text)
        } catch {
          subscriber.error(new PulsarUnavailable('away', 'it sent a frame that no topic has', 0))
          return undefined
        }
      }
      const receive = (text: string): void => {
        const message = understood(text)
        if (message === undefined) return
        proven()
        messages.next(message)
      }
      return open(address, receive, { ...settings, headers: authorization(token) }).subscribe({
        next: ({ send }) =>
          subscriber.next({
            messages,
            permit: (count) => send(JSON.stringify({ type: 'permit', permitMessages: count })),
            accept: (messageId) => send(JSON.stringify({ messageId })),
            reopen: () => subscriber.error(new PulsarUnavailable('away', 'a message was released', 0)),
          }),
        error: (error: unknown) => subscriber.error(unavailable(error)),
      })
    })
  return reconnect(attempt, onState === undefined ? {} : { onState })
}
