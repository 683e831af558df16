/** The contracts, against both ends of the configuration pipeline. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { asapScheduler, BehaviorSubject, map, Observable, Subject } from 'rxjs'
import type { TopicConsumer, TopicMessage } from '../../src/connections/pulsar-subscription.js'
import type { Receipt } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { configurationSink, rejectedConfigurationSink } from '../../src/sinks/configuration-store.js'
import type { Document } from '../../src/sinks/configuration-store.js'
import { configurationSource } from '../../src/sources/configuration-topic.js'
import { sinkContract } from './sink.js'
import { sourceContract } from './source.js'

/** A durable subscription: what was not accepted comes again with the next consumer, oldest first. */
const scriptedTopic = () => {
  const kept: TopicMessage[] = []
  const given = new Set<string>() // to the present consumer
  const consumers = new BehaviorSubject<TopicConsumer | undefined>(undefined)
  let permits = 0
  let messages = new Subject<TopicMessage>()
  const give = (): void => {
    for (const one of kept)
      if (permits > 0 && !given.has(one.messageId)) {
        permits -= 1
        given.add(one.messageId)
        messages.next(one)
      }
  }
  const open = (): void => {
    permits = 0
    given.clear()
    const mine = (messages = new Subject<TopicMessage>())
    consumers.next({
      messages: mine,
      permit: (count) => {
        permits += count
        asapScheduler.schedule(give)
      },
      accept: (messageId) => {
        const at = kept.findIndex((one) => one.messageId === messageId)
        if (at >= 0) kept.splice(at, 1)
      },
      reopen: () => void asapScheduler.schedule(() => mine === messages && open()),
    })
  }
  return {
    consumers: new Observable<TopicConsumer | undefined>((subscriber) => {
      open()
      return consumers.subscribe(subscriber)
    }),
    feed: (payloads: readonly Buffer[]) => {
      for (const payload of payloads) kept.push({ topic: 't', messageId: `m${kept.length}-${payload.toString()}`, payload, properties: {} })
      give()
    },
    waiting: () => kept.filter(({ messageId }) => !given.has(messageId)).length,
  }
}

sourceContract(
  'configuration topic, scripted',
  () => {
    const { consumers, feed, waiting } = scriptedTopic()
    return Promise.resolve({
      source: (options) =>
        configurationSource(consumers, options).pipe(map(({ value, settle }) => ({ value: { body: value.payload }, settle }))),
      feed: (numbers) => Promise.resolve(feed(numbers.map((n) => Buffer.from(`{"n":${n}}`)))),
      waiting: () => Promise.resolve(waiting()),
      dispose: () => Promise.resolve(),
    })
  },
  { maxWindow: 1 },
)

for (const [name, file, size] of [
  ['configuration store', (folder: string) => [join(folder, 'current.json')], 1],
  ['rejected configurations', (folder: string) => readdirSync(join(folder, 'rejected')).sort().map((one) => join(folder, 'rejected', one)), 60],
] as const)
  sinkContract(name, () => {
    const folder = mkdtempSync(join(tmpdir(), 'backhaul-configuration-'))
    const document = ({ id, body }: Message): Document => ({ topic: 'own', messageId: id, payload: body })
    const [keep, refused] = [configurationSink(folder, 'own'), rejectedConfigurationSink(folder)]
    let firstSeen = 0
    return Promise.resolve({
      sink: (source) => {
        const values = new Map<string, Message>()
        const documents = source.pipe(
          map(({ value, settle }) => {
            values.set(value.id, value)
            return { value: document(value), settle }
          }),
        )
        const back = ({ value, ...receipt }: Receipt<Document>): Receipt<Message> => ({ ...receipt, value: values.get(value.messageId) as Message })
        if (name === 'configuration store') return documents.pipe(keep, map(back))
        const dead = documents.pipe(map(({ value, settle }) => ({ value: { value, reason: 'r', stage: 's', attempts: 1, firstSeen: (firstSeen += 1) }, settle })))
        return dead.pipe(refused, map(({ value, ...receipt }) => back({ ...receipt, value: value.value })))
      },
      received: () =>
        Promise.resolve(
          file(folder).map((path) => {
            const text = readFileSync(path, 'utf8')
            return name === 'configuration store' ? text : Buffer.from((JSON.parse(text) as { payload: string }).payload, 'base64').toString()
          }),
        ),
      size,
      dispose: () => Promise.resolve(rmSync(folder, { recursive: true, force: true })),
    })
  })
