import type { Observable } from 'rxjs'
import type { AmqpProperties } from './amqp-message.js'

/**
 * What Backhaul needs of an AMQP client, as observables: amqplib stands behind it
 * (`openAmqp`), and a scripted broker in marbles. Subscribing opens and unsubscribing
 * closes, connections as well as channels; an error means that it is lost.
 */
export type OpenAmqp = (url: string, options: { readonly heartbeatS: number; readonly connectTimeoutMs: number }) => Observable<AmqpLink>

/** An open connection. */
export interface AmqpLink {
  readonly serverVersion: string
  /** What the broker's cluster calls itself; left out when it does not tell. */
  readonly clusterName?: string
  /** The reason, each time the broker blocks publishers; `undefined` when it lets them again. */
  readonly blocked: Observable<string | undefined>
  /** Emits the channel once it is open. Closing sends what was acknowledged on it, and requeues the rest in order. */
  readonly channel: (options: { readonly confirms: boolean }) => Observable<AmqpChannel>
}

/** An open channel. */
export interface AmqpChannel {
  /** Errors with `code` 404 when the queue is not there, and the channel is lost. */
  readonly check: (queue: string) => Observable<AmqpQueueCounts>
  readonly declare: (queue: string, queueArguments: Readonly<Record<string, unknown>>) => Observable<unknown>
  readonly purge: (queue: string) => Observable<number>
  /** Calls `answered` at the broker's confirm, or refusal; never when the channel is lost before. Throws when it is gone. */
  readonly publish: (queue: string, body: Buffer, properties: AmqpProperties, answered: (refused: boolean) => void) => void
  /** The id of each message that no queue received; comes before its confirm. */
  readonly returned: Observable<string>
  /** Emits the consumer before its first message; errors when the broker cancels it. */
  readonly consume: (queue: string, prefetch: number, receive: (raw: RawMessage) => void) => Observable<AmqpConsumer>
}

/** What a broker tells of a queue. */
export interface AmqpQueueCounts {
  /** Those that nobody has been given. */
  readonly messages: number
  /** One that has died counts until what it held is back in the queue. */
  readonly consumers: number
}

/** A consumer that runs. */
export interface AmqpConsumer {
  /** Acknowledges one delivery, or everything up to it. Throws when the channel is gone. */
  readonly accept: (tag: number, upTo: boolean) => void
  /** Asks for no more; what comes before the broker has heard is left to the channel's close. */
  readonly cancel: () => void
}

/** A message as it comes from a queue; any program may have written it. */
export interface RawMessage {
  readonly content: Buffer
  readonly fields: { readonly deliveryTag: number; readonly redelivered: boolean }
  readonly properties: { readonly messageId?: unknown; readonly headers?: Readonly<Record<string, unknown>> | undefined }
}
