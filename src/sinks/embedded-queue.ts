import { map } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Connection, Sink } from '../delivery.js'
import { encodeHeaders } from '../message.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'

/** The writer's side of an embedded queue. */
export interface QueueAppender {
  /** Completes after the sync that covers the record. */
  readonly append: (body: Uint8Array, headers: Uint8Array) => Observable<number>
}

/** Accepted means synced to disk. A full queue is tried again until it has drained. */
export const embeddedQueueWriter = (queue: Observable<QueueAppender>): Connection<Message> =>
  queue.pipe(map(({ append }) => (message: Message) => append(message.body, encodeHeaders(message))))

export const embeddedQueueSink = (connection: Connection<Message>, sink = 'embedded-queue'): Sink<Message> =>
  deliver(connection, { sink })
