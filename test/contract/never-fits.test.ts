/** A record that an embedded queue can never keep holds up no other. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import { Rejection } from '../../src/delivery.js'
import { createPublisher } from '../../src/pipelines/publisher.js'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backhaul-never-fits-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it('a record larger than three quarters of the embedded queue is rejected, and those behind it are accepted', async () => {
  const { publish, close } = createPublisher({ to: folder, maxBytes: 1024 * 1024, maxMessageBytes: 4 * 1024 * 1024, timeoutMs: 5000 })
  const sizes = [10, 800_000, 2_000_000, 10]
  const results = await Promise.allSettled(sizes.map((size) => publish({ text: 'x'.repeat(size) })))
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled'])
  for (const result of [results[1], results[2]]) expect(result).toMatchObject({ reason: { code: 'BACKHAUL_REJECTED', maybeSent: false } })
  await close()
}, 20_000)

it('a record larger than a daemon takes is rejected, as it is or with what is added to it, and those behind it are accepted', async () => {
  const { publish, close } = createPublisher({ to: folder, timeoutMs: 5000 })
  const sizes = [10, 700 * 1024 + 1, 700 * 1024 - '{"text":""}'.length, 690 * 1024]
  const results = await Promise.allSettled(sizes.map((size) => publish({ text: 'x'.repeat(size) })))
  expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled'])
  for (const result of [results[1], results[2]]) expect(result).toMatchObject({ reason: { code: 'BACKHAUL_REJECTED', maybeSent: false, message: 'larger than 716800 bytes' } })
  await close()
}, 20_000)

it('headers that no record can hold are rejected, and not tried again for ever', async () => {
  const log = await firstValueFrom(openSegmentLog(folder, { maxBytes: 2 ** 30 }))
  await expect(lastValueFrom(log.append(Buffer.from('{}'), Buffer.alloc(2 ** 24)))).rejects.toBeInstanceOf(Rejection)
  await lastValueFrom(log.close(), { defaultValue: undefined })
})
