import { bestEffort, each, embeddedQueueSink, embeddedQueueSource, embeddedQueueWriter, embeddedStore, enrich, fanOut, librarySource, toMessage, topicLogSink, topicLogWriter, udpSink } from 'backhaul'

const { engine } = embeddedStore('./data/queue', { maxBytes: 1e9 })
const prepare = toMessage(enrich({ deviceId: 'cam-1', idField: 'CameraSerial', timeZone: 'UTC' }))
const { publish, deliveries } = librarySource({ prepare, idOf: ({ id }) => id })
const hot = each((message) => (JSON.parse(message.body).celsius > 30 ? [message] : []))
const log = topicLogSink(topicLogWriter({ file: './data/hot.ndjson', key: 'cam-1', maxBytes: 1e9 }))
const copy = bestEffort(udpSink({ targets: ['127.0.0.1:9999'], dropped: () => {} }), { dropped: () => {} })

deliveries.pipe(embeddedQueueSink(embeddedQueueWriter(engine))).subscribe()
embeddedQueueSource(engine, { window: 100 }).pipe(hot, fanOut(log, copy))
  .subscribe(({ sink, value, outcome, state }) => console.log(sink, JSON.parse(value.body).celsius, outcome.kind, state))

for (const celsius of [21, 35, 42]) await publish({ celsius })
