import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { firstValueFrom, of, Subject } from 'rxjs'
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
  const ask = async (path: string, init: RequestInit = {}) => {
    const reply = await fetch(`${url}${path}`, init)
    const text = await reply.text()
    return { status: reply.status, headers: reply.headers, text, body: (text.startsWith('{') ? JSON.parse(text) : undefined) as Record<string, unknown> | undefined }
  }
  const post = (body: string | Buffer, headers: Record<string, string> = {}, path = '/v1/messages') =>
    ask(path, { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } })
  return { url, port: address.port, ask, post, taken, stop, bodies: () => taken.map(({ value }) => value.body.toString()) }
}

/** Says bytes on a bare socket, and gives what came back until the peer closed, and how much it took. */
const raw = (port: number, say: (write: (text: string | Buffer) => void) => void, deadlineMs = 10_000): Promise<{ text: string; status: number; ms: number; sent: number }> =>
  new Promise((resolve, reject) => {
    const began = performance.now()
    const socket = connect(port, '127.0.0.1')
    let text = ''
    socket.setTimeout(deadlineMs, () => socket.destroy(new Error(`still open after ${deadlineMs} ms: ${text}`)))
    socket.on('connect', () => say((bytes) => socket.write(bytes)))
    socket.on('data', (data) => (text += data.toString()))
    socket.on('error', (error: NodeJS.ErrnoException) => (['ECONNRESET', 'EPIPE'].includes(error.code ?? '') ? undefined : reject(error)))
    socket.on('close', () => resolve({ text, status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? 0), ms: performance.now() - began, sent: socket.bytesWritten - socket.writableLength }))
  })

const ndjson = { 'content-type': 'application/x-ndjson' }

describe('202', () => {
  it('answers one object with its id, and offers it enriched', async () => {
    const { post, bodies } = await start()
    const { status, body } = await post('{"a":1}')
    expect([status, body]).toEqual([202, { id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string }])
    expect(bodies()[0]).toMatch(/^\{"a":1,"UploadedUTCDateTime":".*","UploadedLocalDateTime":".*","DeviceID":"dev"\}$/)
  })
  it('answers an array and JSON lines with ids, in their order; blank lines are skipped', async () => {
    const { post, taken } = await start()
    const array = await post('[{"n":1}, {"n":2}]')
    const lines = await post('{"n":3}\r\n\r\n\n{"n":4}', ndjson)
    expect([array.status, lines.status]).toEqual([202, 202])
    expect([...(array.body?.['ids'] as string[]), ...(lines.body?.['ids'] as string[])]).toEqual(taken.map(({ value }) => value.id))
    expect(taken.map(({ value }) => JSON.parse(value.body.toString()) as { n: number }).map(({ n }) => n)).toEqual([1, 2, 3, 4])
  })
  it('comes only when the queue has it', async () => {
    const { post, ask, taken } = await start({ answer: () => undefined, source: { deadlineMs: 5000 } })
    let answered = false
    const posting = post('{"a":1}').then((reply) => ((answered = true), reply))
    while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve))
    await ask('/healthz') // an early answer would have been here before this one
    expect(answered).toBe(false)
    taken[0]?.settle(accepted)
    expect((await posting).status).toBe(202)
  })
  it('takes an Idempotency-Key as the id, k for one and k-0, k-1 for a batch; a messageId inside is data', async () => {
    const { post } = await start()
    expect((await post('{"messageId":"mine"}', { 'idempotency-key': 'k' })).body).toEqual({ id: 'k' })
    expect((await post('[{},{}]', { 'idempotency-key': 'b' })).body).toEqual({ ids: ['b-0', 'b-1'] })
    expect((await post('{"messageId":"mine"}', { 'idempotency-key': 'k' })).body, 'the same again').toEqual({ id: 'k' })
  })
  it('passes Backhaul-Property headers on, and a digest of the bytes as sent', async () => {
    const { post, taken } = await start()
    await post('{"a":1}', { 'backhaul-property-site': 'north' })
    await post('{"a":1}')
    expect(taken[0]?.value.properties).toEqual({ site: 'north' })
    expect(taken[0]?.value.digest).toBe(taken[1]?.value.digest)
  })
  it.each([['application/json'], ['application/x-www-form-urlencoded'], ['']])('old clients post to / with the type %j', async (type) => {
    const { port, bodies } = await start()
    const header = type === '' ? '' : `Content-Type: ${type}\r\n`
    const { status } = await raw(port, (write) => write(`POST / HTTP/1.1\r\nHost: localhost\r\n${header}Content-Length: 7\r\nConnection: close\r\n\r\n{"a":1}`))
    expect(status).toBe(202)
    expect(bodies()).toHaveLength(1)
  })
})

describe('207', () => {
  it('tells each verdict when they differ, in order', async () => {
    const { post } = await start({
      answer: ({ body }) => {
        const n = /"n":(\d)/.exec(body.toString())?.[1]
        return n === '1' ? accepted : n === '2' ? released(false) : n === '3' ? rejected('no', 'test') : n === '4' ? released(true) : undefined
      },
    })
    const { status, body } = await post('[{"n":1},{"n":2},{"n":3},{"n":4},{"n":5},7]', { 'idempotency-key': 'k' })
    expect(status).toBe(207)
    expect(body?.['results']).toEqual([
      { index: 0, status: 'accepted', id: 'k-0' },
      { index: 1, status: 'released', id: 'k-1' },
      { index: 2, status: 'rejected', reason: 'no' },
      { index: 3, status: 'unknown', id: 'k-3' },
      { index: 4, status: 'unknown', id: 'k-4' },
      { index: 5, status: 'rejected', reason: 'not a JSON object' },
    ])
  })
  it('a bad line rejects that line', async () => {
    const { post } = await start()
    const { status, body } = await post('{"n":1}\n{"n":\n{"n":3}', ndjson)
    expect(status).toBe(207)
    expect((body?.['results'] as { status: string }[]).map((result) => result.status)).toEqual(['accepted', 'rejected', 'accepted'])
  })
})

describe('refusals', () => {
  it.each([
    ['not JSON', '{"a":', 400],
    ['not JSON, an array that ends in a comma', '[{},]', 400],
    ['nothing', '', 400],
    ['bad UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 400],
    ['a number', '7', 422],
    ['no records', '[]', 422],
    ['a duplicate enriched field', '{"DeviceID":1,"DeviceID":2}', 422],
    ['65 levels', `${'{"a":'.repeat(65)}1${'}'.repeat(65)}`, 422],
    ['a batch without a message', '[1,2]', 422],
  ])('%s', async (_what, body, status) => {
    const { post, taken } = await start()
    const reply = await post(body)
    expect(reply.status).toBe(status)
    expect(reply.body?.['error']).toMatchObject({ code: expect.any(String) as string, reason: expect.any(String) as string })
    expect(taken).toEqual([])
  })
  it('413 beyond the limit of a message, after enrichment, and of a request, announced or chunked', async () => {
    const { post, port, bodies } = await start({ server: { maxBodyBytes: 4000 } })
    const fit = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`
    const extra = (await post(fit(100)), (bodies()[0] as string).length - 100)
    expect((await post(fit(1000 - extra))).status).toBe(202)
    expect((await post(fit(1001 - extra))).status).toBe(413)
    expect((await post(`[${fit(100)},${fit(1001)}]`)).status, 'in a batch, that record').toBe(207)
    expect((await post(' '.repeat(4001))).status).toBe(413)
    const announced = await raw(port, (write) => write('POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4001\r\n\r\n'))
    expect(announced.status).toBe(413)
    const chunked = await raw(port, (write) => write(`POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n${' '.repeat(5000)}\r\n`))
    expect(chunked.status).toBe(413)
  })
  it('415 for another type, and for an encoded body', async () => {
    const { post } = await start()
    expect((await post('{}', { 'content-type': 'text/plain' })).status).toBe(415)
    expect((await post(gzipSync('{}'), { 'content-encoding': 'gzip' })).status).toBe(415)
    expect((await post('<a/>', { 'content-type': 'application/xml' }, '/')).status).toBe(415)
  })
  it('422 for a key that came before with other bytes, and for a key that is none', async () => {
    const { post } = await start()
    await post('{"a":1}', { 'idempotency-key': 'k' })
    expect((await post('{"a":2}', { 'idempotency-key': 'k' })).status).toBe(422)
    expect((await post('{"a":2}', { 'idempotency-key': 'x'.repeat(201) })).status).toBe(422)
  })
  it('429 with Retry-After when the window is full on arrival', async () => {
    const { post, taken } = await start({ window: 1, answer: () => undefined })
    const first = post('{}')
    while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve))
    const { status, headers } = await post('{}')
    expect([status, headers.get('retry-after')]).toEqual([429, '1'])
    await first
  })
  it('429 when the bodies of those who wait are too many bytes, and 202 again when they are answered', async () => {
    const { post, taken } = await start({ answer: ({ body }) => (body.includes('first') ? undefined : accepted), source: { maxWaitingBytes: 20, deadlineMs: 5000 } })
    const first = post('{"first":1}')
    while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve))
    const { status, headers } = await post('{"later":1}')
    expect([status, headers.get('retry-after')]).toEqual([429, '1'])
    taken[0]?.settle(accepted)
    expect((await first).status).toBe(202)
    expect((await post('{"later":1}')).status).toBe(202)
  })
  it('a batch larger than the window goes in piece by piece', async () => {
    const { post, taken } = await start({ window: 2 })
    expect((await post(`[${'{},'.repeat(9)}{}]`)).status).toBe(202)
    expect(taken).toHaveLength(10)
  })
  it('503 with Retry-After while nothing can be kept, and nothing is', async () => {
    const { post, taken } = await start({ source: { unavailable: () => 'the queue is lost' } })
    const { status, headers, body } = await post('{}')
    expect([status, headers.get('retry-after'), taken.length]).toEqual([503, '1', 0])
    expect(body).toEqual({ error: { code: 'unavailable', reason: 'the queue is lost' } })
  })
  it('503 when it was released unsent, and after a stop', async () => {
    const { post, stop } = await start({ answer: () => released(false) })
    expect((await post('[{},{}]')).status).toBe(503)
    stop.next()
    expect((await post('{}')).status).toBe(503)
  })
  it('at the deadline: 504 with the ids for what was taken, released for what still waited', async () => {
    const { post, taken } = await start({ window: 1, answer: () => undefined, source: { deadlineMs: 100 } })
    const one = await post('{}', { 'idempotency-key': 'k' })
    expect([one.status, one.body?.['id']]).toEqual([504, 'k'])
    taken[0]?.settle(accepted)
    const two = await post('[{},{}]', { 'idempotency-key': 'b' })
    expect(two.status).toBe(207)
    expect((two.body?.['results'] as { status: string }[]).map((result) => result.status)).toEqual(['unknown', 'released'])
    taken[1]?.settle(accepted)
    expect(taken, 'withdrawn: it never enters').toHaveLength(2)
  })
})

describe('who may', () => {
  it('401 without the token or with another, of any length; 202 with it', async () => {
    const { post, ask } = await start({ server: { token: 'secret' } })
    for (const authorization of ['', 'Bearer', 'Bearer x', 'Bearer secret2', 'Basic secret', `Bearer ${'x'.repeat(5000)}`]) {
      const { status, headers } = await post('{}', authorization === '' ? {} : { authorization })
      expect([status, headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
    }
    expect((await post('{}', { authorization: 'Bearer secret' })).status).toBe(202)
    for (const path of ['/metrics', '/v1/configuration', '/v1/queues', '/nowhere']) expect((await ask(path)).status, path).toBe(401)
    for (const path of ['/healthz', '/readyz']) expect((await ask(path)).status, path).toBe(200)
  })
  it('401 and 403 come before the body is read', async () => {
    const { port } = await start({ server: { token: 'secret' } })
    const piece = Buffer.alloc(1024 * 1024, 0x20)
    const headers = 'POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n'
    const wrong = await raw(port, (write) => {
      write(`${headers}Authorization: Bearer wrong\r\n\r\n`)
      for (let i = 0; i < 100; i += 1) write(piece)
    })
    expect(wrong.text === '' || wrong.status === 401).toBe(true)
    // What the kernel's buffers took is not what we read: far less than was offered.
    expect(wrong.sent).toBeLessThan(16 * piece.length)
    const foreign = await raw(port, (write) => write(`${headers}Origin: https://evil.example\r\nAuthorization: Bearer secret\r\n\r\n`))
    expect(foreign.status).toBe(403)
  })
  it('403 for a foreign Origin and a foreign Host; pages on loopback and listed ones may, also before they have the token', async () => {
    const { post, ask, port } = await start({ server: { token: 't', origins: ['https://mirror.example'] } })
    const authorization = 'Bearer t'
    for (const origin of ['https://evil.example', 'null', 'http://localhost.evil.example']) expect((await post('{}', { origin, authorization })).status, origin).toBe(403)
    for (const origin of ['http://localhost:8080', 'http://127.0.0.1', 'https://mirror.example']) {
      const preflight = await ask('/v1/messages', { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' } })
      expect([preflight.status, preflight.headers.get('access-control-allow-origin'), preflight.headers.get('access-control-allow-headers')]).toEqual([204, origin, 'authorization,content-type'])
      const { status, headers } = await post('{}', { origin, authorization })
      expect([status, headers.get('access-control-allow-origin')]).toEqual([202, origin])
    }
    const rebound = await raw(port, (write) => write('GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n'))
    expect(rebound.status).toBe(403)
  })
  it('405 with Allow, 404, and HEAD', async () => {
    const { ask } = await start()
    const wrong = await ask('/v1/messages', { method: 'PUT', body: '{}' })
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST'])
    expect((await ask('/nowhere')).status).toBe(404)
    expect((await ask('/healthz', { method: 'HEAD' })).status).toBe(200)
  })
})

describe('order and leaving', () => {
  it('a client that leaves cancels nothing', async () => {
    const { port, taken } = await start({ answer: () => undefined })
    const socket = connect(port, '127.0.0.1')
    socket.end('POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}')
    while (taken.length === 0) await new Promise((resolve) => setImmediate(resolve))
    socket.destroy()
    await firstValueFrom(of(undefined))
    taken[0]?.settle(accepted)
    expect(taken).toHaveLength(1)
  })
  it('requests that are pipelined on one connection are taken in their order', async () => {
    const { port, bodies } = await start()
    const one = (n: number, close = '') => `POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 7\r\n${close}\r\n{"n":${n}}`
    await raw(port, (write) => write(one(1) + one(2) + one(3) + one(4, 'Connection: close\r\n')))
    expect(bodies().map((text) => text.slice(0, 6))).toEqual(['{"n":1', '{"n":2', '{"n":3', '{"n":4'])
  })
})

describe('hostile clients', () => {
  const head = 'POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
  it('slow headers and slow bodies are cut off, within 15 s by default', async () => {
    const { port, post } = await start({ server: { headersTimeoutMs: 200, requestTimeoutMs: 400 } })
    const [headers, body] = await Promise.all([raw(port, (write) => write('POST /v1/mess')), raw(port, (write) => write(`${head}Content-Length: 50\r\n\r\n{`))])
    expect([headers.status, body.status].every((status) => status === 408 || status === 0)).toBe(true)
    expect(Math.max(headers.ms, body.ms)).toBeLessThan(5000)
    expect((await post('{}')).status).toBe(202)
  })
  it.each([
    ['two Content-Lengths', `${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`],
    ['Content-Length and chunks', `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    ['a false Content-Length', `${head}Content-Length: -1\r\n\r\n`],
    ['bare line feeds', 'POST /v1/messages HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}'],
    ['a folded header', `${head}X-A: b\r\n  c\r\nContent-Length: 2\r\n\r\n{}\r\nGARBAGE`],
    ['17 KB of headers', `${head}X-A: ${'x'.repeat(17_000)}\r\n\r\n`],
    ['2,000 headers', `${head}${Array.from({ length: 2000 }, (_, i) => `X-${i}: ${i}`).join('\r\n')}\r\n\r\n`],
    ['a header named __proto__', `${head}__proto__: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`],
    ['garbage', '\u0000\u0001\u0002\r\n\r\n'],
  ])('%s: no crash, no 5xx, and the next is served', async (_what, bytes) => {
    const { port, post } = await start({ server: { headersTimeoutMs: 300, requestTimeoutMs: 500 } })
    const { status, text } = await raw(port, (write) => write(bytes))
    expect(status < 500).toBe(true)
    expect(text).not.toMatch(/node_modules|fastify|at .*\.js/i)
    expect((await post('{}')).status).toBe(202)
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
