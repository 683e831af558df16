import { mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, from, lastValueFrom, map, toArray } from 'rxjs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Outcome } from '../../src/delivery.js'
import { configuration, maxConfigurationBytes } from '../../src/pipelines/configuration.js'
import type { Document } from '../../src/sinks/configuration-store.js'
import { configurationSink, keptConfiguration, rejectedConfigurationSink } from '../../src/sinks/configuration-store.js'

const own = 'persistent://public/default/ffc-configuration-device-1'
const extra = 'persistent://public/default/fleet'
let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'backhaul-configuration-'))
})
afterEach(() => rm(folder, { recursive: true }))

const run = async (...payloads: readonly (string | Buffer | readonly [string, string])[]) => {
  const outcomes: Outcome[] = []
  const reasons: string[] = []
  const documents = payloads.map((given, i): Document => {
    const [topic, payload] = Array.isArray(given) ? (given as [string, string]) : [own, given as string | Buffer]
    return { topic, messageId: `CA${i}`, payload: Buffer.from(payload) }
  })
  await lastValueFrom(
    configuration({
      source: from(documents).pipe(map((value) => ({ value, settle: (outcome: Outcome) => outcomes.push(outcome) }))),
      keep: configurationSink(folder, own),
      refused: rejectedConfigurationSink(folder),
      counted: { accepted: () => undefined, rejected: ({ reason }) => reasons.push(reason) },
    }).pipe(toArray()),
  )
  return { outcomes, reasons }
}
const kept = async (topic?: string) => (await firstValueFrom(keptConfiguration(folder, own, topic)))?.toString()

describe('the configuration pipeline', () => {
  it('keeps the newest valid document, byte for byte', async () => {
    const { outcomes } = await run('{"v": 1}', '{"v": 1e999, "v2":9007199254740993}')
    expect(await kept()).toBe('{"v": 1e999, "v2":9007199254740993}')
    expect(outcomes.map(({ kind }) => kind)).toEqual(['accepted', 'accepted'])
  })

  it('keeps what is no configuration aside with its reason, settles it, and leaves the old one', async () => {
    const large = Buffer.from(`{"x":"${'y'.repeat(maxConfigurationBytes)}"}`)
    const { outcomes, reasons } = await run('{"v":1}', '[1]', 'v: 2', '{"v":1}{"v":2}', '', large)
    expect(await kept()).toBe('{"v":1}')
    expect(outcomes.map(({ kind }) => kind)).toEqual(Array(6).fill('accepted'))
    expect(reasons).toEqual(['not a JSON object', 'not JSON', 'not JSON', 'not JSON', `larger than ${maxConfigurationBytes} bytes`])
    const names = (await readdir(join(folder, 'rejected'))).sort()
    expect(names).toHaveLength(5)
    const record = JSON.parse(await readFile(join(folder, 'rejected', names[0] as string), 'utf8')) as Record<string, string>
    expect(record).toMatchObject({ reason: expect.any(String) as string, topic: own })
  })

  it('takes a document of exactly the largest size', async () => {
    const text = `{"x":"${'y'.repeat(maxConfigurationBytes - 8)}"}`
    expect(Buffer.byteLength(text)).toBe(maxConfigurationBytes)
    await run(text)
    expect(await kept()).toBe(text)
  })

  it('keeps documents of other topics apart', async () => {
    await run('{"own":1}', [extra, '{"fleet":1}'])
    expect(await kept()).toBe('{"own":1}')
    expect(await kept(extra)).toBe('{"fleet":1}')
  })

  it('leaves the old document whole when a crash left half of a new one', async () => {
    await run('{"v":1}')
    await writeFile(join(folder, 'current.json.new'), '{"v":')
    expect(await kept()).toBe('{"v":1}')
    await run('{"v":2}')
    expect(await kept()).toBe('{"v":2}')
  })

  it('puts a new document in place of the old one, which whoever has it open still reads whole', async () => {
    await run('{"v":1,"old":true}')
    const old = await open(join(folder, 'current.json'))
    await run('{"v":2}')
    expect(await old.readFile('utf8')).toBe('{"v":1,"old":true}')
    await old.close()
    expect(await kept()).toBe('{"v":2}')
  })

  it('syncs the document before it gets its place, and its folder after', async () => {
    await run('{"v":1}')
    const handle = await open(join(folder, 'current.json'))
    const prototype = Object.getPrototypeOf(handle) as FileHandle
    await handle.close()
    const synced: string[] = []
    const spy = vi.spyOn(prototype, 'sync').mockImplementation(async function (this: FileHandle) {
      synced.push(`${(await this.stat()).isDirectory() ? 'folder' : 'document'} while ${await kept()} is in place`)
    })
    await run('{"v":2}')
    spy.mockRestore()
    expect(synced).toEqual(['document while {"v":1} is in place', 'folder while {"v":2} is in place'])
  })

  it('keeps the newest hundred of what was refused', async () => {
    await run(...Array.from({ length: 105 }, () => 'no'))
    expect((await readdir(join(folder, 'rejected'))).filter((name) => !name.endsWith('.new'))).toHaveLength(100)
  })
})
