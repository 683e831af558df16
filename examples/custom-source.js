// A source of your own, a filter, and a second sink.
// The source reads lines from standard input, one record each: `producer | node custom-source.js`.
import { createInterface } from 'node:readline'
import { bestEffort, deliver, each, enrich, fanOut, ledger, Rejection, rescue, toMessage, topicLogSink, topicLogWriter } from 'backhaul'
import { lastValueFrom, of, pipe } from 'rxjs'

// The ledger does the bookkeeping: the window, one settlement each, stop, completion.
const lines = ledger(
  (book) => {
    const reader = createInterface({ input: process.stdin })
    const waiting = []
    const give = () => {
      while (waiting.length > 0 && book.room() > 0) book.take(waiting.shift())
      // The window is the only back-pressure: no room, no reading.
      if (waiting.length > 0) reader.pause()
      else reader.resume()
      if (ended && waiting.length === 0) book.end()
    }
    let ended = false
    reader.on('line', (line) => (waiting.push(line), give()))
    reader.on('close', () => ((ended = true), give()))
    return { settled: give, close: () => reader.close() }
  },
  { window: 100 },
)

const prepare = toMessage(enrich({ deviceId: 'kiosk-7', idField: 'DeviceID', timeZone: 'UTC' }))
const message = each((line) => [prepare(Buffer.from(line), {})], { stage: 'parse' })
const onlySales = each((message) => {
  const { kind } = JSON.parse(message.body)
  if (kind === undefined) throw new Rejection('no kind')
  return kind === 'sale' ? [message] : []
})

// A sink is a connection (here: always connected) and `deliver`. A write completes when it is safe.
const print = deliver(
  of((message) => {
    console.log('display', JSON.parse(message.body).price)
    return of(undefined)
  }),
  { sink: 'display' },
)
const deadLetters = deliver(
  of(({ value, reason, stage }) => {
    console.log('refused', stage, reason, value)
    return of(undefined)
  }),
  { sink: 'dead-letters' },
)
const log = topicLogSink(topicLogWriter({ file: './sales.ndjson', key: 'kiosk-7', maxBytes: 1e9 }))

await lastValueFrom(lines.pipe(rescue(pipe(message, onlySales, fanOut(log, bestEffort(print, { dropped: () => {} }))), deadLetters)), {
  defaultValue: undefined,
})
