import { connect } from 'amqplib'
import type { Channel, ChannelModel, ConfirmChannel, ConsumeMessage, SocketOptions } from 'amqplib'
import { asyncScheduler, catchError, concat, defer, from, ignoreElements, map, NEVER, Observable, switchMap, take, throwError } from 'rxjs'
import type { Subscriber } from 'rxjs'
import type { Connection, Writer } from '../delivery.js'
import type { Message } from '../message.js'
import { fromAmqp, toAmqp } from './amqp-message.js'
import { patience } from './patience.js'
import { reconnect } from './reconnect.js'
import type { LinkState } from './reconnect.js'

export type AmqpQueueType = 'auto' | 'classic' | 'quorum'
export type AmqpState = LinkState | { readonly kind: 'blocked'; readonly reason: string } | { readonly kind: 'unblocked' }

export interface AmqpSettings {
  /** Tried in turn: the nodes of a cluster. */
  readonly urls: readonly string[]
  /** A peer that is silent for three of these is gone. @default 10 */
  readonly heartbeatS?: number
  /** @default 10000 */
  readonly connectTimeoutMs?: number
  readonly onState?: (state: AmqpState) => void
}

/** A queue that exists is used as it is; a missing one is made like this. */
export interface DeclaredQueue {
  readonly queue: string
  /**
   * `auto`: plain and durable on RabbitMQ 3, where a classic queue syncs before it confirms;
   * a quorum queue without a delivery limit on RabbitMQ 4, where a classic one does not. @default 'auto'
   */
  readonly queueType?: AmqpQueueType
  readonly queueArguments?: Readonly<Record<string, unknown>>
}

export interface AmqpWriterSettings extends AmqpSettings, DeclaredQueue {
  /** The oldest unconfirmed write may be this old, then the connection is given up. @default 1500 */
  readonly confirmTimeoutMs?: number
}

/** RabbitMQ took a message that no queue received: the queue is gone. */
export class Unrouted extends Error {
  override readonly name = 'Unrouted'
  readonly code = 'BACKHAUL_UNROUTED'
}

const closeGraceMs = 1000

/** A password must not reach a log by way of an error text. */
const redacted = (error: unknown, url: string): Error => {
  const text = error instanceof Error ? error.message : String(error)
  const { password, host } = new URL(url)
  const hidden = password === '' ? text : text.replaceAll(password, '***').replaceAll(decodeURIComponent(password), '***')
  return new Error(`${host}: ${hidden}`)
}

/**
 * Channels that are closing, with the last things they say still unsent: each channel has a
 * buffer of its own, and the connection's close would overtake it.
 */
const closing = new WeakMap<ChannelModel, Set<Promise<void>>>()

/** Closes in the background; a frozen peer does not answer, so the socket is destroyed after a moment. */
const closeModel = (model: ChannelModel): void => {
  const { stream } = model.connection as unknown as { stream: { destroy: () => void } }
  const late = asyncScheduler.schedule(() => stream.destroy(), closeGraceMs)
  const close = async (): Promise<void> => {
    await Promise.allSettled([...(closing.get(model) ?? [])])
    await model.close()
  }
  close()
    .catch(() => stream.destroy())
    .finally(() => late.unsubscribe())
    .catch(() => undefined)
}

const closeChannel = (model: ChannelModel, channel: Channel): void => {
  const others = closing.get(model) ?? new Set()
  closing.set(model, others)
  const close = async (): Promise<void> => {
    try {
      await channel.close()
    } catch {
      // It was closed in this very turn.
    }
  }
  const done = close().finally(() => others.delete(done))
  others.add(done)
}

/** One connection: emits once it is open, and errors when it is lost. */
const openConnection = ({ urls, heartbeatS = 10, connectTimeoutMs = 10_000 }: AmqpSettings, turn: number): Observable<ChannelModel> =>
  new Observable((subscriber) => {
    const url = urls[turn % urls.length] ?? 'amqp://localhost'
    const address = new URL(url)
    address.searchParams.set('heartbeat', String(heartbeatS))
    const options: SocketOptions = { noDelay: true, keepAlive: true, timeout: connectTimeoutMs }
    let opened: ChannelModel | undefined
    let problem: unknown
    const start = async (): Promise<void> => {
      const model = await connect(address.href, options)
      model.on('error', (error) => (problem = error))
      model.on('close', (error?: unknown) => subscriber.error(redacted(problem ?? error ?? 'the connection was closed', url)))
      if (subscriber.closed) return closeModel(model)
      opened = model
      subscriber.next(model)
    }
    start().catch((error: unknown) => subscriber.error(redacted(error, url)))
    return () => {
      if (opened !== undefined) closeModel(opened)
    }
  })

/** A channel of its own: emits it open, and errors when the broker closes it. */
const openChannel = <C extends Channel>(model: ChannelModel, create: () => Promise<C>): Observable<C> =>
  new Observable((subscriber) => {
    let opened: C | undefined
    let problem: unknown
    let gone = false
    const start = async (): Promise<void> => {
      const channel = await create()
      channel.on('error', (error) => (problem = error))
      channel.on('close', () => {
        gone = true
        subscriber.error(problem ?? new Error('the channel was closed'))
      })
      if (subscriber.closed) return closeChannel(model, channel)
      opened = channel
      subscriber.next(channel)
    }
    start().catch((error: unknown) => subscriber.error(error))
    return () => {
      // Its acknowledgements go before it; what is left unacknowledged is requeued in order.
      if (opened !== undefined && !gone) closeChannel(model, opened)
    }
  })

const isMissing = (error: unknown): boolean => (error as { code?: number }).code === 404

const argumentsFor = (model: ChannelModel, { queueType = 'auto', queueArguments = {} }: DeclaredQueue): Record<string, unknown> => {
  const version = String(model.connection.serverProperties.version)
  const quorum = queueType === 'quorum' || (queueType === 'auto' && Number.parseInt(version, 10) >= 4)
  return quorum ? { 'x-queue-type': 'quorum', 'x-delivery-limit': -1, ...queueArguments } : queueArguments
}

/** Completes when the queue is there. A check that fails costs its channel, so it gets one of its own. */
const ensureQueue = (model: ChannelModel, declared: DeclaredQueue): Observable<never> => {
  const check = openChannel(model, () => model.createChannel()).pipe(switchMap((channel) => channel.checkQueue(declared.queue)), take(1))
  const make = openChannel(model, () => model.createChannel()).pipe(
    switchMap((channel) => channel.assertQueue(declared.queue, { durable: true, arguments: argumentsFor(model, declared) })),
    take(1),
  )
  return check.pipe(
    catchError((error: unknown) => (isMissing(error) ? make : throwError(() => error))),
    ignoreElements(),
  )
}

interface Write {
  readonly message: Message
  readonly done: Subscriber<never>
  since: number
  returned: boolean
}

/** Persistent, mandatory, confirmed; while the broker blocks us, writes wait here unsent, in order. */
const confirmedWriter = (
  model: ChannelModel,
  channel: ConfirmChannel,
  { queue, confirmTimeoutMs = 1500, onState = () => {} }: AmqpWriterSettings,
  proven: () => void,
): Observable<Writer<Message>> =>
  new Observable((subscriber) => {
    const unconfirmed = new Set<Write>() // in the order of publishing
    const sentAs = new Map<string, Write[]>() // by id: a return names the id, and the same one may be out twice
    const held = new Set<Write>() // not sent: the broker blocks publishers
    let blocked = false

    const fail = (error: Error): void => subscriber.error(error)
    const oldest = (): number | undefined => {
      const [first] = unconfirmed
      return blocked ? undefined : first?.since
    }
    const confirms = patience(confirmTimeoutMs, oldest, () => fail(new Error(`no confirm for ${confirmTimeoutMs} ms`)))
    const forget = (write: Write): void => {
      unconfirmed.delete(write)
      const same = sentAs.get(write.message.id)
      if (same === undefined || same.length === 1) sentAs.delete(write.message.id)
      else same.splice(same.indexOf(write), 1)
    }
    const answered = (write: Write, error: unknown): void => {
      forget(write)
      if (subscriber.closed) return
      if (error !== null && error !== undefined) return fail(new Error(`RabbitMQ refused a message for ${queue}`))
      if (write.returned) return fail(new Unrouted(`RabbitMQ has no queue ${queue}`))
      proven()
      write.done.complete()
    }
    const publish = (write: Write): void => {
      write.since = asyncScheduler.now()
      unconfirmed.add(write)
      const same = sentAs.get(write.message.id)
      if (same === undefined) sentAs.set(write.message.id, [write])
      else same.push(write)
      try {
        channel.publish('', queue, write.message.body, toAmqp(write.message), (error: unknown) => answered(write, error))
      } catch (error) {
        // The channel closed in this turn; its own event tells why, unless this was first.
        return fail(error as Error)
      }
      confirms.watch()
    }
    // The return comes before the confirm: a confirm alone does not say that a queue has it.
    channel.on('return', ({ properties }) => {
      const write = sentAs.get(String(properties.messageId))?.find(({ returned }) => !returned)
      if (write !== undefined) write.returned = true
    })
    model.on('blocked', (reason) => {
      blocked = true
      onState({ kind: 'blocked', reason })
    })
    model.on('unblocked', () => {
      blocked = false
      for (const write of unconfirmed) write.since = asyncScheduler.now()
      onState({ kind: 'unblocked' })
      for (const write of held) {
        held.delete(write)
        publish(write)
      }
      confirms.watch()
    })
    subscriber.next(
      (message) =>
        new Observable<never>((done) => {
          const write: Write = { message, done, since: 0, returned: false }
          if (!blocked) return publish(write)
          held.add(write)
          return () => held.delete(write)
        }),
    )
    return confirms.stop
  })

/**
 * Publishes to a queue over a connection of its own: exchange `""`, routing key the queue's name.
 *
 * A write completes when RabbitMQ has confirmed the persistent message and has not returned it
 * as unroutable. A refusal, a return, and a confirm that does not come in time end the
 * connection; the next one makes the queue anew if it is gone.
 *
 * **Holds**: what is unconfirmed; while RabbitMQ blocks publishers, also what it was given, unsent.
 */
export const amqpWriter = (settings: AmqpWriterSettings): Connection<Message> => {
  let turn = 0
  return reconnect<Writer<Message>>(
    (proven) =>
      openConnection(settings, turn++).pipe(
        switchMap((model) =>
          concat(
            ensureQueue(model, settings),
            openChannel(model, () => model.createConfirmChannel()).pipe(
              switchMap((channel) => confirmedWriter(model, channel, settings, proven)),
            ),
          ),
        ),
      ),
    settings.onState === undefined ? {} : { onState: settings.onState },
  )
}

/** A consumer that runs. */
export interface AmqpConsumer {
  /** Acknowledges one delivery, or everything up to it. Throws when the channel is gone. */
  readonly accept: (tag: number, upTo: boolean) => void
  /** Asks for no more; what comes before the broker has heard is left to the channel's close. */
  readonly cancel: () => void
}

export interface AmqpChannel {
  /**
   * Consumes on a channel of its own, at most `prefetch` unacknowledged. Emits the consumer
   * before its first message; errors when the channel, the consumer or the connection is
   * lost; unsubscribing closes the channel, which requeues what is unacknowledged, in order.
   */
  readonly consume: (prefetch: number, take: (message: Message, tag: number) => void) => Observable<AmqpConsumer>
}

export interface AmqpReader {
  readonly channels: (declared: DeclaredQueue) => Observable<AmqpChannel | undefined>
  /** How many messages wait, ready, in a queue. Errors when it is not there, or nobody answers. */
  readonly depth: (queue: string) => Observable<number>
  readonly purge: (queue: string) => Observable<number>
}

const consume = (
  model: ChannelModel,
  declared: DeclaredQueue,
  prefetch: number,
  give: (message: Message, tag: number) => void,
): Observable<AmqpConsumer> =>
  concat(
    ensureQueue(model, declared),
    openChannel(model, () => model.createChannel()).pipe(
      switchMap(
        (channel) =>
          new Observable<AmqpConsumer>((subscriber) => {
            const consumerTag = `backhaul-${process.pid}-${Math.random().toString(36).slice(2)}`
            const received = (raw: ConsumeMessage | null): void => {
              if (raw === null) return subscriber.error(new Error(`the consumer of ${declared.queue} was cancelled`))
              // A throw in here would end the whole connection.
              try {
                give(fromAmqp(raw), raw.fields.deliveryTag)
              } catch (error) {
                subscriber.error(error)
              }
            }
            const start = async (): Promise<void> => {
              await channel.prefetch(prefetch)
              if (subscriber.closed) return
              subscriber.next({
                accept: (tag, upTo) => channel.ack({ fields: { deliveryTag: tag } } as ConsumeMessage, upTo),
                cancel: () => {
                  channel.cancel(consumerTag).catch(() => undefined)
                },
              })
              await channel.consume(declared.queue, received, { consumerTag })
            }
            start().catch((error: unknown) => subscriber.error(error))
          }),
      ),
    ),
  )

/** Reads queues over one connection, apart from the one that publishes: a blocked publisher must not stop acknowledgements. */
export const amqpReader = (settings: AmqpSettings): AmqpReader => {
  let turn = 0
  const models = reconnect<ChannelModel>(
    () => openConnection(settings, turn++),
    settings.onState === undefined ? {} : { onState: settings.onState },
  )
  const ask = <A>(question: (channel: Channel) => Promise<A>): Observable<A> =>
    models.pipe(
      switchMap((model) => (model === undefined ? NEVER : openChannel(model, () => model.createChannel()))),
      switchMap((channel) => defer(() => from(question(channel)))),
      take(1),
    )
  return {
    channels: (declared) =>
      models.pipe(map((model) => model && { consume: (prefetch, give) => consume(model, declared, prefetch, give) })),
    depth: (queue) => ask((channel) => channel.checkQueue(queue)).pipe(map(({ messageCount }) => messageCount)),
    purge: (queue) => ask((channel) => channel.purgeQueue(queue)).pipe(map(({ messageCount }) => messageCount)),
  }
}
