import { Observable, Subscription } from 'rxjs'
import { decodeMessage } from '../message.js'
import type { Message } from '../message.js'
import type { AmqpConsumer } from './amqp-port.js'
import type { AmqpQueue } from './amqp-reader.js'
import type { QueueEngine } from './queue-engine.js'

const pageEntries = 256

/**
 * An embedded queue that nobody else reads, consumed like one of RabbitMQ: unsubscribing puts
 * what was not accepted back to its place.
 *
 * **Holds**: what it gave; at most `prefetch` not accepted, no limit when that is 0.
 */
export const embeddedChannel = ({ next, settle: remove, rewind }: QueueEngine): AmqpQueue => ({
  consume: (prefetch: number, give: (message: Message, tag: number) => void) =>
    new Observable<AmqpConsumer>((subscriber) => {
      let outside = 0
      let reading = false
      const asked = new Subscription()
      const read = (): void => {
        const room = prefetch === 0 ? pageEntries : Math.min(pageEntries, prefetch - outside)
        if (reading || room <= 0 || asked.closed) return
        reading = true
        asked.add(
          next(room).subscribe({
            next: (entries) => {
              outside += entries.length
              for (const { seq, body, headers } of entries) give(decodeMessage(body, headers), seq)
            },
            error: (error: unknown) => subscriber.error(error),
            complete: () => {
              reading = false
              read()
            },
          }),
        )
      }
      subscriber.next({
        accept: (seq) => {
          remove(seq)
          outside -= 1
          read()
        },
        cancel: () => asked.unsubscribe(),
      })
      read()
      return () => {
        asked.unsubscribe()
        rewind()
      }
    }),
})
