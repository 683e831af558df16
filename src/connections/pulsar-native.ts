import { asyncScheduler, defer, from, Observable, shareReplay, Subject, switchMap } from 'rxjs'
import type { Subscriber } from 'rxjs'
import type * as Pulsar from 'pulsar-client'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'
import { defaultMaxMessageBytes } from '../message.js'
import type { Message } from '../message.js'
import { patience } from './patience.js'
import { PulsarUnavailable } from './pulsar-answers.js'
import type { PulsarSubscriptionSettings, TopicConsumer, TopicMessage } from './pulsar-subscription.js'
import type { PulsarWriterSettings } from './pulsar-websocket.js'
import { reconnect } from './reconnect.js'

/** What of `pulsar-client` is used: a test gives its own. */
export type PulsarModule = Pick<typeof Pulsar, 'Client' | 'AuthenticationToken'>
export type LoadPulsar = () => Promise<PulsarModule>

/** The native client, or its binary, is not installed. */
export class PulsarNativeMissing extends Error {
  override readonly name = 'PulsarNativeMissing'
  readonly code = 'BACKHAUL_PULSAR_NATIVE_MISSING'
  constructor(options?: ErrorOptions) {
    super(
      "pulsar:// addresses need the native client: 'npm install pulsar-client', or, where install scripts are off, " +
        "'npm rebuild pulsar-client --ignore-scripts=false'. Without it, use ws:// and Pulsar's WebSocket API.",
      options,
    )
  }
}

const loadPulsar: LoadPulsar = async () => {
  const loaded = (await import('pulsar-client')) as unknown as { default?: PulsarModule } & PulsarModule
  return loaded.default ?? loaded
}

/** Loads the native client; errors with `PulsarNativeMissing` when the package or its binary is absent. */
export const pulsarNative = (load: LoadPulsar = loadPulsar): Observable<PulsarModule> =>
  defer(() =>
    from(
      load().catch((cause: unknown) => {
        throw new PulsarNativeMissing({ cause })
      }),
    ),
  )

/** One client for each connection, held for as long: a client that nobody holds takes its producers along when it is collected. */
const openClient = ({ Client, AuthenticationToken }: PulsarModule, { url, token }: PulsarWriterSettings | PulsarSubscriptionSettings): Observable<Pulsar.Client> =>
  new Observable((subscriber) => {
    // The default writes to standard output, which belongs to the program.
    Client.setLogHandler(() => undefined)
    const client = new Client({
      serviceUrl: url,
      operationTimeoutSeconds: 30,
      ...(token === undefined ? {} : { authentication: new AuthenticationToken({ token: () => Promise.resolve(token() ?? '') }) }),
    })
    subscriber.next(client)
    return () => {
      client.close().catch(() => undefined)
    }
  })

const opened = <T extends { close: () => Promise<null> }>(open: () => Promise<T>): Observable<T> =>
  new Observable((subscriber) => {
    let end: T | undefined
    const close = (one: T): void => {
      one.close().catch(() => undefined)
    }
    open().then(
      (one) => {
        if (subscriber.closed) return close(one)
        end = one
        subscriber.next(one)
      },
      // A missing, wrong or expired token shows as a time-out, like a broker that is away.
      (error: unknown) => subscriber.error(new PulsarUnavailable('away', `${String(error)} (broker away, or token refused)`, 0)),
    )
    return () => {
      if (end !== undefined) close(end)
    }
  })

const writerOn = (
  producer: Pulsar.Producer,
  { key, confirmTimeoutMs = 30_000, maxMessageBytes = defaultMaxMessageBytes }: PulsarWriterSettings,
  proven: () => void,
): Observable<Writer<Message>> =>
  new Observable((subscriber) => {
    const out = new Map<Subscriber<never>, number>() // since when, in the order of sending
    const fail = (reason: string): void => subscriber.error(new PulsarUnavailable('away', reason, 0))
    const oldest = (): number | undefined => out.values().next().value
    const receipts = patience(confirmTimeoutMs, oldest, () => fail(`no receipt for ${confirmTimeoutMs} ms`))
    // Promises settle in any order here, so each is matched by itself, never by position.
    const send = async ({ id, body, properties }: Message, done: Subscriber<never>): Promise<void> => {
      try {
        await producer.send({ data: body, properties: { ...properties, messageId: id }, partitionKey: key })
        out.delete(done)
        proven()
        done.complete()
      } catch (error) {
        out.delete(done)
        const reason = error instanceof Error ? error.message : String(error)
        if (reason.includes('MessageTooBig')) done.error(new Rejection(reason, 'pulsar'))
        else fail(reason)
      }
    }
    subscriber.next((message) => {
      if (message.body.length > maxMessageBytes) throw new Rejection(`larger than ${maxMessageBytes} bytes`, 'pulsar')
      return new Observable<never>((done) => {
        out.set(done, asyncScheduler.now())
        receipts.watch()
        send(message, done).catch((error: unknown) => subscriber.error(error))
      })
    })
    return receipts.stop
  })

/**
 * Sends to a topic with Pulsar's native client: the same contract as the WebSocket writer.
 *
 * **Fails** with `PulsarNativeMissing` when the client is not installed: no reconnecting helps.
 */
export const pulsarNativeWriter = (settings: PulsarWriterSettings, load?: LoadPulsar): Connection<Message> => {
  const { topic, window = 1000, onState } = settings
  const config: Pulsar.ProducerConfig = {
    topic,
    sendTimeoutMs: 0,
    batchingEnabled: true,
    batchingMaxMessages: 1000,
    batchingMaxPublishDelayMs: 5,
    maxPendingMessages: 2 * window,
    blockIfQueueFull: false,
  }
  return pulsarNative(load).pipe(
    switchMap((module) =>
      reconnect(
        (proven) =>
          openClient(module, settings).pipe(
            switchMap((client) => opened(() => client.createProducer(config))),
            switchMap((producer) => writerOn(producer, settings, proven)),
          ),
        onState === undefined ? {} : { onState },
      ),
    ),
    shareReplay({ bufferSize: 1, refCount: true }),
  )
}

const consumerOn = (consumer: Pulsar.Consumer, topic: string, proven: () => void): Observable<TopicConsumer> =>
  new Observable((subscriber) => {
    const messages = new Subject<TopicMessage>()
    const unanswered = new Map<string, Pulsar.Message>()
    const fail = (error: unknown): void => subscriber.error(new PulsarUnavailable('away', String(error), 0))
    const receive = async (): Promise<void> => {
      const message = await consumer.receive()
      const messageId = message.getMessageId().serialize().toString('base64')
      unanswered.set(messageId, message)
      proven()
      messages.next({ topic, messageId, payload: message.getData(), properties: message.getProperties() })
    }
    const accept = async (messageId: string): Promise<void> => {
      const message = unanswered.get(messageId)
      unanswered.delete(messageId)
      if (message !== undefined) await consumer.acknowledge(message)
    }
    subscriber.next({
      messages,
      permit: (count) => {
        for (let i = 0; i < count; i += 1) receive().catch(fail)
      },
      accept: (messageId) => {
        accept(messageId).catch(fail)
      },
      reopen: () => fail('a message was released'),
    })
  })

/** Follows a topic with the native client, by a durable subscription that starts with the oldest message. */
export const pulsarNativeSubscription = (
  settings: PulsarSubscriptionSettings,
  load?: LoadPulsar,
): Observable<TopicConsumer | undefined> => {
  const { topic, subscription, onState } = settings
  const config: Pulsar.ConsumerConfig = {
    topic,
    subscription,
    subscriptionType: 'Failover',
    subscriptionInitialPosition: 'Earliest',
    receiverQueueSize: 10,
  }
  return pulsarNative(load).pipe(
    switchMap((module) =>
      reconnect(
        (proven) =>
          openClient(module, settings).pipe(
            switchMap((client) => opened(() => client.subscribe(config))),
            switchMap((consumer) => consumerOn(consumer, topic, proven)),
          ),
        onState === undefined ? {} : { onState },
      ),
    ),
    shareReplay({ bufferSize: 1, refCount: true }),
  )
}
