/** What only a scripted pipeline can show of the HTTP door. Every row of its table is in http-daemon.test.ts. */
import type { AddressInfo } from 'node:net'
import { of, Subject } from 'rxjs'
import type { Subscription } from 'rxjs'
import { afterEach, describe, expect, it } from 'vitest'
import { newBooks } from '../../src/books.js'
import { httpServer } from '../../src/connections/http-server.js'
import type { HttpServerSettings } from '../../src/connections/http-server.js'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Delivery, Outcome } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { enrich } from '../../src/operators/enrich.js'
import { routes } from '../../src/pipelines/routes.js'
import { httpSource } from '../../src/sources/http.js'
import type { HttpSourceSettings } from '../../src/sources/http.js'
import { intake } from '../../src/sources/intake.js'
import { raw } from './raw.js'

const open: { subscription: Subscription }[] = []
afterEach(() => open.splice(0).forEach(({ subscription }) => subscription.unsubscribe()))

interface Options {
  readonly window?: number
  readonly server?: Partial<HttpServerSettings>
  readonly source?: Partial<HttpSourceSettings>
  /** What becomes of each message; `undefined` leaves it unanswered. */
  readonly answer?: (message: Message) => Outcome | undefined
}

/** The real door: server, routes and source; behind it, a pipeline that answers as told. */
const start = async ({ window = 1000, server = {}, source = {}, answer = () => accepted }: Options = {}) => {
  const taken: Delivery<Message>[] = []
  const stop = new Subject<void>()
  const door = intake<Message>({ window, stop })
  const pipeline = door.deliveries.subscribe((delivery) => {
    taken.push(delivery)
    const outcome = answer(delivery.value)
    if (outcome !== undefined) delivery.settle(outcome)
  })
  const prepare = enrich({ deviceId: 'dev', idField: 'DeviceID' })
  const { ingest } = httpSource({ prepare, maxMessageBytes: 1000, deadlineMs: 300, ...source }, door)
  const ready = { ready: true, reasons: [] }
  const served = routes({
    ingest,
    readiness: () => ({ accept: ready, deliver: ready }),
    metrics: { contentType: 'text/plain', text: () => Promise.resolve('x 1\n') },
    configuration: () => of(undefined),
    queues: [],
    depths: () => Promise.resolve([]),
    books: newBooks(0),
  })
  const listening = httpServer({ host: '127.0.0.1', port: 0, ...server }, served)
  const address = await new Promise<AddressInfo>((resolve, reject) => {
    const subscription = listening.subscribe({ next: resolve, error: reject })
    subscription.add(pipeline)
    open.push({ subscription })
  })
  const url = `http://127.0.0.1:${address.port}`
  const post = async (body: string, headers: Record<string, string> = {}) => {
    const reply = await fetch(`${url}/v1/messages`, { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } })
    return { status: reply.status, headers: reply.headers, body: (await reply.json()) as Record<string, unknown> }
  }
  return { port: address.port, post, taken, stop }
}

describe('the HTTP door before a scripted pipeline', () => {
  it('202 comes only when the queue has it', async () => {
    const { port, post, taken } = await start({ answer: () => undefined, source: { deadlineMs: 5000 } })
    let answered = false
    const posting = post('{"a":1}').then((reply) => ((answered = true), reply))
    while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve))
    await fetch(`http://127.0.0.1:${port}/healthz`) // an early answer would have been here before this one
    expect(answered).toBe(false)
    taken[0]?.settle(accepted)
    expect((await posting).status).toBe(202)
  })
  it('takes with each message a digest of the bytes as they were sent, not as they were enriched', async () => {
    const { post, taken } = await start()
    await post('{"a":1}')
    await post('{"a":1}')
    expect(taken[0]?.value.digest).toBe(taken[1]?.value.digest)
    expect(taken[0]?.value.digest).toMatch(/./)
  })
  it('207 tells each verdict when they differ, in order', async () => {
    const { post } = await start({
      answer: ({ body }) => {
        const n = /"n":(\d)/.exec(body.toString())?.[1]
        return n === '1' ? accepted : n === '2' ? released(false) : n === '3' ? rejected('no', 'test') : n === '4' ? released(true) : undefined
      },
    })
    const { status, body } = await post('[{"n":1},{"n":2},{"n":3},{"n":4},{"n":5},7]', { 'idempotency-key': 'k' })
    expect(status).toBe(207)
    expect(body['results']).toEqual([
      { index: 0, status: 'accepted', id: 'k-0' },
      { index: 1, status: 'released', id: 'k-1' },
      { index: 2, status: 'rejected', reason: 'no' },
      { index: 3, status: 'unknown', id: 'k-3' },
      { index: 4, status: 'unknown', id: 'k-4' },
      { index: 5, status: 'rejected', reason: 'not a JSON object' },
    ])
  })
  it('503 when it was released unsent, and after a stop', async () => {
    const { post, stop } = await start({ answer: () => released(false) })
    expect((await post('[{},{}]')).status).toBe(503)
    stop.next()
    expect((await post('{}')).status).toBe(503)
  })
  it('429 when the bodies that wait are too much, though the window has room', async () => {
    const { post, taken } = await start({ answer: () => undefined, source: { maxWaitingBytes: 10, deadlineMs: 5000 } })
    const first = post('{"a":"b"}')
    while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve))
    const { status, headers } = await post('{}')
    expect([status, headers.get('retry-after')]).toEqual([429, '1'])
    taken[0]?.settle(accepted)
    expect((await first).status).toBe(202)
    expect((await post('[]')).status, 'there is room again').toBe(422)
  })
  it('at the deadline: 504 with the ids for what was taken, released for what still waited', async () => {
    const { post, taken } = await start({ window: 1, answer: () => undefined, source: { deadlineMs: 100 } })
    const one = await post('{}', { 'idempotency-key': 'k' })
    expect([one.status, one.body['id']]).toEqual([504, 'k'])
    taken[0]?.settle(accepted)
    const two = await post('[{},{}]', { 'idempotency-key': 'b' })
    expect(two.status).toBe(207)
    expect((two.body['results'] as { status: string }[]).map((result) => result.status)).toEqual(['unknown', 'released'])
    taken[1]?.settle(accepted)
    expect(taken, 'withdrawn: it never enters').toHaveLength(2)
  })
  it('5,000,000 levels are refused at once', async () => {
    const { post } = await start({ source: { maxMessageBytes: 20_000_000 }, server: { maxBodyBytes: 20_000_000 } })
    const began = performance.now()
    expect((await post('['.repeat(5_000_000))).status).toBe(400)
    expect((await post(`{"a":${'['.repeat(5_000_000)}${']'.repeat(5_000_000)}}`)).status).toBe(422)
    expect(performance.now() - began).toBeLessThan(5000)
  })
  it('more connections than allowed are turned away, and others are served when they are gone', async () => {
    const { port, post } = await start({ server: { maxConnections: 20, headersTimeoutMs: 300, requestTimeoutMs: 300 } })
    await Promise.all(Array.from({ length: 100 }, () => raw(port, (write) => write('GET /'))))
    expect((await post('{}')).status).toBe(202)
  })
})
