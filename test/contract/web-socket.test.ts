/** The WebSocket client over a real socket. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { expect, it } from 'vitest'
import { WebSocketServer, type WebSocket } from 'ws'
import { openWebSocket } from '../../src/connections/web-socket.js'

it('gathers what is sent in one turn, counts it as not taken yet, and sends all of it, in order, before it closes', async () => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  try {
    await once(server, 'listening')
    const came: string[] = []
    const over = new Promise<number>((resolve) => {
      server.on('connection', (peer: WebSocket) => {
        peer.on('message', (data: Buffer) => came.push(data.toString()))
        peer.on('close', resolve)
      })
    })
    const frames = Array.from({ length: 1000 }, (_, i) => `frame ${i}`)
    const buffered = await new Promise<number>((resolve, reject) => {
      const open = openWebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, () => {}).subscribe({
        next: ({ send, bufferedBytes }) => {
          frames.forEach(send)
          const bytes = bufferedBytes()
          open.unsubscribe()
          resolve(bytes)
        },
        error: reject,
      })
    })
    expect(await over).toBe(1000)
    expect(came).toEqual(frames)
    expect(buffered).toBeGreaterThan(frames.join('').length)
  } finally {
    server.close()
  }
})
