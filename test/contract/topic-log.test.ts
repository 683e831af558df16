/** The local topic log on a disk that takes less than it was given, as a nearly full one does. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type * as promises from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { from, lastValueFrom, map, toArray } from 'rxjs'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { topicLogWriter } from '../../src/connections/topic-log.js'
import type { Message } from '../../src/message.js'
import { topicLogSink } from '../../src/sinks/topic-log.js'

const disk = vi.hoisted(() => ({ short: 0, full: 0 }))
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof promises>()
  const open: typeof real.open = async (...options) => {
    const file = await real.open(...options)
    const write = file.write.bind(file) as (bytes: Buffer, offset: number, length: number, position: number) => ReturnType<FileHandle['write']>
    const limited = async (bytes: Buffer, offset: number, length: number, position: number): Promise<unknown> => {
      if (disk.short > 0) {
        disk.short -= 1
        return write(bytes, offset, Math.floor(length / 2), position)
      }
      if (disk.full === 0) return write(bytes, offset, length, position)
      disk.full -= 1
      throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
    }
    return Object.assign(file, { write: limited })
  }
  return { ...real, open }
})

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backhaul-topic-log-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const messages = Array.from({ length: 20 }, (_, n): Message => ({ id: `m${n}`, body: Buffer.from(`{"n":${n}}`), properties: {} }))

it.each([
  ['less than it was given', { short: 3, full: 0 }],
  ['a part, and no more for a while', { short: 2, full: 2 }],
])('has every message that it accepted, whole and in order, when the disk takes %s', async (_what, faults) => {
  Object.assign(disk, faults)
  const file = join(folder, 'log.ndjson')
  const deliveries = from(messages).pipe(map((value) => ({ value, settle: () => undefined })))
  const receipts = await lastValueFrom(deliveries.pipe(topicLogSink(topicLogWriter({ file, key: 'k', maxBytes: 1e6 })), toArray()))
  expect(receipts.map(({ outcome }) => outcome.kind)).toEqual(messages.map(() => 'accepted'))
  expect(disk).toEqual({ short: 0, full: 0 })
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line) as { id: string })
  expect([...new Set(lines.map(({ id }) => id))]).toEqual(messages.map(({ id }) => id))
}, 20_000)
