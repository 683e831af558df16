import type { Connection, Sink } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'

export interface RabbitmqSinkOptions {
  /** The most messages written and unconfirmed. @default 1000 */
  readonly window?: number
  /** The most bytes of them. @default 4 MiB */
  readonly windowBytes?: number
}

/** Publishes to a queue. Accepted means confirmed by RabbitMQ, and not returned. */
export const rabbitmqSink = (
  connection: Connection<Message>,
  { window = 1000, windowBytes = 4 * 1024 * 1024 }: RabbitmqSinkOptions = {},
): Sink<Message> => deliver(connection, { sink: 'rabbitmq', window, windowBytes, sizeOf: ({ body }) => body.length })
