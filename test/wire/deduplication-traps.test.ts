/** Each way in which deduplication is known to cost messages, on a real Pulsar. */
import { cpSync, rmSync } from 'node:fs'
import { map, Subject } from 'rxjs'
import { beforeAll, expect, it } from 'vitest'
import { pulsarNumberedWriter } from '../../src/connections/pulsar-numbered.js'
import { pulsarWebSocketWriter } from '../../src/connections/pulsar-websocket.js'
import { openWebSocket } from '../../src/connections/web-socket.js'
import type { OpenWebSocket } from '../../src/connections/web-socket.js'
import type { Delivery } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'
import { describeWire } from './brokers.js'
import { eventually, ownNames, temporaryFolder } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

const rounds = Number(process.env['BACKHAUL_TEST_TRAPS'] ?? 20)
const message = (id: string, redelivered = false): Message => ({ id, body: Buffer.from(`{"id":"${id}"}`), properties: {}, digest: `digest of ${id}`, redelivered })
const range = (from: number, count: number): string[] => Array.from({ length: count }, (_, i) => `m${from + i}`)

await describeWire('deduplication never costs a message', ({ pulsarUrl }) => {
  const namespace = `public/traps-${process.pid}`
  beforeAll(async () => {
    for (const [method, path, body] of [
      ['PUT', '', ''],
      ['POST', '/deduplication', 'true'],
      ['POST', '/retention', '{"retentionTimeInMinutes":-1,"retentionSizeInMB":-1}'],
    ] as const) {
      const reply = await fetch(`${pulsarUrl.replace('ws', 'http')}/admin/v2/namespaces/${namespace}${path}`, { method, headers: { 'content-type': 'application/json' }, ...(body === '' ? {} : { body }) })
      expect(reply.ok, path).toBe(true)
    }
  })
  const ownTopic = () => `persistent://${namespace}/${ownNames().queue}`
  /** The road from a queue to Pulsar without the queue; `leave` closes it and waits until its folder is free. */
  const sender = (topic: string, folder: string, { open = openWebSocket, numbered = true, confirmTimeoutMs = 30_000 }: { open?: OpenWebSocket; numbered?: boolean; confirmTimeoutMs?: number } = {}) => {
    const given = { url: pulsarUrl, topic, key: 'device', open, confirmTimeoutMs }
    const deliveries = new Subject<Delivery<Message>>()
    const settled = new Set<string>()
    const errors: unknown[] = []
    const running = deliveries.pipe(pulsarSink(numbered ? pulsarNumberedWriter({ ...given, folder }) : pulsarWebSocketWriter(given))).subscribe({ error: (error: unknown) => errors.push(error) })
    return {
      errors,
      settled,
      give: (messages: readonly Message[]): void => messages.forEach((value) => deliveries.next({ value, settle: ({ kind }) => kind === 'accepted' && settled.add(value.id) })),
      all: (count: number) => eventually(`${count} settled`, () => settled.size === count || errors.length > 0, 60_000),
      leave: (): void => running.unsubscribe(),
    }
  }
  /** The folder of one that has just left is free some moments later. */
  const opened = (topic: string, folder: string, messages: readonly Message[]) =>
    eventually('the folder is free', async () => {
      const one = sender(topic, folder)
      one.give(messages)
      await one.all(messages.length)
      return one.errors.length === 0 && one
    })
  const next = async (topic: string, folder: string, messages: readonly Message[]) => (await opened(topic, folder, messages)).leave()
  const ids = async (topic: string) => (await readTopic(pulsarUrl, topic)).map(({ properties }) => properties['messageId'])
  const sent = range(0, 20 * rounds)
  const batch = (round: number) => sent.slice(20 * round, 20 * round + 20).map((id) => message(id))

  it('when the numbers are gone at each start', async () => {
    const [topic, folder] = [ownTopic(), temporaryFolder('numbers')]
    for (let round = 0; round < rounds; round += 1) {
      await next(topic, folder, batch(round))
      rmSync(folder, { recursive: true, force: true })
    }
    expect(await ids(topic)).toEqual(sent)
  }, 120_000)

  it('when the numbers are set back to an old copy at each start', async () => {
    const [topic, folder, copy] = [ownTopic(), temporaryFolder('numbers'), `${temporaryFolder('copy')}/numbers`]
    for (let round = 0; round < rounds; round += 1) {
      await next(topic, folder, batch(round))
      if (round === 0) cpSync(folder, copy, { recursive: true })
      rmSync(folder, { recursive: true, force: true })
      cpSync(copy, folder, { recursive: true })
    }
    expect(await ids(topic)).toEqual(sent)
  }, 120_000)

  it('when two devices have a copy of the same numbers and send at once', async () => {
    const [topic, folder, copy] = [ownTopic(), temporaryFolder('numbers'), `${temporaryFolder('copy')}/numbers`]
    await next(topic, folder, batch(0))
    cpSync(folder, copy, { recursive: true })
    const [a, b] = await Promise.all([opened(topic, folder, batch(1)), opened(topic, copy, batch(2))])
    for (let round = 3; round < rounds; round += 1) (round % 2 === 0 ? a : b).give(batch(round))
    await eventually('all', () => a.settled.size + b.settled.size === 20 * (rounds - 1), 60_000)
    a.leave()
    b.leave()
    expect((await ids(topic)).sort()).toEqual([...sent].sort())
  }, 120_000)

  it('when what comes again comes behind what is new', async () => {
    const [topic, folder] = [ownTopic(), temporaryFolder('numbers')]
    for (let round = 0; round < rounds; round += 1) {
      // Numbered, and in each second round half of it never arrives; nobody hears what Pulsar says.
      let frames = 0
      const half: OpenWebSocket = (url, _, settings) =>
        openWebSocket(url, () => undefined, settings).pipe(
          map((socket) => ({ ...socket, send: (text: string) => ((frames += 1) <= 10 || round % 2 === 0) && socket.send(text) })),
        )
      const lost = await eventually('it has written', async () => {
        const one = sender(topic, folder, { open: half })
        one.give(batch(round))
        await eventually('written', () => frames === 20 || one.errors.length > 0)
        one.leave()
        return one.errors.length === 0
      })
      expect(lost).toBe(true)
      const old = batch(round).map(({ id }) => message(id, true))
      await next(topic, folder, [message(`new${round}`), ...old.slice(15), ...old.slice(10, 15), ...old.slice(0, 10)])
    }
    const there = new Set(await ids(topic))
    expect(there.size).toBe(21 * rounds)
    for (const id of sent) expect(there.has(id), id).toBe(true)
  }, 120_000)

  for (const numbered of [true, false])
    it(`when receipts are lost and everything is sent again: ${numbered ? 'exactly one copy of each' : 'without numbers, two of some'}`, async () => {
      const [topic, folder] = [ownTopic(), temporaryFolder('numbers')]
      let deaf = false
      const open: OpenWebSocket = (url, receive, settings) => openWebSocket(url, (text) => (deaf ? undefined : receive(text)), settings)
      const one = sender(topic, folder, { open, numbered, confirmTimeoutMs: 150 })
      one.give([message('first')])
      await one.all(1)
      for (let round = 0; round < rounds; round += 1) {
        const before = await taken(topic)
        deaf = true
        one.give(batch(round))
        await eventually('stored, and nobody heard', async () => (await taken(topic)) >= before + 20)
        deaf = false
        await one.all(1 + 20 * (round + 1))
      }
      one.leave()
      const arrived = await ids(topic)
      expect([...new Set(arrived)]).toEqual(['first', ...sent])
      if (numbered) expect(arrived.length).toBe(1 + sent.length)
      else expect(arrived.length).toBeGreaterThan(1 + sent.length)
    }, 180_000)

  const taken = async (topic: string): Promise<number> => {
    const reply = await fetch(`${pulsarUrl.replace('ws', 'http')}/admin/v2/${topic.replace('://', '/')}/stats`)
    return ((await reply.json()) as { msgInCounter: number }).msgInCounter
  }
})
