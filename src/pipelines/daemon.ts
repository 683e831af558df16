import { join } from 'node:path'
import { defer, EMPTY, finalize, firstValueFrom, ignoreElements, interval, merge, NEVER, Subject, switchMap, take, takeUntil, tap, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Books } from '../books.js'
import { countsOf, dropCopies, newBooks } from '../books.js'
import { embeddedStore } from '../connections/embedded-store.js'
import { pulsarSubscription } from '../connections/pulsar.js'
import { replayMemory } from '../connections/replay-memory.js'
import type { Log } from '../log.js'
import type { Message } from '../message.js'
import { recent } from '../operators/drop-repeats.js'
import { configurationSink, rejectedConfigurationSink } from '../sinks/configuration-store.js'
import { deadLetterSink } from '../sinks/dead-letters.js'
import { stream } from '../sinks/websocket.js'
import type { Stream } from '../sinks/websocket.js'
import { configurationSource } from '../sources/configuration-topic.js'
import { intake } from '../sources/intake.js'
import type { Role, Settings } from '../settings.js'
import { configuration } from './configuration.js'
import { deadLetters } from './dead.js'
import { door } from './door.js'
import type { Listening } from './door.js'
import { forward } from './forward.js'
import { ingest } from './ingest.js'
import { follow } from './links.js'
import { allQueues, broadcasts, copiesOf, farEnd, queuesOf } from './parts.js'
import type { Queues } from './parts.js'
import type { Ports } from './ports.js'
import type { Queue } from './queue.js'
import { watchQueues } from './watch-queues.js'
import { watchStores } from './watch-stores.js'

/** How long, after a stop, what is out may take: then it is released. */
const drainMs = 3500
const depthMs = 5000
/** What the letters of 10,000 replays take up, and room for as many again. */
const replayMemoryBytes = 8 * 1024 * 1024

export interface DaemonParts {
  readonly stop: Observable<unknown>
  readonly log: Log
  /** Read by whoever judges it from outside. @default new ones */
  readonly books?: Books
  readonly ports?: Ports
}

/** Asked now and then, so that a slow broker slows nobody who wants to know. */
const watchDepths = (queues: readonly Queue[]) => {
  const known = new Map<string, number>()
  const ask = async (): Promise<readonly { queue: string; messages?: number }[]> =>
    Promise.all(
      queues.map(async ({ name, depth }) => {
        const messages = await firstValueFrom(depth(), { defaultValue: undefined })
        if (messages === undefined) known.delete(name)
        else known.set(name, messages)
        return { queue: name, ...(messages === undefined ? {} : { messages }) }
      }),
    )
  return { ask, depthOf: (queue: string) => known.get(queue) ?? 0 }
}

const configurations = (settings: Settings, { stop, log }: DaemonParts, books: Books): Observable<unknown> => {
  const { pulsarUrl: url, pulsarToken, configTopic, configTopicsExtra, deviceId, dataDir } = settings
  if (url === undefined) return EMPTY
  const folder = join(dataDir, 'configuration')
  const token = pulsarToken === undefined ? {} : { token: () => pulsarToken }
  const from = (topic: string): Observable<unknown> => {
    const onState = follow(books, topic === configTopic ? 'configuration' : `configuration ${topic}`, log)
    const consumers = pulsarSubscription({ url, topic, subscription: `backhaul-config-${deviceId}`, onState, ...token })
    return configuration({
      source: configurationSource(consumers, { stop, counts: countsOf(books, 'configuration') }),
      keep: configurationSink(folder, configTopic),
      refused: rejectedConfigurationSink(folder),
      counted: {
        accepted: ({ messageId }) => {
          books.configurations.accepted += 1
          log.info({ topic, messageId }, 'a new configuration is kept')
        },
        rejected: ({ value, reason }) => {
          books.configurations.rejected += 1
          log.warn({ topic, messageId: value.messageId, reason }, 'a configuration was refused, the old one stays')
        },
      },
    })
  }
  return merge(...[configTopic, ...configTopicsExtra].map(from))
}

const forwarding = (settings: Settings, { stop, log, ports }: DaemonParts, books: Books, queues: Queues, { live, tail }: { live: Stream; tail: Stream }, depthOf: (queue: string) => number): Observable<unknown> => {
  const { connection, sink } = farEnd(settings, follow(books, settings.pulsarUrl === undefined ? 'topic-log' : 'pulsar', log), ports)
  const counts = countsOf(books, 'forward')
  // A dead letter that was put back was counted when it first came.
  const done = ({ digest, replayed }: Message): void => {
    if (digest === undefined && replayed === undefined) books.foreign += 1
  }
  const store = embeddedStore(join(settings.dataDir, 'forward'), { maxBytes: replayMemoryBytes, ...ports?.disk })
  const replays = replayMemory(store.engine, {
    onFailure: (error) => log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'what was replayed is not remembered on disk: after a crash it may come twice'),
  })
  const over = new Subject<void>()
  const forwarded = forward({
    read: (options) => queues.main.read({ ...options, counts, onLost: (reason) => log.warn({ queue: queues.main.name, reason }, 'the consumer was ended, and is made anew') }),
    far: connection,
    sink,
    copies: copiesOf(settings, books, queues, live, depthOf),
    deadLetters: deadLetterSink(queues.dead.connection),
    recent: recent(),
    replays,
    counted: {
      delivered: (message) => {
        books.delivered += 1
        done(message)
        tail.show(message)
      },
      deadLettered: (message) => {
        books.deadLettered += 1
        done(message)
      },
      repeatDropped: () => {
        books.repeatsDropped += 1
      },
      copiesDropped: (name, count) => dropCopies(books, name, count),
    },
    window: settings.window,
    patienceMs: settings.patienceMs,
    stop,
  })
  const buried = queues.dead.spool?.drain ?? EMPTY
  return merge(forwarded.pipe(tap({ complete: () => over.next() })), buried.pipe(takeUntil(over))).pipe(finalize(replays.close))
}

/**
 * The daemon: HTTP → queue → Pulsar, with copies and the configuration topic, by its roles.
 *
 * Emits once it listens. After `stop` it takes nothing more, lets what is out end for up to
 * 3.5 s, releases the rest and completes.
 *
 * **Fails** when it cannot listen, when another process has the data folder, and when a part that
 * is needed is not installed; never because of a broker.
 */
export const daemon = (settings: Settings, parts: DaemonParts): Observable<Listening> =>
  defer(() => {
    const { stop, log, books = newBooks(Date.now()), ports = {} } = parts
    const { roles, window, httpHost: host, httpPort: port } = settings
    const queues = queuesOf(settings, books, log, port === 0 ? undefined : `http://${host}:${port}`, ports)
    const epoch = books.startedAt.toString(36)
    const streams = { live: stream({ epoch }), tail: stream({ epoch }) }
    const { ask, depthOf } = watchDepths(allQueues(queues))
    const intakeDoor = intake<Message>({ window, stop, counts: countsOf(books, 'ingest') })
    const read = (name: string, queue: Queue): ReturnType<Queue['read']> =>
      queue.read({ window: Math.min(window, 100), stop, counts: countsOf(books, name) })

    const byRole: Record<Role, () => Observable<unknown>> = {
      ingest: () =>
        ingest({
          sources: [intakeDoor.deliveries],
          queue: queues.main.sink,
          // The forwarder's process has the folder of their spool.
          deadLetters: deadLetterSink(queues.dead.spool?.direct ?? queues.dead.connection),
          drain: queues.main.spool?.drain ?? EMPTY,
        }),
      forward: () => forwarding(settings, parts, books, queues, streams, depthOf),
      broadcast: () => broadcasts(settings, books, queues, streams.live, read),
      configuration: () => configurations(settings, parts, books),
    }
    const pipelines = merge(...roles.map((role) => byRole[role]()), stop.pipe(take(1))).pipe(
      takeUntil(stop.pipe(switchMap(() => timer(drainMs)))),
      ignoreElements(),
    )
    const dead = deadLetters({ queues, books, withSpool: roles.includes('forward'), stop })
    const over = new Subject<void>()
    const listening = door(settings, { stop, books, queues: allQueues(queues), depths: ask, intake: intakeDoor, dead, ports, ...streams })
    const copies = queues.websocket !== undefined || queues.udp !== undefined
    const depths = copies ? interval(depthMs).pipe(switchMap(ask), ignoreElements()) : NEVER
    const watched = watchQueues(settings, { books, log, ports })
    const stores = watchStores(allQueues(queues).flatMap(({ store }) => store ?? []), log)
    return merge(merge(listening, depths, watched, stores).pipe(takeUntil(over)), pipelines.pipe(tap({ complete: () => over.next() })))
  })
