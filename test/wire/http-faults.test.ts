/** The rows of the HTTP table that only a broker which says nothing can show. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { raw } from '../contract/raw.js'
import { describeFaults } from './brokers.js'
import { eventually, expectBalanced, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'

const request = (body: string, key: string, more = ''): string =>
  `POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: ${key}\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`
const delivered = ({ folder }: Daemon): readonly string[] =>
  readFileSync(join(folder, 'topic-log.ndjson'), 'utf8').trim().split('\n').map((line) => (JSON.parse(line) as { id: string }).id)

describeFaults('HTTP while RabbitMQ is frozen', (own) => {
  let trusting: Daemon // waits a minute for a confirm
  let wary: Daemon // turns to its spool after the default 1.5 s
  const start = async (settings: Record<string, string>): Promise<Daemon> => {
    const it = await startDaemon({ BACKHAUL_AMQP_URL: own.amqpUrl, BACKHAUL_QUEUE: ownNames().queue, ...settings })
    await eventually('ready', async () => (await it.get('/readyz')).ok)
    return it
  }
  const post = (it: Daemon, body: string, key: string) => it.post(body, { 'content-type': 'application/json', 'idempotency-key': key })

  beforeAll(async () => {
    await own.start('rabbitmq')
    ;[trusting, wary] = await Promise.all([start({ BACKHAUL_WINDOW: '1', BACKHAUL_CONFIRM_TIMEOUT_MS: '60000' }), start({})])
  }, 180_000)
  afterAll(async () => {
    for (const it of [trusting, wary]) it.signal('SIGKILL')
    await Promise.all([trusting.ended, wary.ended])
  })

  it('504 with the ids for what is out, and 429 while it fills the window, for who waits a minute; 202 by the spool for who does not; nothing is lost', async () => {
    for (const it of [trusting, wary]) expect((await post(it, '{"n":0}', 'before')).status).toBe(202)
    await own.freeze('rabbitmq')

    // Pipelined, so that the second is there while the first is out; answers come in the order of requests.
    const both = raw(Number(new URL(trusting.url).port), (write) => write(request('{"n":1}', 'one') + request('{"n":2}', 'two', 'Connection: close\r\n')), 20_000)
    const batch = post(wary, '[{"n":1},{"n":2}]', 'batch')
    expect(await batch).toEqual({ status: 202, body: { ids: ['batch-0', 'batch-1'] } })
    expect(await wary.metric('backhaul_spooled_messages')).toBe(2)
    const { text, statuses } = await both
    expect(statuses).toEqual([504, 429])
    expect(text).toContain('"id":"one"')
    expect(text).toMatch(/retry-after: 1/i)

    await own.thaw('rabbitmq')
    for (const it of [trusting, wary]) await eventually('ready', async () => (await it.get('/readyz')).ok, 60_000)
    expect((await post(trusting, '{"n":1}', 'one')).body).toEqual({ id: 'one' })
    for (const [it, ids] of [[trusting, ['before', 'one', 'last']], [wary, ['before', 'batch-0', 'batch-1', 'last']]] as const) {
      expect((await post(it, '{"last":true}', 'last')).status).toBe(202)
      await eventually('the last', () => delivered(it).includes('last'))
      // What was answered with 429 is not among them.
      expect([...new Set(delivered(it))]).toEqual(ids)
      await expectBalanced(it, 'ingest', 'forward')
    }
  }, 120_000)
})
