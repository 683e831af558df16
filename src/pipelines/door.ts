import { join } from 'node:path'
import { defer, finalize, ignoreElements, interval, map, merge, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Books } from '../books.js'
import { linkOf } from '../books.js'
import { httpServer } from '../connections/http-server.js'
import type { UpgradeRoute } from '../connections/http-server.js'
import { webSocketServer } from '../connections/web-socket.js'
import type { SocketServer } from '../connections/web-socket.js'
import { health } from '../health.js'
import type { Road } from '../health.js'
import type { Message } from '../message.js'
import { metrics } from '../metrics.js'
import { enrich } from '../operators/enrich.js'
import { keptConfiguration } from '../sinks/configuration-store.js'
import type { Stream } from '../sinks/websocket.js'
import { httpSource } from '../sources/http.js'
import type { Intake } from '../sources/intake.js'
import type { Settings } from '../settings.js'
import type { DeadLetters } from './dead.js'
import type { Ports } from './ports.js'
import type { Queue } from './queue.js'
import { routes } from './routes.js'

/** It listens: from now on messages are taken. */
export interface Listening {
  readonly url: string
}

export interface DoorParts {
  readonly stop: Observable<unknown>
  readonly books: Books
  readonly queues: readonly Queue[]
  readonly depths: () => Promise<readonly { queue: string; messages?: number }[]>
  readonly intake: Intake<Message>
  readonly live: Stream
  readonly tail: Stream
  readonly dead: DeadLetters
  readonly ports?: Ports
}

const tickMs = 1000
const forwardSilenceMs = 30_000

const upgradesTo = (sockets: SocketServer, path: string, stream: Stream): UpgradeRoute => ({
  path,
  upgrade: (request, socket, head, query) => {
    const after = query.get('after')
    const last = Number(query.get('last') ?? 0)
    sockets.upgrade(request, socket, head, (client) => stream.join(client, after === null ? { last } : { after }))
  },
})

const ingestOf = (settings: Settings, stopping: () => boolean, books: Books, intake: Intake<Message>) => {
  const { deviceId, idField, timeZone, maxMessageBytes } = settings
  const unavailable = (): string | undefined => {
    const { state, reason } = linkOf(books, 'queue')
    if (stopping()) return 'stopping'
    return state === 'connected' ? undefined : `the queue is ${state}${reason === '' ? '' : `: ${reason}`}`
  }
  const prepare = enrich({ deviceId, idField, ...(timeZone === undefined ? {} : { timeZone }) })
  return httpSource({ prepare, maxMessageBytes, unavailable }, intake).ingest
}

/** The daemon's HTTP side: it takes messages, and tells how things are. */
export const door = (settings: Settings, { stop, books, queues, depths, intake, live, tail, dead, ports = {} }: DoorParts): Observable<Listening> => {
  const { roles, confirmTimeoutMs, patienceMs, httpHost: host, httpPort: port, httpToken, httpOrigins: origins, maxBodyBytes } = settings
  let stopping = false
  const accepts: Road = { links: ['queue'], pipeline: 'ingest', patienceMs: 2 * confirmTimeoutMs }
  const far = settings.pulsarUrl === undefined ? 'topic-log' : 'pulsar'
  const consumes = settings.amqpUrl.length > 0 ? ['rabbitmq-consume'] : []
  const delivers: Road = { links: [far, ...consumes], pipeline: 'forward', patienceMs: Math.min(patienceMs, forwardSilenceMs) }
  const accepting = health(books, roles.includes('ingest') ? { accepts } : {})
  const delivering = health(books, roles.includes('forward') ? { delivers } : {})
  const folder = join(settings.dataDir, 'configuration')

  const served = routes({
    ...(roles.includes('ingest') ? { ingest: ingestOf(settings, () => stopping, books, intake) } : {}),
    readiness: () => ({ accept: accepting.readiness(Date.now()), deliver: delivering.readiness(Date.now()) }),
    metrics: metrics(books, {
      queued: async () => {
        const outside = books.pipelines.get('forward')?.unsettled ?? 0
        return (await depths()).flatMap(({ queue, messages }) =>
          messages === undefined ? [] : [{ queue, messages: queue === settings.queue ? messages + outside : messages }],
        )
      },
      // What waits in the dead letters' spool is counted as dead-lettered.
      spooled: () => queues.find(({ name }) => name === settings.queue)?.spool?.depth() ?? 0,
      stores: () =>
        queues.flatMap(({ store }) => {
          const stats = store?.stats()
          return store === undefined || stats === undefined ? [] : [{ store: store.name, stats }]
        }),
      streamClients: () => live.clients() + tail.clients(),
      streamClientsCut: () => live.cut() + tail.cut(),
    }),
    configuration: (topic) => keptConfiguration(folder, settings.configTopic, topic),
    queues,
    depths,
    books,
    dead,
  })
  const refused = (status: number): void => {
    books.refused.set(status, (books.refused.get(status) ?? 0) + 1)
  }
  const server = defer(() => {
    const sockets = (ports.webSocketServer ?? webSocketServer)({ refused })
    const upgrades = [...(settings.websocket ? [upgradesTo(sockets, '/v1/stream', live)] : []), upgradesTo(sockets, '/v1/tail', tail)]
    const token = httpToken === undefined ? {} : { token: httpToken }
    const listen = ports.httpServer ?? httpServer
    return listen({ host, port, origins, maxBodyBytes, refused, ...token }, served, upgrades).pipe(finalize(() => sockets.close()))
  })
  const ticks = interval(tickMs).pipe(
    tap(() => {
      accepting.tick(Date.now())
      delivering.tick(Date.now())
    }),
  )
  const heard = stop.pipe(tap(() => (stopping = true)))
  const urlOf = (address: string, at: number): string => `http://${address.includes(':') ? `[${address}]` : address}:${at}`
  return merge(server.pipe(map(({ address, port: at }) => ({ url: urlOf(address, at) }))), merge(ticks, heard).pipe(ignoreElements()))
}
