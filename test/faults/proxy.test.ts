import { once } from 'node:events'
import { connect, createServer, type Server, type Socket, type AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, it } from 'vitest'

interface Way { latencyMs?: number; bytesPerSecond?: number; sliceBytes?: number; hold?: boolean; swallow?: boolean; limitBytes?: number }
interface Counts { passed: number; pieces: number; swallowed: number }
interface Proxy {
  port: number
  through: (address: string) => string
  set: (faults: { up?: Way; down?: Way; refuse?: boolean }) => Promise<void>
  heal: () => Promise<void>
  reset: () => void
  connections: () => number
  counts: () => { connections: number; resets: number; up: Counts; down: Counts }
  close: () => void
}
const { openProxy } = (await import(new URL('./proxy.js', import.meta.url).href)) as { openProxy: (to: { port: number }) => Promise<Proxy> }

let echo: Server
let proxy: Proxy
/** What the server has received, over all its connections. */
let received: Buffer
const open = new Set<Socket>()

beforeEach(async () => {
  received = Buffer.alloc(0)
  echo = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket)
    socket.on('error', () => undefined)
    socket.on('data', (bytes) => {
      received = Buffer.concat([received, bytes])
      socket.write(bytes)
    })
    socket.on('end', () => socket.end())
  }).listen(0, '127.0.0.1')
  await once(echo, 'listening')
  proxy = await openProxy({ port: (echo.address() as AddressInfo).port })
})
afterEach(() => {
  proxy.close()
  for (const socket of open) socket.destroy()
  open.clear()
  echo.close()
})

const client = async () => {
  const socket = connect(proxy.port, '127.0.0.1')
  open.add(socket)
  let got = Buffer.alloc(0)
  let pieces = 0
  let error: NodeJS.ErrnoException | undefined
  let closed = false
  socket.on('data', (bytes) => {
    got = Buffer.concat([got, bytes])
    pieces += 1
  })
  socket.on('error', (reason) => (error = reason))
  socket.on('close', () => (closed = true))
  await once(socket, 'connect')
  return { socket, got: () => got, text: () => got.toString(), pieces: () => pieces, error: () => error?.code, closed: () => closed }
}
const soon = { timeout: 5000, interval: 5 }
const pattern = (bytes: number): Buffer => Buffer.from(Array.from({ length: bytes }, (_, i) => i % 251))

it('without a fault every byte arrives, both ways, and an end is an end', async () => {
  const one = await client()
  one.socket.end(pattern(1_000_000))
  await expect.poll(one.closed, soon).toBe(true)
  expect(one.got().equals(pattern(1_000_000))).toBe(true)
  expect(one.error()).toBeUndefined()
  await expect.poll(proxy.connections, soon).toBe(0)
})

it('slices down to one byte, each a write of its own, and changes none', async () => {
  await proxy.set({ up: { sliceBytes: 1 }, down: { sliceBytes: 1 } })
  const one = await client()
  one.socket.write(pattern(3000))
  await expect.poll(() => one.got().length, soon).toBe(3000)
  expect(one.got().equals(pattern(3000))).toBe(true)
  expect(proxy.counts().up.pieces).toBe(3000)
  expect(proxy.counts().down.pieces).toBe(3000)
  expect(one.pieces()).toBeGreaterThan(1000)
})

it('delays every byte, in order', async () => {
  await proxy.set({ down: { latencyMs: 300 } })
  const one = await client()
  const began = performance.now()
  one.socket.write('a')
  await expect.poll(() => received.toString(), soon).toBe('a')
  one.socket.write('b')
  await expect.poll(one.text, soon).toBe('ab')
  expect(performance.now() - began).toBeGreaterThanOrEqual(299)
})

it('goes no faster than it is told', async () => {
  await proxy.set({ up: { bytesPerSecond: 20_000 } })
  const one = await client()
  const began = performance.now()
  one.socket.write(pattern(10_000))
  await expect.poll(() => one.got().length, soon).toBe(10_000)
  expect(performance.now() - began).toBeGreaterThan(400)
  expect(one.got().equals(pattern(10_000))).toBe(true)
})

it('a partition holds everything back and loses nothing', async () => {
  const one = await client()
  await proxy.set({ up: { hold: true }, down: { hold: true } })
  one.socket.write('held')
  const other = await client()
  other.socket.write('too')
  await expect.poll(() => one.socket.bytesWritten, soon).toBe(4)
  expect(received.length).toBe(0)
  await proxy.heal()
  await expect.poll(one.text, soon).toBe('held')
  await expect.poll(other.text, soon).toBe('too')
})

it('half-open: one way is swallowed while the connection stays, and healing resets what has a hole', async () => {
  const [one, whole] = [await client(), await client()]
  await proxy.set({ down: { swallow: true } })
  one.socket.write('lost on the way back')
  await expect.poll(() => proxy.counts().down.swallowed, soon).toBe(20)
  expect(received.toString()).toBe('lost on the way back')
  expect([one.text(), one.closed(), proxy.connections()]).toEqual(['', false, 2])
  await proxy.heal()
  await expect.poll(one.error, soon).toBe('ECONNRESET')
  whole.socket.write('still here')
  await expect.poll(whole.text, soon).toBe('still here')
})

it('what a slow way still has is swallowed too', async () => {
  await proxy.set({ up: { latencyMs: 60_000 } })
  const one = await client()
  one.socket.write('on its way')
  await expect.poll(() => one.socket.bytesWritten, soon).toBe(10)
  await expect.poll(async () => {
    await proxy.set({ up: { swallow: true } })
    return proxy.counts().up.swallowed
  }, soon).toBe(10)
  expect(received.length).toBe(0)
})

it('a reset ends both sides with an RST', async () => {
  const one = await client()
  one.socket.write('x')
  await expect.poll(one.text, soon).toBe('x')
  const server = [...open].find((socket) => socket !== one.socket)!
  const told: unknown[] = []
  server.on('error', ({ code }: NodeJS.ErrnoException) => told.push(code))
  proxy.reset()
  await expect.poll(one.error, soon).toBe('ECONNRESET')
  await expect.poll(() => told, soon).toEqual(['ECONNRESET'])
  expect(proxy.counts().resets).toBe(1)
  await expect.poll(proxy.connections, soon).toBe(0)
})

it('resets after so many bytes, not one more', async () => {
  await proxy.set({ up: { limitBytes: 1000 } })
  const one = await client()
  one.socket.write(pattern(5000))
  await expect.poll(one.error, soon).toBe('ECONNRESET')
  expect(received.equals(pattern(5000).subarray(0, received.length))).toBe(true)
  expect(proxy.counts().up.passed).toBe(1000)
})

it('refuses who is new, keeps who is in, and has the same port afterwards', async () => {
  const one = await client()
  await proxy.set({ refuse: true })
  const [error] = (await once(connect(proxy.port, '127.0.0.1'), 'error')) as [NodeJS.ErrnoException]
  expect(error.code).toBe('ECONNREFUSED')
  one.socket.write('in')
  await expect.poll(one.text, soon).toBe('in')
  await proxy.heal()
  const other = await client()
  other.socket.write('again')
  await expect.poll(other.text, soon).toBe('again')
})

it('gives an address back with its own port, and everything else as it was', () => {
  expect(proxy.through('amqp://a:b@localhost:5672/vhost?x=1')).toBe(`amqp://a:b@127.0.0.1:${proxy.port}/vhost?x=1`)
  expect(proxy.through('ws://127.0.0.1:8080')).toBe(`ws://127.0.0.1:${proxy.port}`)
})
