import { join } from 'node:path'
import { firstValueFrom, lastValueFrom, map, merge, of, ReplaySubject, Subject, switchMap, takeUntil, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import type { AmqpQueueType } from '../connections/amqp-queue.js'
import { amqpWriter } from '../connections/amqp-writer.js'
import { embeddedStore } from '../connections/embedded-store.js'
import { httpClient } from '../connections/http-client.js'
import { httpPublisher } from '../connections/http-publisher.js'
import type { Posted } from '../connections/http-publisher.js'
import type { Connection, Sink } from '../delivery.js'
import { machineSerial } from '../device.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'
import { enrich } from '../operators/enrich.js'
import type { SerialField } from '../operators/enrich.js'
import { embeddedQueueSink, embeddedQueueWriter } from '../sinks/embedded-queue.js'
import { rabbitmqSink } from '../sinks/rabbitmq.js'
import { librarySource, PublishError, toMessage } from '../sources/library.js'
import type { LibrarySettings, Publish } from '../sources/library.js'

export interface PublisherSettings {
  /**
   * Where records go: `amqp://…` or `amqps://…` (straight to RabbitMQ), `http://…` or
   * `https://…` (a running daemon), or a data folder (embedded, in this process).
   */
  readonly to: string
  /** Bearer token of the daemon. */
  readonly token?: string
  /** How long `publish` may wait, in milliseconds. @default 10000 */
  readonly timeoutMs?: number
  /** The most records on the way. @default 1000 */
  readonly window?: number
  /** A larger record is refused; a daemon has a limit of its own. Not more than the daemon's that takes it to Pulsar. @default 700 KiB */
  readonly maxMessageBytes?: number
  /** The queue in RabbitMQ. @default 'publicQueue' */
  readonly queue?: string
  /** For a queue that is missing. @default 'auto' */
  readonly queueType?: AmqpQueueType
  /** The serial that is added where a record has none; a daemon adds its own. @default the board's serial, else the machine id */
  readonly deviceId?: string
  /** @default 'DeviceID' */
  readonly idField?: SerialField
  /** IANA name. @default the process's own */
  readonly timeZone?: string
  /** The most that an embedded queue takes on disk. @default 1 GiB */
  readonly maxBytes?: number
}

export interface Publisher {
  /** Resolves with the record's id when it is durable: confirmed and routed, or synced to disk. Rejects with a `PublishError`. */
  readonly publish: Publish
  /** Takes no more, waits for what is out (up to `timeoutMs`), and closes. */
  readonly close: () => Promise<void>
}

interface Road<T> {
  readonly sink: Sink<T>
  readonly open: Observable<boolean>
  readonly prepare: LibrarySettings<T>['prepare']
  readonly idOf: (value: T) => string
  readonly close?: () => Observable<never>
}

const writable = <T>(connection: Connection<T>): Observable<boolean> => connection.pipe(map((writer) => writer !== undefined))

const messages = (settings: PublisherSettings, connection: Connection<Message>, sink: Sink<Message>): Road<Message> => {
  const { deviceId = machineSerial(), idField = 'DeviceID', timeZone, maxMessageBytes } = settings
  return {
    sink,
    open: writable(connection),
    prepare: toMessage(enrich({ deviceId, idField, ...(timeZone === undefined ? {} : { timeZone }) }), maxMessageBytes),
    idOf: ({ id }) => id,
  }
}

const toRabbit = (settings: PublisherSettings): Road<Message> => {
  const { to, queue = 'publicQueue', queueType = 'auto', window = 1000 } = settings
  const connection = amqpWriter({ urls: to.split(','), queue, queueType })
  return messages(settings, connection, rabbitmqSink(connection, { window }))
}

const toFolder = (settings: PublisherSettings): Road<Message> => {
  const { to, maxBytes = 1024 ** 3 } = settings
  const { engine, closed } = embeddedStore(join(to, 'spool'), { maxBytes })
  const connection = embeddedQueueWriter(engine)
  return { ...messages(settings, connection, embeddedQueueSink(connection)), close: () => closed }
}

const toDaemon = ({ to, token, window = 1000 }: PublisherSettings): Road<Posted> => {
  const client = httpClient({ url: to, ...(token === undefined ? {} : { token }) })
  return {
    sink: deliver(httpPublisher(client), { sink: 'http', window }),
    open: of(true),
    prepare: (body, { id, properties = {} }) => ({ body, properties, ...(id === undefined ? {} : { id }) }),
    idOf: ({ id }) => id ?? '',
    close: client.close,
  }
}

const run = <T>(road: Road<T>, { window = 1000, timeoutMs = 10_000 }: PublisherSettings): Publisher => {
  const stop = new Subject<void>()
  const failed = new ReplaySubject<never>(1)
  const over = new ReplaySubject<boolean>(1) // true when it failed
  const { publish, deliveries } = librarySource<T>({
    window,
    timeoutMs,
    open: merge(road.open, failed),
    prepare: road.prepare,
    idOf: road.idOf,
    stop,
  })
  deliveries.pipe(road.sink, takeUntil(stop.pipe(switchMap(() => timer(timeoutMs))))).subscribe({
    error: (error: unknown) => {
      failed.error(error)
      over.next(true)
    },
    complete: () => over.next(false),
  })
  return {
    publish,
    close: async () => {
      stop.next()
      if (await firstValueFrom(over)) return
      if (road.close !== undefined) await lastValueFrom(road.close(), { defaultValue: undefined })
    },
  }
}

/**
 * Makes a publisher for this process.
 *
 * **Orders**: records arrive in the order of the calls.
 * **Holds**: at most `window` records; later calls wait.
 * **Fails**: `publish` rejects with a `PublishError`, whose `maybeSent` is false only when
 * nothing was kept; on a folder that another process holds, with `BACKHAUL_FOLDER_IN_USE`.
 *
 * **Example**: `const { publish, close } = createPublisher({ to: 'http://127.0.0.1:8787' })`
 */
export const createPublisher = (settings: PublisherSettings): Publisher => {
  if (/^amqps?:/.test(settings.to)) return run(toRabbit(settings), settings)
  if (/^https?:/.test(settings.to)) return run(toDaemon(settings), settings)
  if (/^[a-z][a-z+]+:\/\//.test(settings.to))
    throw new PublishError('BACKHAUL_REJECTED', 'to: expected amqp(s)://…, http(s)://… or a folder', false)
  return run(toFolder(settings), settings)
}
