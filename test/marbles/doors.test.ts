/** The clients of Backhaul by script: HTTP that posts, WebSocket that stops reading; and the clock. */
import { timer } from 'rxjs'
import { describe, expect } from 'vitest'
import { each } from '../../src/operators/each.js'
import { enrich } from '../../src/operators/enrich.js'
import { deliver } from '../../src/operators/deliver.js'
import { rabbitmqSink } from '../../src/sinks/rabbitmq.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { stream } from '../../src/sinks/websocket.js'
import { httpSource } from '../../src/sources/http.js'
import { intake } from '../../src/sources/intake.js'
import { message } from '../../src/testing.js'
import type { Message } from '../../src/message.js'
import { marbles } from './marbles.js'

const door = (window = 9) => {
  const line = intake<Message>({ window })
  return { deliveries: line.deliveries, ...httpSource({ prepare: enrich({ deviceId: 'cam-1', idField: 'CameraSerial' }), deadlineMs: 20 }, line) }
}

describe('an HTTP client', () => {
  marbles('is told yes when the far end has its message, refused for what is no JSON, and unknown at the deadline', ({ http, far, run, rows, flush }) => {
    const { deliveries, ingest } = door()
    const client = http('   a-b-c', ingest, { b: { body: '{', headers: { 'content-type': 'application/json' } } })
    const end = far<Message>('       w', { a: 3, c: 'silent' })
    run(deliveries.pipe(deliver(end.connection, { sink: 'far' })), '^ 30ms !')
    rows([end.writes, '     a---c'], [client.replies, '--Ba 20ms ?'])
    flush()
    expect([client.reply('a')?.status, client.reply('c')?.status]).toEqual([202, 504])
  })
  marbles('that finds the window full is turned away with nothing kept, and one that leaves cancels nothing', ({ http, far, run, rows }) => {
    const { deliveries, ingest } = door(1)
    const client = http('   a-b----c', ingest, { a: { body: '{}', headers: { 'content-type': 'application/json', 'idempotency-key': 'a' }, leavesAfter: 1 } })
    const end = far<Message>('       w', { a: 5 })
    run(deliveries.pipe(deliver(end.connection, { sink: 'far' })))
    rows([end.writes, '     a------c'], [client.replies, '--0-----c'])
  })
  marbles('gets its yes through an outage of the broker, once the message is in the queue', ({ http, amqp, run, rows, flush }) => {
    const line = intake<Message>({ window: 9 })
    const { ingest } = httpSource({ prepare: (body) => body }, line)
    const client = http('   ---a', ingest)
    const broker = amqp('   o-x 300ms o')
    run(line.deliveries.pipe(rabbitmqSink(amqpWriter({ urls: ['amqp://scripted'], queue: 'queue', open: broker.open }))))
    rows([broker.writes, '  303ms a'], [client.replies, ' 304ms a'])
    flush()
    expect(broker.holds()).toBe('a')
  })
})

describe('a WebSocket client', () => {
  marbles('that stops reading is cut off when it owes too much, and hurts nobody else', ({ source, webSocket, run, rows, flush }) => {
    const shown = stream({ epoch: 'e', maxClientBytes: 150 })
    const [good, stuck] = [webSocket('-'), webSocket(' -s')]
    shown.join(good.socket)
    shown.join(stuck.socket)
    const { deliveries, settled } = source('abcdef', { values: message })
    run(deliveries.pipe(shown.sink))
    rows([settled, 'abcdef'], [good.frames, 'abcdef'], [stuck.frames, 'a--x'])
    flush()
    expect([shown.clients(), shown.cut()]).toEqual([1, 1])
  })
  marbles('that reads again in time has missed nothing', ({ source, webSocket, run, rows }) => {
    const shown = stream({ epoch: 'e' })
    const client = webSocket('-s--r-x')
    shown.join(client.socket)
    run(source('abcd--ef', { values: message }).deliveries.pipe(shown.sink))
    rows([client.frames, '    a---(bcd)'])
  })
  marbles('that comes back is told of the gap, and gets what is still there', ({ source, webSocket, run, rows }) => {
    const shown = stream({ epoch: 'e', maxFrames: 2 })
    const client = webSocket('-')
    run(source('abcd------f', { values: message }).deliveries.pipe(shown.sink))
    timer(5).subscribe(() => shown.join(client.socket, { after: 'e-1' }))
    rows([client.frames, '    -----(~cd)f'])
  })
})

describe('a clock', () => {
  marbles('tells the time of the run to a step that stamps', ({ source, far, clock, run, rows, flush }) => {
    const stamp = enrich({ deviceId: 'cam-1', idField: 'CameraSerial', timeZone: 'UTC' }, clock('2026-11-22T18:00:00Z'))
    const end = far<string>('w')
    const { deliveries, settled } = source('3s a', { values: message })
    run(deliveries.pipe(each(({ body }) => [stamp(body).toString()]), deliver(end.connection, { sink: 'far' })))
    rows([settled, '3001ms a'])
    flush()
    expect(end.confirmed).toEqual(['{"letter":"a","UploadedUTCDateTime":"2026-11-22T18:00:03.000Z","UploadedLocalDateTime":"2026-11-22T18:00:03.000+00:00","CameraSerial":"cam-1"}'])
  })
})
