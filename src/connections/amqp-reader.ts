import { concat, ignoreElements, map, NEVER, repeat, switchMap, take, takeUntil, takeWhile, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Message } from '../message.js'
import { fromAmqp } from './amqp-message.js'
import type { AmqpChannel, AmqpConsumer, AmqpLink } from './amqp-port.js'
import { amqpLinks, ensureQueue, isQuorum } from './amqp-queue.js'
import type { AmqpSettings, DeclaredQueue } from './amqp-queue.js'
import { reconnect } from './reconnect.js'

/** A queue that can be consumed over the present connection. */
export interface AmqpQueue {
  /**
   * Consumes on a channel of its own, at most `prefetch` unacknowledged, once no other consumer
   * is left (and a quorum queue has something), or after 5 s: what one that died had been given
   * comes before what is new. Emits the consumer before its first message; errors when the
   * channel, the consumer or the connection is lost; unsubscribing closes the channel, which
   * requeues what is unacknowledged, in order.
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

const vacateMs = 5000
const askAgainMs = 50

/**
 * Completes when nobody else holds messages of the queue. A broker that has not noticed yet that
 * our last connection is dead would give what lies behind the messages it held. So would a quorum
 * queue that starts again: for a moment it tells of no messages and no consumers, then of those
 * of before, then they are gone and what they held is back. There is no hurry while it is empty.
 */
const vacated = (channel: AmqpChannel, queue: string, quorum: boolean): Observable<never> =>
  channel.check(queue).pipe(
    repeat({ delay: askAgainMs }),
    takeWhile(({ messages, consumers }) => consumers > 0 || (quorum && messages === 0)),
    takeUntil(timer(vacateMs)),
    ignoreElements(),
  )

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
          switchMap((channel) =>
            concat(
              vacated(channel, declared.queue, isQuorum(link, declared)),
              channel.consume(declared.queue, prefetch, (raw) => give(fromAmqp(raw), raw.fields.deliveryTag)),
            ),
          ),
          map((consumer) => proving(consumer, proven)),
        ),
      ),
  })
  return {
    channels: (declared) => links.pipe(map((open) => open && queueOn(open, declared))),
    depth: (queue) => ask((channel) => channel.check(queue)).pipe(map(({ messages }) => messages)),
    purge: (queue) => ask((channel) => channel.purge(queue)),
  }
}
