import { concat, map, NEVER, switchMap, take } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Message } from '../message.js'
import { fromAmqp } from './amqp-message.js'
import type { AmqpChannel, AmqpConsumer, AmqpLink } from './amqp-port.js'
import { amqpLinks, ensureQueue } from './amqp-queue.js'
import type { AmqpSettings, DeclaredQueue } from './amqp-queue.js'
import { reconnect } from './reconnect.js'

/** A queue that can be consumed over the present connection. */
export interface AmqpQueue {
  /**
   * Consumes on a channel of its own, at most `prefetch` unacknowledged. Emits the consumer
   * before its first message; errors when the channel, the consumer or the connection is
   * lost; unsubscribing closes the channel, which requeues what is unacknowledged, in order.
   */
  readonly consume: (prefetch: number, give: (message: Message, tag: number) => void) => Observable<AmqpConsumer>
}

export interface AmqpReader {
  readonly channels: (declared: DeclaredQueue) => Observable<AmqpQueue | undefined>
  /** How many messages wait, ready, in a queue. Errors when it is not there, or nobody answers. */
  readonly depth: (queue: string) => Observable<number>
  readonly purge: (queue: string) => Observable<number>
}

/** A connection, and how to say that it does what it is for. */
interface ReaderLink {
  readonly link: AmqpLink
  readonly proven: () => void
}

/** What is acknowledged has come over this connection, and has gone where it should. */
const proving = ({ accept, ...consumer }: AmqpConsumer, proven: () => void): AmqpConsumer => ({
  ...consumer,
  accept: (tag, upTo) => {
    accept(tag, upTo)
    proven()
  },
})

/** Reads queues over one connection, apart from the one that publishes: a blocked publisher must not stop acknowledgements. */
export const amqpReader = (settings: AmqpSettings): AmqpReader => {
  const attempts = amqpLinks(settings)
  const links = reconnect<ReaderLink>(
    (proven) => attempts.pipe(map((link) => ({ link, proven }))),
    settings.onState === undefined ? {} : { onState: settings.onState },
  )
  const ask = <A>(question: (channel: AmqpChannel) => Observable<A>): Observable<A> =>
    links.pipe(
      switchMap((open) => (open === undefined ? NEVER : open.link.channel({ confirms: false }))),
      switchMap(question),
      take(1),
    )
  const queueOn = ({ link, proven }: ReaderLink, declared: DeclaredQueue): AmqpQueue => ({
    consume: (prefetch, give) =>
      concat(
        ensureQueue(link, declared),
        link.channel({ confirms: false }).pipe(
          switchMap((channel) => channel.consume(declared.queue, prefetch, (raw) => give(fromAmqp(raw), raw.fields.deliveryTag))),
          map((consumer) => proving(consumer, proven)),
        ),
      ),
  })
  return {
    channels: (declared) => links.pipe(map((open) => open && queueOn(open, declared))),
    depth: (queue) => ask((channel) => channel.check(queue)),
    purge: (queue) => ask((channel) => channel.purge(queue)),
  }
}
