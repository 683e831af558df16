/** The contracts, against every end that needs no broker. Those of RabbitMQ and Pulsar are in test/wire/contract.test.ts. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { concatMap, firstValueFrom, from, lastValueFrom, switchMap, take, timer } from 'rxjs'
import { amqpReader } from '../../src/connections/amqp-reader.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { embeddedStore } from '../../src/connections/embedded-store.js'
import { topicLogWriter } from '../../src/connections/topic-log.js'
import { encodeHeaders } from '../../src/message.js'
import type { Message } from '../../src/message.js'
import { deadLetterSink } from '../../src/sinks/dead-letters.js'
import { embeddedQueueSink, embeddedQueueWriter } from '../../src/sinks/embedded-queue.js'
import { rabbitmqSink } from '../../src/sinks/rabbitmq.js'
import { topicLogSink } from '../../src/sinks/topic-log.js'
import { udpSink } from '../../src/sinks/udp.js'
import { stream } from '../../src/sinks/websocket.js'
import { embeddedQueueSource } from '../../src/sources/embedded-queue.js'
import { rabbitmqSource } from '../../src/sources/rabbitmq.js'
import { fakeRabbit } from './fakes/rabbitmq.js'
import { sinkContract } from './sink.js'
import { sourceContract } from './source.js'

const folder = (): string => mkdtempSync(join(tmpdir(), 'backhaul-contract-'))
const message = (n: number): Message => ({ id: `m${n}`, body: Buffer.from(`{"n":${n}}`), properties: {} })

const store = () => {
  const path = folder()
  const { engine, closed } = embeddedStore(path, { maxBytes: 64 * 1024 * 1024 })
  const held = engine.subscribe()
  return {
    engine,
    dispose: async () => {
      held.unsubscribe()
      await lastValueFrom(closed, { defaultValue: undefined })
      rmSync(path, { recursive: true })
    },
  }
}

sourceContract('embedded queue', () => {
  const { engine, dispose } = store()
  return Promise.resolve({
    source: (options) => embeddedQueueSource(engine, options),
    feed: async (numbers) => {
      const append = (n: number) => engine.pipe(take(1), switchMap((opened) => opened.append(message(n).body, encodeHeaders(message(n)))))
      await lastValueFrom(from(numbers).pipe(concatMap(append)))
    },
    waiting: async () => {
      const { depth, unsettled } = (await firstValueFrom(engine)).stats()
      return depth - unsettled
    },
    dispose,
  })
})

sinkContract('embedded queue', () => {
  const { engine, dispose } = store()
  return Promise.resolve({
    sink: embeddedQueueSink(embeddedQueueWriter(engine)),
    received: async () => {
      const opened = await firstValueFrom(engine)
      return (await firstValueFrom(opened.next(1000))).map(({ body }) => body.toString())
    },
    dispose,
  })
})

sinkContract('topic log', () => {
  const path = folder()
  const file = join(path, 'log.ndjson')
  return Promise.resolve({
    sink: topicLogSink(topicLogWriter({ file, key: 'k', maxBytes: 1e9 })),
    received: () => Promise.resolve(readFileSync(file, 'utf8').trim().split('\n').map((line) => (JSON.parse(line) as { payload: string }).payload)),
    dispose: () => Promise.resolve(rmSync(path, { recursive: true })),
  })
})

sinkContract('UDP', async () => {
  const socket = createSocket('udp4')
  const datagrams: string[] = []
  socket.on('message', (datagram) => datagrams.push(datagram.toString()))
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return {
    sink: udpSink({ targets: [`127.0.0.1:${(socket.address()).port}`], dropped: () => undefined }),
    received: async () => {
      for (let tries = 0; datagrams.length < 100 && tries < 200; tries += 1) await firstValueFrom(timer(10))
      return datagrams
    },
    state: 'sent',
    size: 100, // what a socket of the system buffers for sure
    dispose: () => Promise.resolve(void socket.close()),
  }
})

sinkContract('WebSocket stream', () => {
  const frames: string[] = []
  const { sink, join: add } = stream({ epoch: 'e' })
  add({ send: (frame) => frames.push(frame.toString()), bufferedBytes: () => 0, terminate: () => undefined, onClose: () => undefined })
  return Promise.resolve({
    sink,
    received: () => Promise.resolve(frames.map((frame) => frame.slice(frame.indexOf('"message":') + 10, -1))),
    state: 'sent',
    dispose: () => Promise.resolve(),
  })
})

sinkContract('dead letters', () => {
  const { engine, dispose } = store()
  const bury = deadLetterSink(embeddedQueueWriter(engine))
  return Promise.resolve({
    sink: (source) =>
      source.pipe(
        (deliveries) => bury(deliveries.pipe(concatMap(({ value, settle }) => [{ value: { value, reason: 'r', stage: 's', attempts: 1, firstSeen: 0 }, settle }]))),
        concatMap(({ value, ...receipt }) => [{ ...receipt, value: value.value }]),
      ),
    received: async () => {
      const opened = await firstValueFrom(engine)
      return (await firstValueFrom(opened.next(1000))).map(({ body }) => body.toString())
    },
    dispose,
  })
})

sourceContract('RabbitMQ, scripted', () => {
  const rabbit = fakeRabbit({ queues: ['q'] })
  const reader = amqpReader({ urls: ['amqp://scripted'], open: rabbit.open })
  return Promise.resolve({
    source: (options) => rabbitmqSource(reader.channels({ queue: 'q' }), options),
    feed: (numbers) => Promise.resolve(rabbit.put('q', ...numbers.map((n) => ({ id: `m${n}`, body: message(n).body })))),
    waiting: () => Promise.resolve(rabbit.waiting('q')?.length ?? 0),
    dispose: () => Promise.resolve(),
  })
})

sinkContract('RabbitMQ, scripted', () => {
  const rabbit = fakeRabbit({ queues: ['q'] })
  return Promise.resolve({
    sink: rabbitmqSink(amqpWriter({ urls: ['amqp://scripted'], queue: 'q', open: rabbit.open })),
    received: () => Promise.resolve(rabbit.bodies('q')),
    dispose: () => Promise.resolve(),
  })
})
