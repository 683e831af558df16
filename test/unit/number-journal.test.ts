import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { lastValueFrom } from 'rxjs'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openNumberJournal } from '../../src/connections/number-journal.js'
import type { NumberJournal } from '../../src/connections/number-journal.js'
import type { LogFileSystem } from '../../src/connections/log-files.js'
import { numberBook } from '../../src/connections/numbers.js'
import type { NumberRecord } from '../../src/connections/numbers.js'
import { message } from '../marbles/numbered-world.js'
import { memoryDisk, randomFrom } from '../faults/memory-disk.js'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backhaul-numbers-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const keep = 300
const open = (fs?: LogFileSystem): Promise<NumberJournal> => lastValueFrom(openNumberJournal(folder, { keep, ...(fs === undefined ? {} : { fs }) }))
const done = (work: ReturnType<NumberJournal['append']>): Promise<unknown> => lastValueFrom(work, { defaultValue: undefined })
const given = (number: number): NumberRecord => ({ kind: 'given', run: '00000000000000aa', number, key: number.toString(16).padStart(32, '0'), foreign: number % 2 === 0 })
const several = (from: number, count: number): NumberRecord[] => Array.from({ length: count }, (_, i) => given(from + i))
const mix: readonly NumberRecord[] = [...several(1, 5), { kind: 'stored', run: '00000000000000aa', number: 1, to: 3 }, { kind: 'dead', run: '00000000000000aa', number: 4, to: 4 }]

it('what was appended is found by the next start, on the real disk', async () => {
  const first = await open()
  expect(first.found).toEqual([])
  await done(first.append(mix, () => mix))
  await done(first.close())
  const second = await open()
  expect(second.found).toEqual(mix)
  await done(second.close())
})

it('one process at a time', async () => {
  const first = await open()
  await expect(open()).rejects.toMatchObject({ code: 'BACKHAUL_FOLDER_IN_USE' })
  await done(first.close())
})

it('a full file is followed by the other, which begins with what still counts; neither grows', async () => {
  const disk = memoryDisk()
  const journal = await open(disk.fs)
  const sizes = () => [...disk.files().values()].map((bytes) => bytes.length)
  const before = sizes()
  expect(before, 'both are there, for later the disk may be full').toHaveLength(2)
  const all: NumberRecord[] = []
  for (let i = 0; i < 100; i += 1) {
    const batch = several(1 + i * 50, 50)
    all.push(...batch)
    await done(journal.append(batch, () => all.slice(-keep)))
  }
  expect(sizes()).toEqual(before)
  await done(journal.close())
  const { found, close } = await open(disk.fs)
  expect(found.slice(-keep)).toEqual(all.slice(-keep))
  await done(close())
})

it('a power cut at any call leaves all that was synced, whatever it makes of the rest', async () => {
  for (let seed = 1; seed <= 150; seed += 1) {
    const random = randomFrom(seed)
    const disk = memoryDisk()
    const cutAt = 8 + Math.floor(random() * 60)
    const synced: NumberRecord[] = []
    const all: NumberRecord[] = []
    await new Promise<void>((resolve) => {
      disk.onCall((call) => {
        if (call !== cutAt) return
        disk.freeze()
        resolve()
      })
      const work = async (): Promise<void> => {
        const journal = await open(disk.fs)
        for (let number = 1; number < 9000; ) {
          const batch = several(number, 1 + Math.floor(random() * 290))
          number += batch.length
          all.push(...batch)
          await done(journal.append(batch, () => all.slice(-keep)))
          synced.push(...batch)
        }
      }
      work().catch(() => undefined)
    })
    rmSync(folder, { recursive: true, force: true })
    folder = mkdtempSync(join(tmpdir(), 'backhaul-numbers-'))
    const left = disk.afterCut(random)
    const moved: LogFileSystem = { ...left.fs }
    // The files lie where the first process had them.
    const old = [...left.files().keys()].map((path) => path.slice(0, path.lastIndexOf('/')))[0] ?? folder
    const at = (path: string): string => path.replace(folder, old)
    const { found, close } = await open({ ...moved, open: (path, how) => left.fs.open(at(path), how), list: (path) => left.fs.list(at(path)), rename: (from, to) => left.fs.rename(at(from), at(to)), remove: (path) => left.fs.remove(at(path)) })
    const last = all.slice(-keep).filter(({ number }) => number <= synced.length && !found.some((one) => one.number === number))
    expect({ seed, cutAt, missing: last.length }).toEqual({ seed, cutAt, missing: 0 })
    expect(found.every((one) => JSON.stringify(one) === JSON.stringify(given(one.number)))).toBe(true)
    await done(close())
  }
})

it('a bit that flipped in what was synced makes the next start begin with nothing, and go on', async () => {
  const disk = memoryDisk()
  const journal = await open(disk.fs)
  for (const from of [1, 11, 21]) await done(journal.append(several(from, 10), () => several(1, 30)))
  await done(journal.close())
  const files = disk.files()
  const [path, bytes] = [...files].find(([, content]) => content.includes(Buffer.from(given(15).kind === 'given' ? '0000000000000000000000000000000f' : '', 'hex'))) as [string, Buffer]
  const hurt = Buffer.from(bytes)
  hurt[hurt.indexOf(Buffer.from('0000000000000000000000000000000f', 'hex'))] = 1
  const next = memoryDisk(new Map([...files, [path, hurt]]))
  const second = await open(next.fs)
  expect(second.found).toEqual([])
  await done(second.append(mix, () => mix))
  await done(second.close())
  const third = await open(next.fs)
  expect(third.found).toEqual(mix)
  await done(third.close())
})

it('after a sync that failed it goes on with the other file, and everything that counts is there', async () => {
  const disk = memoryDisk()
  let failing = false
  const fs: LogFileSystem = {
    ...disk.fs,
    open: async (path, how) => {
      const file = await disk.fs.open(path, how)
      // What a sync could not bring to the disk may be gone from the memory too.
      return { ...file, write: (bytes, at) => (failing ? Promise.resolve(bytes.length) : file.write(bytes, at)), sync: () => (failing ? Promise.reject(Object.assign(new Error('io'), { code: 'EIO' })) : file.sync()) }
    },
  }
  const journal = await open(fs)
  await done(journal.append(several(1, 10), () => several(1, 10)))
  failing = true
  await expect(done(journal.append(several(11, 10), () => several(1, 20)))).rejects.toThrow('io')
  failing = false
  await done(journal.append([], () => several(1, 20)))
  await done(journal.close())
  const { found, close } = await open(disk.fs)
  expect(found).toEqual(several(1, 20))
  await done(close())
})

it('the book remembers the last ones only, and tells them in a file’s worth of records', () => {
  const book = numberBook([], () => '00000000000000aa', 10)
  book.begin()
  for (let i = 0; i < 50; i += 1) {
    const step = book.next(message(`m${i}`))
    if (step.kind !== 'send') throw new Error(step.kind)
    if (i % 2 === 0) book.stored(step.entry)
  }
  expect(book.all().filter(({ kind }) => kind === 'given').map(({ number }) => number)).toEqual([41, 42, 43, 44, 45, 46, 47, 48, 49, 50])
  expect(book.all().length).toBeLessThanOrEqual(20)
})
