import type { Connection, Sink } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'

export interface PulsarSinkOptions {
  /** The most messages sent and unconfirmed. @default 1000 */
  readonly window?: number
  /** The most bytes of them, as they travel. @default 4 MiB */
  readonly windowBytes?: number
}

/** Sends to a Pulsar topic. Accepted means that Pulsar gave its receipt. */
export const pulsarSink = (
  connection: Connection<Message>,
  { window = 1000, windowBytes = 4 * 1024 * 1024 }: PulsarSinkOptions = {},
): Sink<Message> =>
  deliver(connection, { sink: 'pulsar', window, windowBytes, sizeOf: ({ body }) => Math.ceil((body.length * 4) / 3) + 300 })
