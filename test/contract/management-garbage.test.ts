/** Whoever answers at the address of the management API is believed only when it speaks of the queue that was asked for. */
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { firstValueFrom } from 'rxjs'
import { afterEach, expect, it } from 'vitest'
import { policiesByManagement } from '../../src/connections/queue-management.js'

let server: Server | undefined
afterEach(() => {
  server?.closeAllConnections()
  server?.close()
})
const asked = async (answer: string, status = 200) => {
  const opened = createServer((_request, reply) => void reply.writeHead(status).end(answer))
  server = opened
  await once(opened.listen(0, '127.0.0.1'), 'listening')
  const { port } = opened.address() as AddressInfo
  return firstValueFrom(policiesByManagement(`http://127.0.0.1:${port}`, 'amqp://127.0.0.1')([{ queue: 'q', type: 'classic' }]))
}

it.each(['', '<html>', 'null', '5', '"q"', '[]', '{}', '{"name":"other"}', '{"name":"q","policy":5}', '{"name":"q","effective_policy_definition":"max-length"}'])(
  'an answer %s shows no policies: it is an error, not a queue without any',
  async (answer) => {
    await expect(asked(answer)).rejects.toThrow()
  },
)

it('the queue that was asked for is believed, with a policy and without', async () => {
  expect(await asked('{"name":"q","policy":null,"effective_policy_definition":[]}')).toEqual([{ definition: {}, names: [] }])
  server?.close()
  expect(await asked('{"name":"q","policy":"p","operator_policy":"","effective_policy_definition":{"max-length":5}}')).toEqual([{ definition: { 'max-length': 5 }, names: ['p'] }])
})
