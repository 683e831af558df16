import { join } from 'node:path'
import { merge, of, pipe } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Books } from '../books.js'
import { countsOf, dropCopies } from '../books.js'
import { pulsarWriter } from '../connections/pulsar.js'
import { pulsarNumberedWriter } from '../connections/pulsar-numbered.js'
import { topicLogWriter } from '../connections/topic-log.js'
import type { Connection, Sink } from '../delivery.js'
import type { Log } from '../log.js'
import type { Message } from '../message.js'
import { each } from '../operators/each.js'
import { pulsarSink } from '../sinks/pulsar.js'
import { topicLogSink } from '../sinks/topic-log.js'
import { udpSink } from '../sinks/udp.js'
import type { Stream } from '../sinks/websocket.js'
import { copyQueues } from '../settings.js'
import type { Settings } from '../settings.js'
import { broadcast } from './broadcast.js'
import type { Copy } from './forward.js'
import { follow, followSpill } from './links.js'
import type { Ports } from './ports.js'
import type { Queue } from './queue.js'
import { embeddedQueue, rabbitQueue, rabbitReader, withSpool } from './queue.js'

/** The queues of a daemon, in RabbitMQ or in its data folder. */
export interface Queues {
  readonly main: Queue
  readonly dead: Queue
  /** Only with RabbitMQ: without it, copies go straight to those who listen. */
  readonly websocket?: Queue
  readonly udp?: Queue
}

export const allQueues = ({ main, dead, websocket, udp }: Queues): readonly Queue[] =>
  [main, dead, websocket, udp].filter((queue) => queue !== undefined)

/** A copy that nobody reads must never fill the broker: copy queues that we make drop their oldest. */
const bounded = { 'x-max-length-bytes': 64 * 1024 * 1024, 'x-overflow': 'drop-head' }

export const queuesOf = (settings: Settings, books: Books, log: Log, httpAddress?: string, ports: Ports = {}): Queues => {
  const { amqpUrl, queue, dataDir, storeMaxBytes, websocket, udp } = settings
  if (amqpUrl.length === 0)
    return {
      main: embeddedQueue(queue, join(dataDir, 'spool'), storeMaxBytes, follow(books, 'queue', log), httpAddress, ports),
      dead: embeddedQueue(`${queue}.dead`, join(dataDir, 'dead'), storeMaxBytes, follow(books, 'dead-letters', log), httpAddress, ports),
    }
  const reader = rabbitReader(settings, follow(books, 'rabbitmq-consume', log), ports)
  const make = (name: string, link: string, queueArguments?: Readonly<Record<string, unknown>>): Queue =>
    rabbitQueue(settings, name, reader, follow(books, link, log), queueArguments, ports)
  const spooled = (of: Queue, link: string, folder: string): Queue =>
    withSpool(
      of,
      {
        folder: join(dataDir, folder),
        maxBytes: storeMaxBytes,
        window: settings.window,
        confirmMs: settings.confirmTimeoutMs,
        counts: countsOf(books, folder),
        onState: followSpill(books, link, log),
        httpAddress,
      },
      ports,
    )
  return {
    main: spooled(make(queue, 'rabbitmq'), 'queue', 'spool'),
    dead: spooled(make(`${queue}.dead`, 'rabbitmq-dead-letters'), 'dead-letters', 'dead'),
    ...(websocket ? { websocket: make(copyQueues.websocket, 'websocket-copy', bounded) } : {}),
    ...(udp.length > 0 ? { udp: make(copyQueues.udp, 'udp-copy', bounded) } : {}),
  }
}

/** Where messages go in the end: Pulsar, or the local topic log when no address is set. */
export const farEnd = (
  { pulsarUrl: url, pulsarToken, pulsarTopic: topic, deviceId: key, window, maxMessageBytes, dataDir, topicLogMaxBytes, deduplication }: Settings,
  onState: ReturnType<typeof follow>,
  { openWebSocket: open }: Ports = {},
): { connection: Connection<Message>; sink: (connection: Connection<Message>) => Sink<Message> } => {
  if (url === undefined)
    return { connection: topicLogWriter({ file: topicLogFile(dataDir), key, maxBytes: topicLogMaxBytes, onState }), sink: topicLogSink }
  const token = pulsarToken === undefined ? {} : { token: () => pulsarToken }
  const given = { url, topic, key, window, maxMessageBytes, onState, ...token, ...(open === undefined ? {} : { open }) }
  return {
    connection: deduplication ? pulsarNumberedWriter({ ...given, folder: join(dataDir, 'numbers') }) : pulsarWriter(given),
    sink: (connection) => pulsarSink(connection, { window }),
  }
}

export const topicLogFile = (dataDir: string): string => join(dataDir, 'topic-log.ndjson')

/** Above so many messages an existing copy queue is not fed any more: nobody reads it. */
const tooDeep = 100_000

const whileShallow = (copy: Queue, depth: () => number, dropped: (count: number) => void): Sink<Message> =>
  pipe(
    each<Message, Message>((message) => {
      if (depth() <= tooDeep) return [message]
      dropped(1)
      return []
    }),
    copy.sink,
  )

const straightUdp = (settings: Settings, books: Books): Sink<Message> =>
  udpSink({ targets: settings.udp, dropped: () => dropCopies(books, 'udp', 1) })

/** What the forwarder copies, and to where. */
export const copiesOf = (settings: Settings, books: Books, queues: Queues, stream: Stream, depthOf: (queue: string) => number): readonly Copy[] => {
  const { websocket, udp, amqpUrl } = settings
  const queued = (name: string, copy: Queue): Copy => ({
    name,
    sink: whileShallow(copy, () => depthOf(copy.name), (count) => dropCopies(books, name, count)),
  })
  if (amqpUrl.length > 0)
    return [
      ...(queues.websocket === undefined ? [] : [queued('websocket', queues.websocket)]),
      ...(queues.udp === undefined ? [] : [queued('udp', queues.udp)]),
    ]
  return [
    ...(websocket ? [{ name: 'websocket', sink: stream.sink }] : []),
    ...(udp.length > 0 ? [{ name: 'udp', sink: straightUdp(settings, books) }] : []),
  ]
}

/** Copy queues → those who listen. Nothing to do without RabbitMQ. */
export const broadcasts = (
  settings: Settings,
  books: Books,
  { websocket, udp }: Queues,
  stream: Stream,
  read: (name: string, queue: Queue) => ReturnType<Queue['read']>,
): Observable<unknown> =>
  merge(
    websocket === undefined ? of() : broadcast(read('websocket', websocket), stream.sink, (count) => dropCopies(books, 'websocket', count)),
    udp === undefined ? of() : broadcast(read('udp', udp), straightUdp(settings, books), (count) => dropCopies(books, 'udp', count)),
  )
