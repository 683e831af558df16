import { basename } from 'node:path'
import { catchError, defer, map, of, Subject, switchMap, take, tap, timeout } from 'rxjs'
import type { Observable } from 'rxjs'
import type { AmqpState } from '../connections/amqp-queue.js'
import { amqpReader } from '../connections/amqp-reader.js'
import type { AmqpReader } from '../connections/amqp-reader.js'
import { amqpWriter } from '../connections/amqp-writer.js'
import { embeddedStore } from '../connections/embedded-store.js'
import type { OpenAmqp } from '../connections/amqp-port.js'
import type { QueueStats } from '../connections/queue-engine.js'
import { spill } from '../connections/spill.js'
import type { SpillState } from '../connections/spill.js'
import type { Connection, Receipt, Sink, Source } from '../delivery.js'
import type { Counts } from '../ledger.js'
import type { Message } from '../message.js'
import { embeddedQueueSink, embeddedQueueWriter } from '../sinks/embedded-queue.js'
import { rabbitmqSink } from '../sinks/rabbitmq.js'
import { embeddedQueueSource } from '../sources/embedded-queue.js'
import { rabbitmqSource } from '../sources/rabbitmq.js'
import type { Settings } from '../settings.js'
import { embeddedInside, rabbitInside } from './inside.js'
import type { Inside } from './inside.js'
import type { Ports } from './ports.js'

export interface ReadOptions {
  readonly window: number
  readonly stop: Observable<unknown>
  readonly counts?: Counts
  /** Told why RabbitMQ has ended the consumer; it is made anew. */
  readonly onLost?: (reason: string) => void
}

/** A queue with both its ends: RabbitMQ's, or one that is embedded in this process. */
export interface Queue {
  readonly name: string
  readonly connection: Connection<Message>
  readonly sink: Sink<Message>
  readonly read: (options: ReadOptions) => Source<Message>
  /** Messages that wait, those outside not included; emits undefined when the queue cannot be asked. */
  readonly depth: () => Observable<number | undefined>
  /** Removes everything that waits, and emits how many. */
  readonly purge: () => Observable<number>
  readonly spool?: QueueSpool
  /** The folder of this process that it keeps messages in: its own, or its spool's. */
  readonly store?: Store
  readonly inside: Inside
}

/** An embedded queue, as whoever looks after its disk sees it. */
export interface Store {
  /** The folder's. */
  readonly name: string
  /** Undefined until it is open. */
  readonly stats: () => QueueStats | undefined
}

/** What stands in for a queue of RabbitMQ while that is away. */
export interface QueueSpool {
  /** RabbitMQ alone. */
  readonly direct: Connection<Message>
  /** Spool → RabbitMQ, as long as it is subscribed. */
  readonly drain: Observable<Receipt>
  /** How many messages are in it. */
  readonly depth: () => number
  readonly inside: Inside
}

export interface SpoolSettings {
  readonly folder: string
  readonly maxBytes: number
  readonly window: number
  readonly confirmMs: number
  readonly onState: (state: SpillState, reason: string) => void
  readonly counts: Counts
  readonly httpAddress?: string | undefined
}

const askMs = 3000

const through = (open: OpenAmqp | undefined): { open?: OpenAmqp } => (open === undefined ? {} : { open })

/** `BACKHAUL_QUEUE` and its companions in RabbitMQ. */
export const rabbitQueue = (
  { amqpUrl: urls, queueType, confirmTimeoutMs, window }: Pick<Settings, 'amqpUrl' | 'queueType' | 'confirmTimeoutMs' | 'window'>,
  queue: string,
  reader: AmqpReader,
  onState: (state: AmqpState) => void,
  queueArguments?: Readonly<Record<string, unknown>>,
  { openAmqp }: Ports = {},
): Queue => {
  const made = new Subject<void>()
  const declared = { queue, queueType, ...(queueArguments === undefined ? {} : { queueArguments }), onMade: () => made.next() }
  const connection = amqpWriter({ urls, confirmTimeoutMs, onState, made, ...declared, ...through(openAmqp) })
  return {
    name: queue,
    connection,
    sink: rabbitmqSink(connection, { window }),
    read: (options) => rabbitmqSource(reader.channels(declared), options),
    depth: () => reader.depth(queue).pipe(timeout(askMs), catchError(() => of(undefined))),
    purge: () => reader.purge(queue).pipe(timeout(askMs)),
    inside: rabbitInside(reader, declared),
  }
}

/** One connection that all of RabbitMQ's queues are read through. */
export const rabbitReader = ({ amqpUrl: urls }: Settings, onState: (state: AmqpState) => void, { openAmqp }: Ports = {}): AmqpReader =>
  amqpReader({ urls, onState, ...through(openAmqp) })

/** A queue in a folder of this process. */
export const embeddedQueue = (
  name: string,
  folder: string,
  maxBytes: number,
  onState: (state: AmqpState) => void = () => {},
  httpAddress?: string,
  { disk }: Ports = {},
): Queue => {
  const { engine, stats } = embeddedStore(folder, { maxBytes, ...disk, ...(httpAddress === undefined ? {} : { httpAddress }) })
  // Told like a RabbitMQ that blocks its publishers: the door refuses, until what it holds already has gone in.
  const states = { error: (error: Error) => onState({ kind: 'blocked', reason: error.message }), complete: () => onState({ kind: 'unblocked' }) }
  const appender = engine.pipe(
    tap(() => onState({ kind: 'connected' })),
    map(({ append }) => ({ append: (body: Uint8Array, headers: Uint8Array) => append(body, headers).pipe(tap(states)) })),
  )
  const connection = embeddedQueueWriter(appender)
  return {
    name,
    connection,
    sink: embeddedQueueSink(connection),
    read: (options) => embeddedQueueSource(engine, options),
    depth: () =>
      engine.pipe(
        take(1),
        map(({ stats }) => stats().depth - stats().unsettled),
      ),
    purge: () =>
      engine.pipe(
        take(1),
        switchMap(({ purge }) => purge()),
      ),
    store: { name: basename(folder), stats },
    inside: embeddedInside(engine),
  }
}

/** Gives a queue of RabbitMQ a spool: an embedded queue in a folder, opened when it is first needed. */
export const withSpool = (
  queue: Queue,
  { folder, maxBytes, window, confirmMs, onState, counts, httpAddress }: SpoolSettings,
  { disk }: Ports = {},
): Queue => {
  const { engine, depth, stats } = embeddedStore(folder, { maxBytes, ...disk, ...(httpAddress === undefined ? {} : { httpAddress }) })
  let spooled = 0
  const spool = { connection: embeddedQueueWriter(engine), depth: depth.pipe(tap((now) => (spooled = now))) }
  const connection = spill(queue.connection, spool, { confirmMs, holdBelow: window, onState })
  return {
    ...queue,
    connection,
    sink: rabbitmqSink(connection, { window }),
    store: { name: basename(folder), stats },
    spool: {
      direct: queue.connection,
      drain: defer(() => embeddedQueueSource(engine, { window, counts }).pipe(rabbitmqSink(queue.connection, { window }))),
      depth: () => spooled,
      inside: embeddedInside(engine),
    },
  }
}
