import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { lastValueFrom } from 'rxjs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deduplicationIsOn } from '../../src/connections/pulsar-deduplication.js'

let server: Server
let reply: { status: number; body: string } = { status: 200, body: '{}' }
const asked: string[] = []
beforeAll(async () => {
  server = createServer((request, response) => {
    asked.push(`${request.url} ${request.headers.authorization}`)
    response.writeHead(reply.status).end(reply.body)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterAll(() => server.close())

const ask = () => lastValueFrom(deduplicationIsOn({ url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/`, topic: 'persistent://public/default/t 1', token: () => 'secret' }))
const saying = (status: string) => ({ status: 200, body: JSON.stringify({ msgInCounter: 1, deduplicationStatus: status }) })

describe('whether a topic drops repeats', () => {
  it('is read from its statistics, which a token that may produce may read', async () => {
    reply = saying('Enabled')
    expect(await ask()).toBe(true)
    expect(asked.at(-1)).toBe('/admin/v2/persistent/public/default/t%201/stats Bearer secret')
  })
  for (const [what, answer, kind] of [
    ['it does not', saying('Disabled'), 'misconfigured'],
    ['it is being switched off', saying('Removing'), 'misconfigured'],
    ['it is still being read in', saying('Recovering'), 'away'],
    ['the statistics do not say', { status: 200, body: '{}' }, 'misconfigured'],
    ['there is no such address, as at a proxy of its own', { status: 404, body: '' }, 'misconfigured'],
    ['the token may not ask', { status: 403, body: '' }, 'unauthorised'],
    ['the broker is in trouble', { status: 503, body: '' }, 'away'],
  ] as const)
    it(`${what}: ${kind}`, async () => {
      reply = answer
      await expect(ask()).rejects.toMatchObject({ name: 'PulsarUnavailable', kind })
    })
})
