/** Numbers that wrap in other programs: nothing special happens there; at the end of ours the queue says so. */
import { EMPTY, firstValueFrom, lastValueFrom, of } from 'rxjs'
import { describe, expect, it } from 'vitest'
import type { QueueEngine } from '../../src/connections/queue-engine.js'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import { encodeMark, encodeSegmentHeader, LAST_SEQ, MARK, MESSAGE, RECORD_HEADER_BYTES, sealOf, SEGMENT_HEADER_BYTES, writeRecord } from '../../src/connections/segment-record.js'
import { memoryDisk, type MemoryDisk } from '../faults/memory-disk.js'

const salt = Buffer.alloc(16, 7)
/** A folder whose one segment begins at a number, with one message in it. */
const beginningAt = (first: number): MemoryDisk => {
  const seal = sealOf(salt, first)
  const mark = encodeMark({ floor: first, depth: 0, bytes: 0, runs: [] })
  const body = Buffer.from('first')
  const bytes = Buffer.concat([encodeSegmentHeader(salt), Buffer.alloc(2 * RECORD_HEADER_BYTES + mark.length + body.length)])
  writeRecord(bytes, writeRecord(bytes, SEGMENT_HEADER_BYTES, seal, MARK, first, mark), seal, MESSAGE, first, body)
  return memoryDisk(new Map([[`/queue/${String(first).padStart(16, '0')}.log`, bytes]]))
}
const open = ({ fs }: MemoryDisk): Promise<QueueEngine> =>
  firstValueFrom(openSegmentLog('/queue', { maxBytes: 2 ** 24, segmentBytes: 1024, reserveBytes: 0, settleMs: 1, fs, lock: () => of({ release: () => EMPTY }) }))
const put = (engine: QueueEngine, text: string): Promise<number> => firstValueFrom(engine.append(Buffer.from(text)))
const pending = async (engine: QueueEngine): Promise<[number, string][]> =>
  (await firstValueFrom(engine.peek(0, 1000))).map(({ seq, body }) => [seq, body.toString()])
const close = (engine: QueueEngine): Promise<unknown> => lastValueFrom(engine.close(), { defaultValue: undefined })

describe('a queue whose numbers pass', () => {
  for (const [name, limit] of [['2^16', 2 ** 16], ['2^31', 2 ** 31], ['2^32', 2 ** 32], ['2^47', 2 ** 47]] as const) {
    it(`${name} keeps order, settlements and all messages, over a restart, too`, async () => {
      const first = limit - 50
      const disk = beginningAt(first)
      const engine = await open(disk)
      const expected: [number, string][] = [[first, 'first']]
      for (let i = 0; i < 100; i += 1) {
        const body = `m${i}`.padEnd(40, '.')
        expected.push([await put(engine, body), body])
      }
      expect(expected.map(([seq]) => seq)).toEqual(expected.map((_, i) => first + i))
      expect(await pending(engine)).toEqual(expected)
      for (let given = 0; given < 60; ) {
        const entries = await firstValueFrom(engine.next(60 - given))
        entries.forEach(({ seq }, i) => seq !== limit - 1 && seq !== limit && given + i !== 3 && engine.settle(seq))
        given += entries.length
      }
      await close(engine)
      const again = await open(disk.afterKill())
      const left = expected.filter(([seq], i) => i >= 60 || i === 3 || seq === limit - 1 || seq === limit)
      expect(await pending(again)).toEqual(left)
      expect(again.stats()).toMatchObject({ depth: left.length, damagedRecords: 0, lostMessages: 0 })
      await close(again)
    })
  }
})

describe('a queue that has used up its numbers', () => {
  it('says so, keeps what it has, drains, and is no other after a restart', async () => {
    const disk = beginningAt(LAST_SEQ - 3)
    const engine = await open(disk)
    expect(await put(engine, 'a')).toBe(LAST_SEQ - 2)
    expect(await put(engine, 'b')).toBe(LAST_SEQ - 1)
    await expect(put(engine, 'c')).rejects.toMatchObject({ code: 'BACKHAUL_QUEUE_IO', message: expect.stringMatching(/used up its numbers/) as string })
    expect((await pending(engine)).map(([, body]) => body)).toEqual(['first', 'a', 'b'])
    for (let given = 0; given < 2; given += 1) for (const { seq } of await firstValueFrom(engine.next(1))) engine.settle(seq)
    await close(engine)
    const again = await open(disk.afterKill())
    expect((await pending(again)).map(([, body]) => body)).toEqual(['b'])
    await expect(put(again, 'c')).rejects.toMatchObject({ code: 'BACKHAUL_QUEUE_IO' })
    await close(again)
  })

  it('opens, and takes a name beyond them for no segment', async () => {
    const disk = beginningAt(5)
    const stray = memoryDisk(new Map([...disk.files(), ['/queue/9999999999999999.log', Buffer.alloc(100, 1)]]))
    const engine = await open(stray)
    expect(await put(engine, 'a')).toBe(6)
    expect((await pending(engine)).map(([, body]) => body)).toEqual(['first', 'a'])
    await close(engine)
  })
})
