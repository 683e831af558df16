import { connect } from 'amqplib'
import type { Channel, ChannelModel, ConfirmChannel, ConsumeMessage, SocketOptions } from 'amqplib'
import type { Socket } from 'node:net'
import { asapScheduler, asyncScheduler, defer, from, map, Observable } from 'rxjs'
import type { AmqpChannel, AmqpConsumer, OpenAmqp, RawMessage } from './amqp-port.js'

const closeGraceMs = 1000

/** The socket below amqplib, which does not show it. */
const socketOf = (model: ChannelModel): Socket => (model.connection as unknown as { stream: Socket }).stream

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
  const socket = socketOf(model)
  const late = asyncScheduler.schedule(() => socket.destroy(), closeGraceMs)
  const close = async (): Promise<void> => {
    await Promise.allSettled([...(closing.get(model) ?? [])])
    await model.close()
  }
  close()
    .catch(() => socket.destroy())
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

const consume = (channel: Channel, queue: string, prefetch: number, receive: (raw: RawMessage) => void): Observable<AmqpConsumer> =>
  new Observable((subscriber) => {
    const consumerTag = `backhaul-${process.pid}-${Math.random().toString(36).slice(2)}`
    const received = (raw: ConsumeMessage | null): void => {
      if (raw === null) return subscriber.error(new Error(`the consumer of ${queue} was cancelled`))
      // A throw in here would end the whole connection.
      try {
        receive(raw)
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
      await channel.consume(queue, received, { consumerTag })
    }
    start().catch((error: unknown) => subscriber.error(error))
  })

const portOf = (channel: Channel): AmqpChannel => {
  let closed = false
  // amqplib tells the callback of each unconfirmed publish about the close as if it had been refused: before that.
  channel.prependListener('close', () => (closed = true))
  return {
    check: (queue) => defer(() => from(channel.checkQueue(queue))).pipe(map(({ messageCount, consumerCount }) => ({ messages: messageCount, consumers: consumerCount }))),
    declare: (queue, queueArguments) => defer(() => from(channel.assertQueue(queue, { durable: true, arguments: queueArguments }))),
    purge: (queue) => defer(() => from(channel.purgeQueue(queue))).pipe(map(({ messageCount }) => messageCount)),
    publish: (queue, body, properties, answered) => {
      ;(channel as ConfirmChannel).publish('', queue, body, properties, (error: unknown) => {
        if (!closed) answered(error !== null && error !== undefined)
      })
    },
    returned: new Observable((subscriber) => {
      channel.on('return', ({ properties }) => subscriber.next(String(properties.messageId)))
    }),
    consume: (queue, prefetch, receive) => consume(channel, queue, prefetch, receive),
  }
}

/** A channel of its own: emits it open, and errors when the broker closes it. */
const openChannel = (model: ChannelModel, confirms: boolean): Observable<AmqpChannel> =>
  new Observable((subscriber) => {
    let opened: Channel | undefined
    let problem: unknown
    let gone = false
    const start = async (): Promise<void> => {
      const channel = await (confirms ? model.createConfirmChannel() : model.createChannel())
      channel.on('error', (error) => (problem = error))
      channel.on('close', () => {
        gone = true
        if (problem !== undefined) return subscriber.error(problem)
        // It was lost with its connection, which tells why in this same turn.
        asapScheduler.schedule(() => subscriber.error(new Error('the channel was closed')))
      })
      if (subscriber.closed) return closeChannel(model, channel)
      opened = channel
      subscriber.next(portOf(channel))
    }
    start().catch((error: unknown) => subscriber.error(error))
    return () => {
      if (opened !== undefined && !gone) closeChannel(model, opened)
    }
  })

/** Opens a connection with amqplib. amqplib's own recovery is not used: see the decision on one reconnect loop. */
export const openAmqp: OpenAmqp = (url, { heartbeatS, connectTimeoutMs }) =>
  new Observable((subscriber) => {
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
      const { cluster_name: clusterName } = model.connection.serverProperties as { cluster_name?: string }
      subscriber.next({
        serverVersion: String(model.connection.serverProperties.version),
        ...(clusterName === undefined ? {} : { clusterName }),
        blocked: new Observable((told) => {
          model.on('blocked', (reason) => told.next(reason))
          model.on('unblocked', () => told.next(undefined))
        }),
        channel: ({ confirms }) => openChannel(model, confirms),
      })
    }
    start().catch((error: unknown) => subscriber.error(redacted(error, url)))
    return () => {
      if (opened !== undefined) closeModel(opened)
    }
  })
