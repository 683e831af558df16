/** What Pulsar's WebSocket API never says, said by whoever answers at its address: no reason to end the process. */
import type { AddressInfo } from 'node:net'
import { filter, firstValueFrom, take, toArray } from 'rxjs'
import { afterEach, expect, it } from 'vitest'
import { WebSocketServer } from 'ws'
import { pulsarWebSocketSubscription } from '../../src/connections/pulsar-subscription.js'

let server: WebSocketServer | undefined
afterEach(() => {
  for (const client of server?.clients ?? []) client.terminate()
  server?.close()
})

it.each(['no JSON', 'null', '{"messageId":"a","payload":5}', '{"messageId":7,"payload":""}', '{"messageId":"a","payload":null}'])(
  'a frame %s on a subscription ends its connection, and the next one works',
  async (garbage) => {
    const opened = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    server = opened
    let connections = 0
    opened.on('connection', (socket) => {
      connections += 1
      socket.send(connections === 1 ? garbage : JSON.stringify({ messageId: 'm', payload: Buffer.from('{}').toString('base64') }))
    })
    await new Promise((resolve) => opened.once('listening', resolve))
    const { port } = opened.address() as AddressInfo
    const lost: unknown[] = []
    const messages: string[] = []
    const consumers = pulsarWebSocketSubscription({
      url: `ws://127.0.0.1:${port}`,
      topic: 'persistent://public/default/t',
      subscription: 's',
      onState: (state) => state.kind === 'lost' && lost.push(state.error),
    })
    const running = consumers.pipe(filter((consumer) => consumer !== undefined)).subscribe((consumer) => consumer.messages.subscribe(({ messageId }) => messages.push(messageId)))
    await firstValueFrom(consumers.pipe(filter((consumer) => consumer !== undefined), take(2), toArray()))
    await expect.poll(() => messages, { timeout: 5000 }).toEqual(['m'])
    expect(lost).toHaveLength(1)
    running.unsubscribe()
  },
  10_000,
)
