import type { Connection, Sink } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'

/** Writes to the local topic log: accepted means synced. */
export const topicLogSink = (connection: Connection<Message>): Sink<Message> => deliver(connection, { sink: 'topic-log' })
