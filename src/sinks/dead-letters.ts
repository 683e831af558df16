import { map } from 'rxjs'
import type { Connection, Sink } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'
import type { DeadLetter } from '../operators/rescue.js'

/** A dead letter as a message: the same bytes and id, and what is known about it as properties. */
export const deadMessage = ({ value, reason, stage, attempts, firstSeen }: DeadLetter<Message>): Message => ({
  ...value,
  properties: {
    ...value.properties,
    'backhaul-reason': reason,
    'backhaul-stage': stage,
    'backhaul-attempts': String(attempts),
    'backhaul-first-seen': new Date(firstSeen).toISOString(),
  },
})

/** Keeps dead letters in a queue, as `deadMessage` shapes them. Accepted means that the queue has them. */
export const deadLetterSink =
  (connection: Connection<Message>): Sink<DeadLetter<Message>> =>
  (source) =>
    deliver(connection.pipe(map((write) => write && ((dead: DeadLetter<Message>) => write(deadMessage(dead))))), {
      sink: 'dead-letters',
    })(source)
