/** A spool that an earlier version wrote is read; one that a later version wrote is refused, and left as it is. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { expect, it } from 'vitest'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import { decodeMessage, digestOf } from '../../src/message.js'
import { eventually, startDaemon, temporaryFolder } from '../wire/daemon-process.js'
import type { Daemon } from '../wire/daemon-process.js'

interface Golden {
  readonly pending: readonly string[]
  /** By name, in base64. */
  readonly files: Readonly<Record<string, string>>
}

/** Written once, by the first version of each format, and never made anew. */
const golden = JSON.parse(readFileSync(new URL('../golden/spool-1.json', import.meta.url), 'utf8')) as Golden

const lay = (): { folder: string; spool: string } => {
  const folder = temporaryFolder('golden')
  const spool = join(folder, 'spool')
  mkdirSync(spool)
  for (const [name, bytes] of Object.entries(golden.files)) writeFileSync(join(spool, name), Buffer.from(bytes, 'base64'))
  return { folder, spool }
}

it('a spool of format 1 gives all its messages, in order, byte for byte', async () => {
  const { spool } = lay()
  const log = await firstValueFrom(openSegmentLog(spool, { maxBytes: 2 ** 20 }))
  const messages = (await firstValueFrom(log.peek(0, 100))).map(({ body, headers }) => decodeMessage(body, headers))
  expect(messages.map(({ id }) => id)).toEqual(golden.pending)
  for (const { id, body, digest, properties } of messages) {
    const n = Number(id.slice('golden-'.length))
    expect(digestOf(body)).toBe(digest)
    expect(properties).toEqual(n % 2 === 1 ? { line: `${n}` } : {})
  }
  expect(messages.find(({ id }) => id === 'golden-9')?.replayed).toBe('letter-9')
  expect(log.stats()).toMatchObject({ depth: golden.pending.length, damagedRecords: 0, lostMessages: 0, tornBytes: 0 })
  await lastValueFrom(log.close(), { defaultValue: undefined })
})

it('the daemon delivers it', async () => {
  const { folder } = lay()
  const daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
  const file = join(folder, 'topic-log.ndjson')
  const ids = (): string[] => readFileSync(file, { encoding: 'utf8', flag: 'a+' }).split('\n').slice(0, -1).map((line) => (JSON.parse(line) as { id: string }).id)
  await eventually('all delivered', () => ids().length >= golden.pending.length)
  expect(ids()).toEqual(golden.pending)
  expect(await daemon.stop()).toBe(0)
})

it('a spool of a format that is not known ends the start with exit code 78, and not a byte of it is changed', async () => {
  const { folder, spool } = lay()
  const newest = Object.keys(golden.files).filter((name) => name.endsWith('.log')).sort().at(-1)!
  const later = readFileSync(join(spool, newest))
  later.writeUInt16BE(2, 4)
  later.writeUInt32BE(crc32(later.subarray(0, 28)), 28)
  writeFileSync(join(spool, newest), later)
  const before = new Map(readdirSync(spool).map((name) => [name, readFileSync(join(spool, name))]))
  // It may listen before it finds out.
  let told = ''
  let daemon: Daemon | undefined
  void startDaemon({ BACKHAUL_DATA_DIR: folder })
    .then(async (started) => {
      daemon = started
      const { code } = await started.ended
      told = `ended with ${code}\n${started.said()}`
    })
    .catch((error: Error) => (told = error.message))
  await eventually('its end', () => told !== '', 15_000).finally(() => daemon?.signal('SIGKILL'))
  expect(told).toMatch(/ended with 78\n[^]*format 2, which a later version wrote/)
  for (const [name, bytes] of before) expect(readFileSync(join(spool, name)).equals(bytes), name).toBe(true)
})
