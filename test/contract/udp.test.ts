import { createSocket } from 'node:dgram'
import type { Socket } from 'node:dgram'
import { once } from 'node:events'
import { from, lastValueFrom, map, toArray } from 'rxjs'
import { afterEach, describe, expect, it } from 'vitest'
import type { Outcome } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { maxDatagramBytes, udpSink } from '../../src/sinks/udp.js'

const sockets: Socket[] = []
afterEach(() => sockets.splice(0).forEach((socket) => socket.close()))

const listener = async () => {
  const socket = createSocket('udp4')
  sockets.push(socket)
  const received: Buffer[] = []
  socket.on('message', (datagram) => received.push(datagram))
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const until = async (count: number) => {
    while (received.length < count) await once(socket, 'message', { signal: AbortSignal.timeout(5000) })
    return received
  }
  return { target: `127.0.0.1:${(socket.address()).port}`, received, until }
}

const run = async (bodies: readonly Buffer[], targets: readonly string[]) => {
  const outcomes: Outcome[] = []
  const drops: string[] = []
  const messages = bodies.map((body, i): Message => ({ id: String(i), body, properties: {} }))
  const receipts = await lastValueFrom(
    from(messages).pipe(
      map((value) => ({ value, settle: (outcome: Outcome) => outcomes.push(outcome) })),
      udpSink({ targets, dropped: (target, reason) => drops.push(`${target} ${reason}`) }),
      toArray(),
    ),
  )
  return { outcomes, drops, receipts }
}

describe('udpSink', () => {
  it('sends each message as one datagram to every target, and says sent, never confirmed', async () => {
    const one = await listener()
    const two = await listener()
    const bodies = ['{"a":1}', '{"b":"ü"}', '{"c":[]}'].map((text) => Buffer.from(text))
    const { receipts, outcomes, drops } = await run(bodies, [one.target, two.target])
    expect(await one.until(3)).toEqual(bodies)
    expect(await two.until(3)).toEqual(bodies)
    expect(receipts.map(({ state }) => state)).toEqual(['sent', 'sent', 'sent'])
    expect(outcomes.map(({ kind }) => kind)).toEqual(['accepted', 'accepted', 'accepted'])
    expect(drops).toEqual([])
  })

  it('rejects what does not fit into one datagram, unsent and unsplit, and goes on', async () => {
    const { target, until } = await listener()
    const bodies = [Buffer.alloc(maxDatagramBytes + 1, 0x20), Buffer.from('{}')]
    const { outcomes } = await run(bodies, [target])
    expect(outcomes[0]).toMatchObject({ kind: 'rejected', stage: 'udp' })
    expect(outcomes[1]).toMatchObject({ kind: 'accepted' })
    expect(await until(1)).toEqual([Buffer.from('{}')])
  })

  it('counts a datagram that cannot leave, with its target, and goes on to the others', async () => {
    const { target, until } = await listener()
    const { drops, outcomes } = await run([Buffer.from('{"a":1}')], ['name.invalid:9', target])
    expect(await until(1)).toHaveLength(1)
    expect(drops).toEqual([expect.stringMatching(/^name\.invalid:9 /)])
    expect(outcomes).toMatchObject([{ kind: 'accepted' }])
  })
})
