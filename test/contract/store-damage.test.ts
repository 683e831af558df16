/** Damage on the device's disk is told to whoever runs the daemon: in the log and in the metrics. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { expect, it } from 'vitest'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import { encodeHeaders } from '../../src/message.js'
import { eventually, startDaemon, temporaryFolder } from '../wire/daemon-process.js'

it('a flipped bit in the queue costs its message, and the daemon says so', async () => {
  const folder = temporaryFolder('damage')
  const queue = join(folder, 'spool')
  mkdirSync(queue)
  const log = await firstValueFrom(openSegmentLog(queue, { maxBytes: 2 ** 20 }))
  for (const id of ['a', 'b', 'c']) await lastValueFrom(log.append(Buffer.from(`{"is":"${id}"}`), encodeHeaders({ id, body: Buffer.alloc(0), properties: {} })))
  await lastValueFrom(log.close(), { defaultValue: undefined })
  for (const name of readdirSync(queue).filter((one) => one.endsWith('.log'))) {
    const bytes = readFileSync(join(queue, name))
    const at = bytes.indexOf('{"is":"b"}')
    if (at >= 0) bytes[at + 8]! ^= 1
    writeFileSync(join(queue, name), bytes)
  }

  const daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
  await eventually('the others are delivered', async () => (await daemon.metric('backhaul_delivered_total')) === 2)
  expect(await daemon.metric('backhaul_store_lost_messages_total', 'store="spool"')).toBe(1)
  expect(await daemon.metric('backhaul_store_damaged_places_total', 'store="spool"')).toBe(1)
  expect(await daemon.metric('backhaul_store_lost_messages_total', 'store="dead"')).toBe(0)
  await eventually('the log', () => daemon.said().includes('damage on the disk took messages that had been accepted'))
  expect(await daemon.stop()).toBe(0)
  const line = daemon.said().split('\n').filter((one) => one.includes('took messages'))
  expect(line.map((one) => JSON.parse(one) as object)).toMatchObject([{ level: 50, store: 'spool', lostMessages: 1 }])
})
