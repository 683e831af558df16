// Ingest and forward in one process: HTTP in, an embedded queue, Pulsar (or the local topic log) out.
import { embeddedQueueSink, embeddedQueueSource, embeddedQueueWriter, embeddedStore, deadLetterSink, enrich, forward, httpServer, httpSource, ingest, intake, pulsarSink, pulsarWriter, recent, topicLogSink, topicLogWriter } from 'backhaul'
import { fromEvent, merge, switchMap, take, takeUntil, timer } from 'rxjs'

const { PULSAR_URL, PORT = '0' } = process.env
const stop = fromEvent(process, 'SIGTERM').pipe(take(1))

const queue = embeddedStore('./data/queue', { maxBytes: 1e9 })
const dead = embeddedStore('./data/dead', { maxBytes: 1e9 })
const deadLetters = deadLetterSink(embeddedQueueWriter(dead.engine))
const topic = 'persistent://public/default/one-process'

const door = intake({ window: 1000, stop })
const { ingest: take1 } = httpSource({ prepare: enrich({ deviceId: 'jetson-3', idField: 'JetsonSerial' }) }, door)
const routes = [{ method: 'POST', path: '/v1/messages', accepts: ['application/json', 'application/x-ndjson'], handle: take1 }]

const pipelines = merge(
  ingest({ sources: [door.deliveries], queue: embeddedQueueSink(embeddedQueueWriter(queue.engine)), deadLetters }),
  forward({
    read: (options) => embeddedQueueSource(queue.engine, options),
    far: PULSAR_URL ? pulsarWriter({ url: PULSAR_URL, topic, key: 'jetson-3' }) : topicLogWriter({ file: './topic.ndjson', key: 'jetson-3', maxBytes: 1e9 }),
    sink: PULSAR_URL ? pulsarSink : topicLogSink,
    copies: [],
    deadLetters,
    recent: recent(),
    counted: { delivered: ({ id }) => console.log('delivered', id), deadLettered: () => {}, repeatDropped: () => {}, copiesDropped: () => {} },
    stop,
  }),
).pipe(takeUntil(stop.pipe(switchMap(() => timer(3500)))))

const listening = httpServer({ host: '127.0.0.1', port: Number(PORT) }, routes).subscribe(({ port }) => console.log(`http://127.0.0.1:${port}`))
pipelines.subscribe({ complete: () => listening.unsubscribe() })
