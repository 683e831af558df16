/** Every row of the HTTP table, against the daemon as a process: embedded queue, topic log, the deadlines of real life. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { booksOf, eventually, startDaemon } from '../wire/daemon-process.js'
import type { Daemon } from '../wire/daemon-process.js'
import { raw } from './raw.js'

const json = { 'content-type': 'application/json' }
const ndjson = { 'content-type': 'application/x-ndjson' }
const host = 'Host: localhost\r\n'
const head = `POST /v1/messages HTTP/1.1\r\n${host}Content-Type: application/json\r\n`

interface Line {
  readonly id: string
  readonly payload: string
  readonly properties: Readonly<Record<string, string>>
}

/** A daemon, and a ledger of all that it answered. */
const witness = (daemon: Daemon) => {
  const seen = new Map<number, number>()
  const accepted: string[] = []
  const unknown: string[] = [] // the deadline came first: accepted afterwards, perhaps
  const port = Number(new URL(daemon.url).port)
  const saw = (status: number): void => void seen.set(status, (seen.get(status) ?? 0) + 1)
  const ask = async (path: string, init: RequestInit = {}) => {
    const reply = await fetch(`${daemon.url}${path}`, init)
    const text = await reply.text()
    saw(reply.status)
    const body = (text.startsWith('{') ? JSON.parse(text) : {}) as {
      id?: string
      ids?: string[]
      results?: { index: number; status: string; id?: string; reason?: string }[]
      error?: { code: string; reason: string }
    }
    const { id, ids = [], results = [] } = body
    if (reply.status === 202) accepted.push(...(id === undefined ? ids : [id]))
    if (reply.status === 504) unknown.push(...(id === undefined ? ids : [id]))
    for (const result of results) {
      if (result.status === 'accepted') accepted.push(result.id as string)
      if (result.status === 'unknown') unknown.push(result.id as string)
    }
    return { status: reply.status, headers: reply.headers, text, body }
  }
  const post = (body: string | Buffer, headers: Record<string, string> = {}, path = '/v1/messages') => ask(path, { method: 'POST', body, headers: { ...json, ...headers } })
  const say = async (...[bytes, deadlineMs]: [Parameters<typeof raw>[1] | string, number?]) => {
    const reply = await raw(port, typeof bytes === 'string' ? (write) => write(bytes) : bytes, deadlineMs)
    reply.statuses.forEach(saw)
    for (const [, id] of reply.text.matchAll(/\{"id":"([^"]+)"\}/g)) accepted.push(id as string)
    return reply
  }
  const log = (): readonly Line[] => {
    try {
      return readFileSync(join(daemon.folder, 'topic-log.ndjson'), 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line) as Line)
    } catch {
      return []
    }
  }
  /** Of these messages, as they were delivered, in that order. */
  const delivered = (ids: readonly string[]) =>
    eventually('delivered', () => {
      const lines = log().filter(({ id }) => ids.includes(id))
      return new Set(lines.map(({ id }) => id)).size === new Set(ids).size && lines
    })
  return { daemon, port, seen, saw, accepted, unknown, ask, post, say, log, delivered }
}
type Witness = ReturnType<typeof witness>
const record = ({ payload }: Line) => JSON.parse(payload) as Record<string, unknown>

let open: Witness // small limits, no token
let guarded: Witness // default limits, a token, an origin of its own, the WebSocket stream
let narrow: Witness // one message at a time
let away: Witness // its RabbitMQ takes connections, and never says a word; its spool is full
let filling: Promise<unknown>
let silent: Server
const started: Daemon[] = []
const start = async (settings: Record<string, string>): Promise<Witness> => {
  const daemon = await startDaemon({ BACKHAUL_LOG_LEVEL: 'silent', ...settings })
  started.push(daemon)
  const made = witness(daemon)
  // It listens a moment before its store is open.
  if (settings['BACKHAUL_AMQP_URL'] === undefined) await eventually('ready', async () => (await made.ask('/readyz')).status === 200)
  return made
}

/** Until it can keep no more. */
const fill = async ({ post }: Witness): Promise<void> => {
  await eventually('its spool is open', async () => (await post('{}')).status === 202)
  for (let n = 0; n < 20; n += 1) if ((await post(JSON.stringify({ s: 'x'.repeat(100_000) }))).status !== 202) return
}

beforeAll(async () => {
  silent = createServer(() => undefined).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  ;[open, guarded, narrow, away] = await Promise.all([
    start({ BACKHAUL_MAX_BODY_BYTES: '20000', BACKHAUL_MAX_MESSAGE_BYTES: '1000' }),
    start({ BACKHAUL_HTTP_TOKEN: 'secret', BACKHAUL_HTTP_ORIGINS: 'https://mirror.example', BACKHAUL_WEBSOCKET: 'true' }),
    start({ BACKHAUL_WINDOW: '1' }),
    start({ BACKHAUL_AMQP_URL: `amqp://127.0.0.1:${port}`, BACKHAUL_ROLES: 'ingest,forward', BACKHAUL_STORE_MAX_BYTES: '1048576' }),
  ])
  filling = fill(away)
})
afterAll(async () => {
  for (const daemon of started) daemon.signal('SIGKILL')
  await Promise.all(started.map(({ ended }) => ended))
  silent.close()
})

describe('202', () => {
  it('one object: its id, and it is delivered enriched', async () => {
    const { status, body } = await open.post('{"a": 1}')
    expect([status, body]).toEqual([202, { id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string }])
    const [line] = await open.delivered([body.id as string])
    expect(line?.payload).toMatch(/^\{"a": 1,"UploadedUTCDateTime":".*","UploadedLocalDateTime":".*","DeviceID":"test-device"\}$/)
  })
  it('an array and JSON lines: their ids, delivered in their order; blank lines are skipped', async () => {
    const array = await open.post('[{"n":1}, {"n":2}]')
    const lines = await open.post('\n{"n":3}\r\n\r\n  \n{"n":4}', ndjson)
    expect([array.status, lines.status]).toEqual([202, 202])
    const ids = [...(array.body.ids ?? []), ...(lines.body.ids ?? [])]
    const delivered = await open.delivered(ids)
    expect(delivered.map((line) => [line.id, record(line)['n']])).toEqual(ids.map((id, index) => [id, index + 1]))
  })
  it('an Idempotency-Key is the id, k for one and k-0, k-1 for a batch; a messageId inside is data; a repeat is delivered once', async () => {
    const first = await open.post('{"messageId":"mine"}', { 'idempotency-key': 'k' })
    expect([first.status, first.body]).toEqual([202, { id: 'k' }])
    expect((await open.post('[{},{}]', { 'idempotency-key': 'b' })).body).toEqual({ ids: ['b-0', 'b-1'] })
    await open.delivered(['k'])
    expect((await open.post('{"messageId":"mine"}', { 'idempotency-key': 'k' })).body, 'the same again').toEqual({ id: 'k' })
    await open.delivered([(await open.post('{"last":true}')).body.id as string])
    expect(open.log().filter(({ id }) => id === 'k')).toHaveLength(1)
  })
  it('Backhaul-Property headers travel as properties', async () => {
    const { body } = await open.post('{}', { 'backhaul-property-site': 'north', 'backhaul-property-row': '7' })
    expect((await open.delivered([body.id as string]))[0]?.properties).toEqual({ site: 'north', row: '7' })
  })
  it.each(['application/json', 'application/x-www-form-urlencoded', ''])('old clients post to / with the type %j', async (type) => {
    const header = type === '' ? '' : `Content-Type: ${type}\r\n`
    const { status, text } = await open.say(`POST / HTTP/1.1\r\n${host}${header}Content-Length: 9\r\nConnection: close\r\n\r\n{"old":1}`)
    expect(status).toBe(202)
    const [, id = ''] = /"id":"([^"]+)"/.exec(text) ?? []
    expect(record((await open.delivered([id]))[0] as Line)).toMatchObject({ old: 1, DeviceID: 'test-device' })
  })
})

describe('207', () => {
  it('a batch with records that are no messages: the others are accepted, each is told', async () => {
    const { status, body } = await open.post('[{"n":1}, 7, {"n":3}, {"DeviceID":1,"DeviceID":2}]', { 'idempotency-key': 'mixed' })
    expect([status, body.results]).toEqual([
      207,
      [
        { index: 0, status: 'accepted', id: 'mixed-0' },
        { index: 1, status: 'rejected', reason: 'not a JSON object' },
        { index: 2, status: 'accepted', id: 'mixed-2' },
        { index: 3, status: 'rejected', reason: 'duplicate field DeviceID' },
      ],
    ])
    expect((await open.delivered(['mixed-0', 'mixed-2'])).map(record)).toMatchObject([{ n: 1 }, { n: 3 }])
  })
  it('a bad line rejects that line, and blank ones are not counted', async () => {
    const { status, body } = await open.post('{"n":1}\n\n{"n":\n{"n":3}', ndjson)
    expect([status, body.results?.map((result) => result.status)]).toEqual([207, ['accepted', 'rejected', 'accepted']])
  })
  it('a record that is too large rejects that record', async () => {
    const { status, body } = await open.post(`[{"a":1},{"s":"${'x'.repeat(1000)}"}]`)
    expect([status, body.results?.[1]?.reason]).toEqual([207, 'larger than 1000 bytes'])
  })
})

describe('400, 413, 415, 422', () => {
  it.each<[string, string | Buffer, number, string, Record<string, string>?]>([
    ['not JSON', '{"a":', 400, 'not-json'],
    ['an array that ends in a comma', '[{},]', 400, 'not-json'],
    ['nothing', '', 400, 'not-json'],
    ['invalid UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 400, 'not-json'],
    ['a number', '7', 422, 'not-a-message'],
    ['a text', '"x"', 422, 'not-a-message'],
    ['[]', '[]', 422, 'not-a-message'],
    ['JSON lines that are all blank', '\n \n', 422, 'not-a-message', ndjson],
    ['a batch without a message', '[1,2]', 422, 'not-a-message'],
    ['a duplicate enriched field', '{"DeviceID":1,"DeviceID":2}', 422, 'not-a-message'],
    ['one whose name is escaped', '{"DeviceID":1,"Device\\u0049D":2}', 422, 'not-a-message'],
    ['65 levels', `${'{"a":'.repeat(65)}1${'}'.repeat(65)}`, 422, 'not-a-message'],
    ['an Idempotency-Key of 201 characters', '{}', 422, 'not-a-message', { 'idempotency-key': 'x'.repeat(201) }],
    ['51 properties', '{}', 422, 'not-a-message', Object.fromEntries(Array.from({ length: 51 }, (_, n) => [`backhaul-property-${n}`, 'x']))],
  ])('%s', async (_what, body, status, code, headers = {}) => {
    const before = open.accepted.length
    const reply = await open.post(body, headers)
    expect([reply.status, reply.body.error?.code]).toEqual([status, code])
    expect(open.accepted.length).toBe(before)
  })
  it('64 levels are a message', async () => {
    expect((await open.post(`${'{"a":'.repeat(64)}1${'}'.repeat(64)}`)).status).toBe(202)
  })
  it('422 for an Idempotency-Key that came before with other bytes, and the first stays', async () => {
    await open.post('{"a":1}', { 'idempotency-key': 'reused' })
    expect((await open.post('{"a":2}', { 'idempotency-key': 'reused' })).status).toBe(422)
    expect((await open.delivered(['reused'])).map(record)).toMatchObject([{ a: 1 }])
  })
  it('413 for a message beyond its limit, after enrichment', async () => {
    const fit = (bytes: number) => `{"a":"${'x'.repeat(bytes - 8)}"}`
    const { body } = await open.post(fit(100))
    const extra = ((await open.delivered([body.id as string]))[0]?.payload.length ?? 0) - 100
    expect((await open.post(fit(1000 - extra))).status).toBe(202)
    expect((await open.post(fit(1001 - extra))).status).toBe(413)
  })
  it('413 for a request beyond its limit, as announced: nothing of the body is read', async () => {
    expect((await open.post(' '.repeat(20_001))).status).toBe(413)
    expect((await open.say(`${head}Content-Length: 20001\r\n\r\n`)).status).toBe(413)
  })
  it('413 for a request that streams without an end, as soon as the limit is passed', async () => {
    const chunk = `2000\r\n${' '.repeat(0x2000)}\r\n`
    const { status, text, sent } = await open.say((write) => {
      write(`${head}Transfer-Encoding: chunked\r\n\r\n`)
      for (let n = 0; n < 10_000; n += 1) write(chunk)
    })
    expect(text === '' || status === 413, text).toBe(true)
    expect(sent, 'of 80 MB').toBeLessThan(20_000_000)
    const { status: told } = await open.say(`${head}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(3)}`)
    expect(told).toBe(413)
  })
  it('415 for another type, and for an encoded body', async () => {
    expect((await open.post('{}', { 'content-type': 'text/plain' })).status).toBe(415)
    expect((await open.post('{}', { 'content-type': 'application/x-www-form-urlencoded' })).status, 'a form only at /').toBe(415)
    expect((await open.post('<a/>', { 'content-type': 'application/xml' }, '/')).status).toBe(415)
    expect((await open.post(gzipSync('{}'), { 'content-encoding': 'gzip' })).status).toBe(415)
  })
  it('404, 405 with Allow, and HEAD', async () => {
    const wrong = await open.ask('/v1/messages', { method: 'PUT', body: '{}' })
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST'])
    expect((await open.ask('/nowhere')).status).toBe(404)
    expect((await open.ask('/healthz', { method: 'HEAD' })).status).toBe(200)
  })
})

describe('401 and 403', () => {
  const authorization = 'Bearer secret'
  it('401 without the token or with another, of any length; 202 with it; health needs none', async () => {
    for (const wrong of ['', 'Bearer', 'Bearer x', 'Bearer secret2', 'Basic secret', `Bearer ${'x'.repeat(5000)}`]) {
      const { status, headers } = await guarded.post('{}', wrong === '' ? {} : { authorization: wrong })
      expect([status, headers.get('www-authenticate')], wrong.slice(0, 20)).toEqual([401, 'Bearer'])
    }
    for (const path of ['/metrics', '/v1/configuration', '/v1/queues', '/nowhere']) expect((await guarded.ask(path)).status, path).toBe(401)
    for (const path of ['/healthz', '/readyz']) expect((await guarded.ask(path)).status, path).toBe(200)
    expect((await guarded.post('{}', { authorization })).status).toBe(202)
  })
  it('401 and 403 come before the body is read', async () => {
    const piece = Buffer.alloc(1024 * 1024, 0x20)
    const huge = `${head}Content-Length: 15728640\r\n`
    for (const headers of [`${huge}Authorization: Bearer wrong\r\n\r\n`, `${huge}Origin: https://evil.example\r\nAuthorization: ${authorization}\r\n\r\n`]) {
      expect([401, 403]).toContain((await guarded.say(headers)).status)
      const { text, status, sent } = await guarded.say((write) => {
        write(headers)
        for (let n = 0; n < 100; n += 1) write(piece)
      })
      expect(text === '' || [401, 403].includes(status), text).toBe(true)
      // What the kernel's buffers took is not what was read: far less than was offered.
      expect(sent).toBeLessThan(16 * piece.length)
    }
  })
  it('403 for a foreign Origin, though it has the token', async () => {
    for (const origin of ['https://evil.example', 'null', 'http://localhost.evil.example', 'https://mirror.example.evil.example']) {
      const { status, headers, body } = await guarded.post('{}', { origin, authorization })
      expect([status, body.error?.code, headers.get('access-control-allow-origin')], origin).toEqual([403, 'foreign-origin', null])
    }
  })
  it('403 for a foreign Host: a page that had its name point here', async () => {
    const { status, text } = await guarded.say(`GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n`)
    expect([status, text.includes('foreign-host')]).toEqual([403, true])
  })
  it('pages on loopback and of BACKHAUL_HTTP_ORIGINS may ask without the token, post with it, and read the answer', async () => {
    for (const origin of ['http://localhost:8080', 'http://127.0.0.1', 'http://[::1]:3000', 'https://mirror.example']) {
      const asked = { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' }
      const preflight = await guarded.ask('/v1/messages', { method: 'OPTIONS', headers: asked })
      expect([preflight.status, preflight.headers.get('access-control-allow-origin'), preflight.headers.get('access-control-allow-headers')], origin).toEqual([204, origin, 'authorization,content-type'])
      const { status, headers } = await guarded.post('{}', { origin, authorization })
      expect([status, headers.get('access-control-allow-origin'), headers.get('vary')]).toEqual([202, origin, 'Origin'])
      expect((await guarded.post('{}', { origin })).status, 'without the token').toBe(401)
    }
  })
})

describe('/v1/stream and /v1/tail for pages, which can give `new WebSocket` no header', () => {
  const encoded = (token: string): string => Buffer.from(token).toString('base64url')
  /** The protocol that the server chose, or the status with which it refused. */
  const dial = (path: string, protocols: string[], headers: Record<string, string> = {}) =>
    new Promise<{ socket: WebSocket; protocol: string; status?: number; answered: string }>((resolve, reject) => {
      const socket = new WebSocket(`${guarded.daemon.url.replace('http', 'ws')}${path}`, protocols, { headers })
      let answered = ''
      socket.on('upgrade', (response) => (answered = JSON.stringify(response.rawHeaders)))
      socket.on('open', () => resolve({ socket, protocol: socket.protocol, answered }))
      socket.on('unexpected-response', (_request, response) => {
        guarded.saw(response.statusCode as number)
        resolve({ socket, protocol: '', status: response.statusCode as number, answered: JSON.stringify(response.rawHeaders) })
        response.destroy()
      })
      socket.on('error', reject)
    })

  it.each([
    ['/v1/stream', ['backhaul.v1', `bearer.${encoded('secret')}`]],
    ['/v1/tail', [`bearer.${encoded('secret')}`, 'backhaul.v1']],
  ])('%s takes the token as a subprotocol, answers backhaul.v1, and never says the token: %j', async (path, protocols) => {
    const { socket, protocol, answered } = await dial(path, protocols, { origin: 'http://localhost:8080' })
    expect(protocol).toBe('backhaul.v1')
    expect(answered).not.toContain(encoded('secret'))
    let frames = ''
    socket.on('message', (data: Buffer) => (frames += data.toString()))
    const { body } = await guarded.post('{"seen":true}', { authorization: 'Bearer secret' })
    await eventually('its frame', () => frames.includes(`"id":"${body.id}","message":{"seen":true,`))
    socket.terminate()
  })
  it('the header still does, with a protocol or without', async () => {
    for (const protocols of [[], ['backhaul.v1']]) {
      const { socket, protocol } = await dial('/v1/tail', protocols, { authorization: 'Bearer secret' })
      expect(protocol).toBe(protocols[0] ?? '')
      socket.terminate()
    }
  })
  it.each([
    ['no token', ['backhaul.v1']],
    ['another token', ['backhaul.v1', `bearer.${encoded('other')}`]],
    ['an empty token', ['backhaul.v1', 'bearer.']],
    ['the token as it is, not in base64url', ['backhaul.v1', 'bearer.secret']],
    ['the token alone: there would be nothing to answer but the token', [`bearer.${encoded('secret')}`]],
    ['another protocol', ['backhaul.v2', `bearer.${encoded('secret')}`]],
  ])('401 for %s', async (_what, protocols) => {
    const { status, answered } = await dial('/v1/tail', protocols)
    expect(status).toBe(401)
    expect(answered).not.toContain('bearer')
  })
  it('403 for a foreign Origin, though it has the token', async () => {
    expect((await dial('/v1/tail', ['backhaul.v1', `bearer.${encoded('secret')}`], { origin: 'https://evil.example' })).status).toBe(403)
  })
  it('the token counts in no query, and as a subprotocol in no other request', async () => {
    expect((await dial('/v1/tail?token=secret&authorization=Bearer%20secret', ['backhaul.v1'])).status).toBe(401)
    const offered = `Sec-WebSocket-Protocol: backhaul.v1, bearer.${encoded('secret')}\r\n`
    expect((await guarded.say(`GET /metrics HTTP/1.1\r\n${host}${offered}Connection: close\r\n\r\n`)).status).toBe(401)
    expect((await guarded.say(`GET /metrics HTTP/1.1\r\n${host}${offered}Upgrade: h2c\r\nConnection: upgrade, close\r\n\r\n`)).status).not.toBe(200)
  })
})

describe('429', () => {
  it('with Retry-After while the window is full on arrival; a batch larger than the window goes in piece by piece', async () => {
    let answered = false
    const batch = narrow.post(`[${'{},'.repeat(2999)}{}]`).finally(() => (answered = true))
    const refused = await eventually('a refusal', async () => {
      if (answered) throw new Error('the batch was through before anyone was refused')
      const reply = await narrow.post('{}')
      return reply.status !== 202 && reply
    })
    expect([refused.status, refused.headers.get('retry-after'), refused.body.error?.code]).toEqual([429, '1', 'window-full'])
    const { status, body } = await batch
    // A slow disk may not take 3,000 in 10 s, one by one; then the rest was not kept, and is told so.
    const kept = status === 202 ? body.ids : body.results?.filter((result) => result.status === 'accepted')
    expect(kept?.length).toBeGreaterThan(1)
  })
})

describe('503', () => {
  it('with Retry-After while nothing keeps it: RabbitMQ takes the connection and says nothing, and the spool is full', async () => {
    await filling
    const { status, headers, body } = await away.post('{}')
    expect([status, headers.get('retry-after')]).toEqual([503, '1'])
    expect(body.error).toMatchObject({ code: 'unavailable', reason: expect.stringMatching(/^the queue is lost: .* holds \d+ of at most 1048576 bytes/) as string })
  })
})

describe('health and metrics', () => {
  it('/healthz says that the process lives, and no more', async () => {
    for (const one of [open, away]) {
      const { status, body } = await one.ask('/healthz')
      expect([status, body]).toEqual([200, { status: 'alive' }])
    }
  })
  it('/readyz is 200 when messages can be accepted and delivered', async () => {
    const { status, text } = await open.ask('/readyz')
    expect([status, JSON.parse(text)]).toEqual([200, { accept: { ready: true, reasons: [] }, deliver: { ready: true, reasons: [] } }])
  })
  it('/readyz is 503 with a reason for each that cannot be', async () => {
    await filling
    const { status, text } = await away.ask('/readyz')
    expect([status, JSON.parse(text)]).toEqual([
      503,
      {
        accept: { ready: false, reasons: [expect.stringMatching(/^queue: lost for \d+ s \(.* holds \d+ of at most 1048576 bytes.*\)$/) as string] },
        deliver: { ready: false, reasons: [expect.stringMatching(/^rabbitmq-consume: lost for \d+ s \(/) as string] },
      },
    ])
  })
  it('/metrics is Prometheus text', async () => {
    const { status, headers, text } = await open.ask('/metrics')
    expect([status, headers.get('content-type')]).toEqual([200, expect.stringContaining('text/plain') as string])
    expect(text).toMatch(/^# TYPE backhaul_accepted_total counter$/m)
  })
})

describe('order, and clients that leave', () => {
  it('requests that are pipelined on one connection are answered and delivered in their order', async () => {
    const one = (n: number, close = '') => `${head}Content-Length: 11\r\n${close}\r\n{"pipe":${n}0}`
    const { statuses, text } = await open.say([1, 2, 3].map((n) => one(n)).join('') + one(4, 'Connection: close\r\n'))
    expect(statuses).toEqual([202, 202, 202, 202])
    const ids = [...text.matchAll(/"id":"([^"]+)"/g)].map(([, id]) => id as string)
    const delivered = await open.delivered(ids)
    expect(delivered.map(({ id }) => id)).toEqual(ids)
    expect(delivered.map((line) => record(line)['pipe'])).toEqual([10, 20, 30, 40])
  })
  it('a client that leaves in the middle of its body leaves nothing behind, and the next is served', async () => {
    const socket = connect(open.port, '127.0.0.1')
    await new Promise((resolve) => socket.write(`${head}Content-Length: 100\r\n\r\n{"half":`, resolve))
    await new Promise((resolve) => socket.once('close', resolve).destroy())
    const { status, body } = await open.post('{"whole":true}')
    expect(status).toBe(202)
    await open.delivered([body.id as string])
    expect(open.log().some(({ payload }) => payload.includes('half'))).toBe(false)
  })
  it('a client that leaves before its answer cancels nothing: what it sent is delivered', async () => {
    const body = `[${Array.from({ length: 500 }, (_, n) => `{"n":${n}}`).join()}]`
    const socket = connect(open.port, '127.0.0.1')
    await new Promise((resolve) => socket.write(`${head}Idempotency-Key: left\r\nContent-Length: ${body.length}\r\n\r\n${body}`, resolve))
    await new Promise((resolve) => socket.once('close', resolve).destroy())
    const ids = Array.from({ length: 500 }, (_, n) => `left-${n}`)
    expect((await open.delivered(ids)).map(({ id }) => id)).toEqual(ids)
    open.accepted.push(...ids) // a yes that nobody heard
  })
})

describe('malformed requests', () => {
  it.each<[string, string, number]>([
    ['a request line that is none', 'HELLO\r\n\r\n', 400],
    ['a version that is none', `GET /healthz HTTP/9.9\r\n${host}\r\n`, 400],
    ['garbage', '\u0000\u0001\u0002\r\n\r\n', 400],
    ['no Host', 'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n', 400],
    ['two Content-Lengths', `${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`, 400],
    ['Content-Length and chunks', `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    ['a false Content-Length', `${head}Content-Length: -1\r\n\r\n`, 400],
    ['a chunk of no size', `${head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n`, 400],
    ['bare line feeds', 'POST /v1/messages HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}', 400],
    ['17 KB of headers', `${head}X-A: ${'x'.repeat(17_000)}\r\n\r\n`, 431],
    ['2,000 headers', `${head}Connection: close\r\n${Array.from({ length: 2000 }, (_, n) => `X-${n}: ${n}`).join('\r\n')}\r\n\r\n`, 431],
    ['an upgrade to a path that is none', `GET // HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`, 404],
    ['an upgrade that is no WebSocket', `GET /v1/tail HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`, 400],
    ['a header named __proto__', `${head}__proto__: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`, 202],
  ])('%s', async (_what, bytes, status) => {
    const reply = await open.say(bytes)
    expect(reply.text).not.toMatch(/node_modules|fastify|at .*\.js/i)
    expect(reply.status, reply.text).toBe(status)
    expect((await open.post('{}')).status, 'the next is served').toBe(202)
  })
})

describe.concurrent('slow clients, and a queue that cannot take', () => {
  /** One byte now and then, so that the connection is never idle. */
  const dripping = (first: string) => (write: (bytes: string) => void) => {
    write(first)
    const drip = setInterval(() => write('x'), 500)
    setTimeout(() => clearInterval(drip), 20_000).unref()
  }
  it('slow headers are cut off with 408, and meanwhile others are served', async () => {
    const slow = open.say(dripping(`${head}X-Slow: `), 20_000)
    expect((await open.post('{}')).status).toBe(202)
    expect((await slow).status).toBe(408)
  })
  it('a slow body is cut off with 408, and meanwhile others are served', async () => {
    const slow = open.say(dripping(`${head}Content-Length: 1000\r\n\r\n{`), 20_000)
    expect((await open.post('{}')).status).toBe(202)
    expect((await slow).status).toBe(408)
  })
  it('nothing but a connection is cut off', async () => {
    expect([0, 408]).toContain((await open.say('', 20_000)).status)
  })
  it('a queue that is full: 504 with the id for what waits in it, 503 with Retry-After for the next; nothing accepted is lost', async () => {
    const limits = { BACKHAUL_WINDOW: '1', BACKHAUL_STORE_MAX_BYTES: '1048576', BACKHAUL_TOPIC_LOG_MAX_BYTES: '1024' }
    const full = await start(limits)
    const body = JSON.stringify({ s: 'x'.repeat(100_000) })
    const key = (n: number) => ({ 'idempotency-key': `full-${n}` })
    let n = 0
    let reply = await full.post(body, key(n))
    while (reply.status === 202) reply = await full.post(body, key((n += 1)))
    expect([reply.status, reply.body.id, reply.body.error?.code]).toEqual([504, `full-${n}`, 'unknown'])

    const next = await full.post(body, key(n + 1))
    expect([next.status, next.headers.get('retry-after')]).toEqual([503, '1'])
    expect(next.body.error?.reason).toMatch(/^the queue is blocked: the embedded queue holds \d+ of at most 1048576 bytes/)
    const ready = await full.ask('/readyz')
    expect(ready.status).toBe(503)
    expect(JSON.parse(ready.text)).toMatchObject({
      accept: { ready: false, reasons: [expect.stringMatching(/^queue: blocked for \d+ s \(the embedded queue holds/)] },
      deliver: { ready: false, reasons: [expect.stringMatching(/^topic-log: lost for \d+ s \(.* is full/)] },
    })
    expect((await full.ask('/healthz')).status).toBe(200)
    await balanced(full)

    full.daemon.signal('SIGTERM')
    const stopping = await eventually('it has heard', async () => {
      const told = await full.post(body, key(n + 1))
      return told.body.error?.reason === 'stopping' && told
    })
    expect([stopping.status, stopping.headers.get('retry-after')]).toEqual([503, '1'])
    expect((await full.daemon.ended).code).toBe(0)

    const again = await start({ BACKHAUL_DATA_DIR: full.daemon.folder })
    expect((await again.post(body, key(n))).body, 'what was unknown is sent again, under the same id').toEqual({ id: `full-${n}` })
    const ids = Array.from({ length: n + 1 }, (_, index) => `full-${index}`)
    expect((await again.delivered(ids)).map(({ id }) => id)).toEqual(ids)
  })
})

/** Promise 5, at rest, and against the ledger of the client's own. */
const balanced = async ({ daemon, accepted, unknown, seen }: Witness, headers: Record<string, string> = {}) => {
  const metrics = async () => (await (await fetch(`${daemon.url}/metrics`, { headers })).text()).split('\n')
  const numbers = async (name: string): Promise<Map<string, number>> =>
    new Map((await metrics()).flatMap((line) => (line.startsWith(`backhaul_${name}{`) || line.startsWith(`backhaul_${name} `) ? [[/"(.*)"/.exec(line)?.[1] ?? '', Number(line.split(' ').pop())]] : [])))
  const total = async (name: string, label = '') => (await numbers(name)).get(label) ?? 0
  await eventually('at rest', async () => (await total('connected', 'topic-log')) === 0 || (await total('pipeline_unsettled', 'forward')) + (await total('queued_messages', 'publicQueue')) === 0)
  for (const pipeline of ['ingest', 'forward']) {
    const [taken, yes, rejected, released, unsettled] = await Promise.all(
      ['pipeline_taken_total', 'pipeline_accepted_total', 'pipeline_rejected_total', 'pipeline_released_total', 'pipeline_unsettled'].map((name) => total(name, pipeline)),
    )
    expect(taken, pipeline).toBe((yes as number) + (rejected as number) + (released as number) + (unsettled as number))
  }
  const yes = await total('accepted_total')
  expect(yes, 'each yes was heard').toBeGreaterThanOrEqual(accepted.length)
  expect(yes, 'or its deadline came first').toBeLessThanOrEqual(accepted.length + unknown.length)
  const [delivered, dead, purged, repeats, queued] = await Promise.all([
    total('delivered_total'), total('dead_lettered_total'), total('purged_total'), total('repeats_dropped_total'), total('queued_messages', 'publicQueue'),
  ])
  expect(delivered + dead + purged + repeats + queued).toBe(yes)
  // A client that leaves in the middle is refused as well, and does not hear of it.
  const refused = await numbers('http_refused_total')
  for (const [status, count] of seen) if (status >= 400) expect(refused.get(String(status)), String(status)).toBeGreaterThanOrEqual(count)
  expect([...refused.keys()].sort()).toEqual([...seen.keys()].filter((status) => status >= 400).map(String).sort())
  return { delivered, repeats }
}

describe('the books, after all this', () => {
  it('balance, by the metrics alone and against what the clients were told', async () => {
    const { delivered, repeats } = await balanced(open)
    expect(repeats).toBe(1)
    expect(open.log()).toHaveLength(delivered)
    await balanced(narrow)
    await balanced(guarded, { authorization: 'Bearer secret' })
    await expect(booksOf(open.daemon, 'publicQueue')).resolves.toMatchObject({ foreign: 0, deadLettered: 0, purged: 0, queued: 0 })
  })
})
