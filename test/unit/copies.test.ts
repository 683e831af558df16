import { map, of, Subject } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { newBooks } from '../../src/books.js'
import type { Delivery, Outcome } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { deliver } from '../../src/operators/deliver.js'
import { copiesOf } from '../../src/pipelines/parts.js'
import type { Queues } from '../../src/pipelines/parts.js'
import type { Settings } from '../../src/settings.js'
import { stream } from '../../src/sinks/websocket.js'
import type { StreamSettings } from '../../src/sinks/websocket.js'

const message = (n: number): Message => ({ id: `m${n}`, body: Buffer.from(`{"n": ${n}}`), properties: {} })

const client = ({ reads = true } = {}) => {
  const frames: string[] = []
  let bytes = 0
  let ended = false
  const socket = {
    send: (frame: Buffer) => {
      frames.push(frame.toString())
      if (!reads) bytes += frame.length
    },
    bufferedBytes: () => bytes,
    terminate: () => (ended = true),
    onClose: () => undefined,
  }
  return { frames, socket, bytes: () => bytes, ended: () => ended }
}
const made = (settings: Partial<StreamSettings> = {}) => {
  const given = stream({ epoch: 'e', ...settings })
  return { ...given, showed: (from: number, to: number): void => Array.from({ length: to - from }, (_, i) => message(from + i)).forEach(given.show) }
}
const sequences = (frames: readonly string[]): string[] => frames.map((frame) => /"sequence":"([^"]*)"/.exec(frame)?.[1] ?? frame)

describe('stream', () => {
  it('gives every client every frame in order, the message byte for byte', () => {
    const { join, showed } = made()
    const [one, two] = [client(), client()]
    join(one.socket)
    join(two.socket)
    showed(1, 3)
    expect(one.frames).toEqual(['{"sequence":"e-1","id":"m1","message":{"n": 1}}', '{"sequence":"e-2","id":"m2","message":{"n": 2}}'])
    expect(two.frames).toEqual(one.frames)
  })

  it('resumes after the sequence that a client saw last, without a gap and without a repeat', () => {
    const { join, showed } = made()
    showed(1, 6)
    const back = client()
    join(back.socket, { after: 'e-3' })
    showed(6, 7)
    expect(sequences(back.frames)).toEqual(['e-4', 'e-5', 'e-6'])
  })

  it('tells what cannot be had any more as a gap, also of another epoch and of a sequence that never was', () => {
    const { join, showed } = made({ maxFrames: 2 })
    showed(1, 6)
    const gapAfter = (after: string): readonly string[] => {
      const back = client()
      join(back.socket, { after })
      return sequences(back.frames)
    }
    expect(gapAfter('e-3')).toEqual(['e-4', 'e-5'])
    expect(gapAfter('e-2')).toEqual(['{"gap":{"from":"e-2","to":"e-3"}}', 'e-4', 'e-5'])
    expect(gapAfter('older-9')).toEqual(['{"gap":{"from":"older-9","to":"e-3"}}', 'e-4', 'e-5'])
    expect(gapAfter('e-99')).toEqual(['{"gap":{"from":"e-99","to":"e-3"}}', 'e-4', 'e-5'])
    expect(gapAfter('nonsense')).toEqual(['{"gap":{"from":"nonsense","to":"e-3"}}', 'e-4', 'e-5'])
  })

  it('keeps no more frames and no more bytes than its ring', () => {
    const few = made({ maxFrames: 3 })
    few.showed(1, 100)
    const small = made({ maxBytes: 150 })
    small.showed(1, 100)
    const [one, two] = [client(), client()]
    few.join(one.socket, { last: 50 })
    small.join(two.socket, { last: 50 })
    expect(sequences(one.frames)).toEqual(['e-97', 'e-98', 'e-99'])
    expect(sequences(two.frames)).toEqual(['e-97', 'e-98', 'e-99'])
  })

  it('cuts off a client that does not read, and the others miss nothing', () => {
    const { join, showed, clients, cut } = made({ maxClientBytes: 200 })
    const [stuck, healthy] = [client({ reads: false }), client()]
    join(stuck.socket)
    join(healthy.socket)
    showed(1, 50)
    expect([stuck.ended(), healthy.ended(), clients(), cut()]).toEqual([true, false, 1, 1])
    expect(stuck.bytes()).toBeLessThanOrEqual(200)
    expect(healthy.frames).toHaveLength(49)
  })
})

describe('a copy queue', () => {
  it('that nobody reads is not fed beyond 100,000: those are dropped, counted, and accepted', () => {
    let depth = 0
    const copied: string[] = []
    const settled: Outcome[] = []
    const sink = deliver<Message>(of(({ id }: Message) => (copied.push(id), of(undefined))), { sink: 'copy' })
    const books = newBooks(0)
    const settings = { websocket: true, udp: [], amqpUrl: ['amqp://x'] } as unknown as Settings
    const [copy] = copiesOf(settings, books, { websocket: { name: 'websocketQueue', sink } } as unknown as Queues, stream({ epoch: 'e' }), () => depth)
    const depths = new Subject<number>()
    const deliveries = depths.pipe(map((n): Delivery<Message> => ({ value: message((depth = n)), settle: (outcome) => settled.push(outcome) })))
    deliveries.pipe(copy?.sink ?? ((source) => source as never)).subscribe()
    for (const n of [0, 100_000, 100_001, 5]) depths.next(n)
    expect(copied).toEqual(['m0', 'm100000', 'm5'])
    expect(books.copiesDropped.get('websocket')).toBe(1)
    expect(settled.map(({ kind }) => kind)).toEqual(Array(4).fill('accepted'))
  })
})
