/** Somebody takes the growing file away from under the queue, or empties it. */
import { copyFileSync, cpSync, existsSync, mkdtempSync, readdirSync, renameSync, statSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { firstValueFrom } from 'rxjs'
import { describe, expect, it } from 'vitest'
import type { QueueEngine } from '../../src/connections/queue-engine.js'
import { nodeFileSystem, type LogFileSystem } from '../../src/connections/log-files.js'
import { done, folder, open, put, putAll, readAll, root, text, texts } from './queue-folder.js'

const readTexts = async (engine: QueueEngine): Promise<string[]> => (await readAll(engine, 1000)).map(text)
/** What another process finds if this one is gone now. */
const afterCrash = async (): Promise<{ left: string[]; stats: ReturnType<QueueEngine['stats']> }> => {
  const copy = mkdtempSync(join(root, 'copy-'))
  cpSync(folder, copy, { recursive: true, filter: (path) => !path.endsWith('/lock') })
  const engine = await open({}, copy)
  const left = await readTexts(engine)
  const stats = engine.stats()
  await done(engine.close())
  return { left, stats }
}
const growing = (): string => join(folder, readdirSync(folder).filter((name) => name.endsWith('.log')).sort().at(-1)!)

const harms: Record<string, (path: string) => void> = {
  removed: unlinkSync,
  'moved away': (path) => renameSync(path, join(root, 'elsewhere')),
  replaced: (path) => {
    copyFileSync(path, join(root, 'other'))
    renameSync(join(root, 'other'), path)
  },
  emptied: (path) => truncateSync(path),
  shortened: (path) => truncateSync(path, statSync(path).size - 40),
}

describe('a growing file that was', () => {
  for (const [name, harm] of Object.entries(harms)) {
    it(`${name} takes nothing with it: the next yes is true, and so are those before it`, async () => {
      const engine = await open()
      await putAll(engine, texts(0, 10))
      harm(growing())
      await put(engine, 'after')
      expect((await afterCrash()).left).toEqual([...texts(0, 10), 'after'])
      expect(engine.stats().lostFiles).toBe(1)
      expect(await readTexts(engine)).toEqual([...texts(0, 10), 'after'])
      expect(engine.stats()).toMatchObject({ depth: 11, lostMessages: 0 })
    })

    it(`${name} is written anew though nobody appends`, async () => {
      const engine = await open()
      await putAll(engine, texts(0, 10))
      harm(growing())
      await expect.poll(() => engine.stats().lostFiles, { timeout: 8_000 }).toBe(1)
      await expect.poll(async () => (await afterCrash()).left, { timeout: 8_000 }).toEqual(texts(0, 10))
    })

    it(`${name} is written anew by a clean end`, async () => {
      const engine = await open()
      await putAll(engine, texts(0, 10))
      harm(growing())
      await done(engine.close())
      expect(await readTexts(await open())).toEqual(texts(0, 10))
    })
  }
})

/** More than the queue has in memory, in one segment. */
const many = texts(0, 8000, 1000)
const putMany = async (engine: QueueEngine): Promise<void> => {
  for (let at = 0; at < many.length; at += 1000) await putAll(engine, many.slice(at, at + 1000))
}

it('what was removed is read to its end, long gone from memory, before anybody has noticed', async () => {
  const engine = await open()
  await putMany(engine)
  unlinkSync(growing())
  expect(await readTexts(engine)).toEqual(many)
  expect(engine.stats()).toMatchObject({ damagedRecords: 0, lostMessages: 0 })
})

it('what was removed and is long gone from memory outlives the process', async () => {
  const engine = await open()
  await putMany(engine)
  unlinkSync(growing())
  await put(engine, 'after')
  const { left, stats } = await afterCrash()
  expect(left).toEqual([...many, 'after'])
  expect(stats).toMatchObject({ damagedRecords: 0, lostMessages: 0 })
})

it('what was emptied and is not in memory is counted as lost, and the rest comes in order', async () => {
  const engine = await open()
  await putMany(engine)
  truncateSync(growing())
  await put(engine, 'after')
  for (const { left, stats } of [await afterCrash(), { left: await readTexts(engine), stats: engine.stats() }]) {
    expect(left.length).toBeGreaterThan(2000)
    expect(left).toEqual([...many, 'after'].slice(-left.length))
    expect(stats).toMatchObject({ depth: left.length, lostMessages: many.length + 1 - left.length })
    expect(stats.damagedRecords).toBeGreaterThan(0)
  }
})

it('an empty queue just begins another file', async () => {
  const engine = await open()
  await putAll(engine, texts(0, 3))
  for (const { seq } of await firstValueFrom(engine.next(10))) engine.settle(seq)
  unlinkSync(growing())
  await put(engine, 'after')
  expect((await afterCrash()).left).toEqual(['after'])
  expect(readdirSync(folder).filter((name) => name.endsWith('.log')).length).toBe(1)
})

it('while it cannot be written anew nothing is accepted, and what waits is given out; then it heals', async () => {
  let full = false
  const fs: LogFileSystem = {
    ...nodeFileSystem,
    open: (path, how) => (full && how === 'create' ? Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' })) : nodeFileSystem.open(path, how)),
  }
  const engine = await open({ fs })
  await putAll(engine, texts(0, 10))
  full = true
  unlinkSync(growing())
  await expect(put(engine, 'refused')).rejects.toMatchObject({ code: 'BACKHAUL_QUEUE_FULL' })
  await expect(put(engine, 'refused')).rejects.toMatchObject({ code: 'BACKHAUL_QUEUE_FULL' })
  expect(engine.stats().lostFiles).toBe(1)
  expect(await readTexts(engine)).toEqual(texts(0, 10))
  full = false
  await put(engine, 'healed')
  expect((await afterCrash()).left).toEqual([...texts(0, 10), 'healed'])
})

it('a folder that is moved away refuses, and is as before once it is back', async () => {
  const engine = await open()
  await putAll(engine, texts(0, 10))
  renameSync(folder, `${folder}-away`)
  await expect(put(engine, 'refused')).rejects.toMatchObject({ code: 'BACKHAUL_QUEUE_IO' })
  renameSync(`${folder}-away`, folder)
  await put(engine, 'after')
  expect((await afterCrash()).left).toEqual([...texts(0, 10), 'after'])
})

it('a strange file under the name of the next one is no reason to lose anything', async () => {
  const engine = await open()
  await putAll(engine, texts(0, 3))
  unlinkSync(growing())
  writeFileSync(join(folder, '0000000000000004.log'), 'strange')
  await put(engine, 'after')
  expect(existsSync(join(folder, '0000000000000004.log.new'))).toBe(false)
  expect((await afterCrash()).left).toEqual([...texts(0, 3), 'after'])
})
