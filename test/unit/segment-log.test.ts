import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import { EMPTY, firstValueFrom, lastValueFrom, of, type Observable } from 'rxjs'
import { describe, expect, it, vi } from 'vitest'
import type { Entry, QueueEngine } from '../../src/connections/queue-engine.js'
import { nodeFileSystem, type LogFileSystem } from '../../src/connections/log-files.js'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import { memoryDisk, type MemoryDisk } from '../faults/memory-disk.js'
import { closeAll, done, folder, open, put, putAll, readAll, root, text, texts } from './queue-folder.js'

const failure = (work: Observable<unknown>): Promise<unknown> => done(work).then(() => undefined, (error: unknown) => error)
const settleAll = (engine: QueueEngine, entries: readonly Entry[]): void => entries.forEach(({ seq }) => engine.settle(seq))
const segmentsIn = (where = folder): string[] => readdirSync(where).filter((name) => name.endsWith('.log')).sort()

/** The disk, with faults that a test switches on: what is named here happens instead. */
const faultyDisk = () => {
  const faults: {
    write?: (path: string, bytes: Buffer) => number | undefined
    sync?: (path: string) => Promise<void>
    truncate?: () => void
    read?: (position: number, length: number) => void
  } = {}
  const syncs: string[] = []
  const fs: LogFileSystem = {
    ...nodeFileSystem,
    open: async (named, how) => {
      const file = await nodeFileSystem.open(named, how)
      const path = named.replace(/\.new$/, '')
      return {
        ...file,
        write: async (bytes, position) => {
          const some = faults.write?.(path, bytes)
          return file.write(some === undefined ? bytes : bytes.subarray(0, some), position)
        },
        sync: async () => {
          syncs.push(basename(path))
          await faults.sync?.(path)
          await file.sync()
        },
        truncate: async (length) => {
          faults.truncate?.()
          await file.truncate(length)
        },
        read: async (into, position) => {
          faults.read?.(position, into.length)
          return file.read(into, position)
        },
      }
    },
  }
  return { fs, faults, syncs }
}
const fault = (code: string): Error => Object.assign(new Error(code), { code })

describe('what was appended', () => {
  it('comes in order, with its headers, and again after a clean reopen', async () => {
    const first = await open()
    const seqs = await Promise.all([put(first, 'a', 'one'), put(first, 'b'), put(first, '', 'three')])
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b))
    const before = await readAll(first)
    await done(first.close())
    const second = await open()
    const after = await readAll(second)
    expect(after).toEqual(before)
    expect(after.map((entry) => [text(entry), entry.headers.toString()])).toEqual([['a', 'one'], ['b', ''], ['', 'three']])
    expect(second.stats()).toMatchObject({ depth: 3, bytes: 10, unsettled: 3, damagedRecords: 0, tornBytes: 0 })
  })

  it('is read only after the append has completed', async () => {
    const engine = await open()
    const order: string[] = []
    const read = firstValueFrom(engine.next(10)).then(() => order.push('read'))
    engine.append(Buffer.from('x')).subscribe({ complete: () => order.push('completed') })
    await read
    expect(order).toEqual(['completed', 'read'])
  })

  it('completes only after its sync', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs })
    let finishSync = (): void => undefined
    let syncing = false
    faults.sync = () =>
      new Promise((resolve) => {
        syncing = true
        finishSync = resolve
      })
    let completed = false
    const appended = put(engine, 'x').then(() => (completed = true))
    await expect.poll(() => syncing).toBe(true)
    await new Promise((resolve) => setImmediate(resolve))
    expect(completed).toBe(false)
    expect(engine.stats().depth).toBe(0)
    finishSync()
    await appended
    expect(completed).toBe(true)
  })

  it('shares a sync with everything that arrived with it', async () => {
    const { fs, syncs } = faultyDisk()
    const engine = await open({ fs })
    syncs.length = 0
    await putAll(engine, texts(0, 500))
    expect(syncs.length).toBe(1)
  })

  it('survives short writes', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs })
    faults.write = (_path, bytes) => Math.min(bytes.length, 7)
    await putAll(engine, texts(0, 20))
    await done(engine.close())
    expect((await readAll(await open())).map(text)).toEqual(texts(0, 20))
  })

  it('may be longer than a read-ahead and a segment', async () => {
    const engine = await open({ segmentBytes: 64 * 1024 })
    const bodies = [1, 300_000, 5, 2_000_000, 70_000].map((size) => 'x'.repeat(size))
    for (const body of bodies) await put(engine, body)
    await done(engine.close())
    expect((await readAll(await open())).map(({ body }) => body.length)).toEqual(bodies.map(({ length }) => length))
  })

  it('is kept from other users', async () => {
    await put(await open(), 'x')
    expect(statSync(folder).mode & 0o777).toBe(0o700)
    for (const name of readdirSync(folder)) expect(statSync(join(folder, name)).mode & 0o777, name).toBe(0o600)
  })
})

describe('reading', () => {
  it('waits for the first entry, and takes what is there', async () => {
    const engine = await open()
    const read = firstValueFrom(engine.next(10))
    await put(engine, 'x')
    expect((await read).map(text)).toEqual(['x'])
  })

  it('has one reader at a time', async () => {
    const engine = await open()
    const waiting = engine.next(1).subscribe()
    expect(await failure(engine.next(1))).toMatchObject({ code: 'BACKHAUL_QUEUE_BUSY' })
    waiting.unsubscribe()
    await put(engine, 'x')
    expect((await firstValueFrom(engine.next(1))).map(text)).toEqual(['x'])
  })

  it('may ask for more from within an emission, for as long as there is some', async () => {
    const engine = await open()
    await putAll(engine, texts(0, 20_000))
    const seen: string[] = []
    await new Promise<void>((resolve) => {
      const pull = (): void =>
        void engine.next(1).subscribe((entries) => {
          seen.push(...entries.map(text))
          if (seen.length === 20_000) resolve()
          else pull()
        })
      pull()
    })
    expect(seen).toEqual(texts(0, 20_000))
  })

  it('gives everything unsettled again after a rewind, and nothing that was settled', async () => {
    const engine = await open()
    await putAll(engine, texts(0, 10))
    const out = await readAll(engine)
    for (const i of [0, 1, 4, 7, 9]) engine.settle(out[i]!.seq)
    engine.rewind()
    expect(engine.stats()).toMatchObject({ depth: 5, unsettled: 0 })
    expect((await readAll(engine)).map(text)).toEqual(['m2', 'm3', 'm5', 'm6', 'm8'])
  })

  it('holds back when too much lies between the oldest unsettled and the newest outside', async () => {
    const engine = await open()
    await putAll(engine, texts(0, 66_000))
    const out: Entry[] = []
    while (out.length < 65_536) out.push(...(await firstValueFrom(engine.next(10_000))))
    expect(out.length).toBe(65_536)
    const more = firstValueFrom(engine.next(10_000))
    out.slice(1).forEach(({ seq }) => engine.settle(seq))
    let came = false
    void more.then(() => (came = true), () => undefined)
    await new Promise((resolve) => setImmediate(resolve))
    expect(came).toBe(false)
    engine.settle(out[0]!.seq)
    expect((await more).map(text)[0]).toBe('m65536')
  })

  it('counts what is settled and not yet synced against the window', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs, settleMs: 60_000 })
    await putAll(engine, texts(0, 100))
    const out = await firstValueFrom(engine.next(10))
    expect(out.length).toBe(10)
    let finishSync = (): void => undefined
    let syncing = false
    faults.sync = () =>
      new Promise((resolve) => {
        syncing = true
        finishSync = resolve
      })
    settleAll(engine, out.slice(0, 4))
    let came: readonly Entry[] | undefined
    const more = firstValueFrom(engine.next(4)).then((entries) => (came = entries))
    // A quarter of the window waits for its mark: that does not wait for the timer.
    await expect.poll(() => syncing).toBe(true)
    expect(came).toBeUndefined()
    delete faults.sync
    finishSync()
    expect((await more).map(text)).toEqual(texts(10, 14))
  })

  it('hands out copies: what is outside holds on to nothing else', async () => {
    const engine = await open()
    await putAll(engine, texts(0, 1000, 1000))
    const [entry] = await firstValueFrom(engine.next(1))
    expect(entry!.body.buffer.byteLength).toBeLessThanOrEqual(8192)
  })

  it('is not led astray by memory that has been used again', async () => {
    const engine = await open({ segmentBytes: 64 * 1024 })
    await put(engine, 'first')
    await readAll(engine)
    await putAll(engine, texts(0, 100))
    expect((await firstValueFrom(engine.next(1))).map(text)).toEqual(['m0'])
    // In a segment of its own, and more than is kept in memory: the first batch's memory takes the next small ones.
    await put(engine, 'x'.repeat(5_000_000))
    await putAll(engine, texts(200, 300))
    await putAll(engine, texts(300, 400))
    const got = (await readAll(engine)).map(text)
    expect(got.filter((body) => body.startsWith('m'))).toEqual([...texts(1, 100), ...texts(200, 400)])
    expect(engine.stats()).toMatchObject({ damagedRecords: 0, lostMessages: 0 })
  })

  it('steps around a page that the disk cannot read', async () => {
    const first = await open()
    await putAll(first, texts(0, 100, 1000))
    await done(first.close())
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs })
    faults.read = (position, length) => {
      if (position < 45_056 && position + length > 40_960) throw fault('EIO')
    }
    const got = (await readAll(engine)).map((entry) => text(entry))
    expect(got.length).toBeGreaterThan(93)
    expect(texts(0, 100, 1000)).toEqual(expect.arrayContaining(got))
    expect(engine.stats().damagedRecords).toBeGreaterThan(0)
  })
})

describe('settlements', () => {
  it('in any order hold after a reopen', async () => {
    const first = await open()
    await putAll(first, texts(0, 10))
    const out = await readAll(first)
    for (const i of [8, 0, 3, 5, 4]) first.settle(out[i]!.seq)
    await done(first.close())
    const second = await open()
    expect(second.stats()).toMatchObject({ depth: 5, unsettled: 0 })
    expect((await readAll(second)).map(text)).toEqual(['m1', 'm2', 'm6', 'm7', 'm9'])
    await done(second.close())
    const third = await open()
    expect((await readAll(third)).map(text)).toEqual(['m1', 'm2', 'm6', 'm7', 'm9'])
  })

  it('are synced by themselves when nothing is appended', async () => {
    const { fs, syncs } = faultyDisk()
    const engine = await open({ fs, settleMs: 5 })
    await putAll(engine, texts(0, 10))
    const out = await readAll(engine)
    syncs.length = 0
    settleAll(engine, out)
    await expect.poll(() => syncs.length).toBe(1)
    const copy = join(root, 'copy')
    cpSync(folder, copy, { recursive: true })
    expect((await open({}, copy)).stats().depth).toBe(0)
  })

  it('of what is not outside are ignored', async () => {
    const engine = await open()
    const seq = await put(engine, 'x')
    engine.settle(seq)
    engine.settle(seq + 5)
    expect(engine.stats().depth).toBe(1)
    const [entry] = await readAll(engine)
    engine.settle(entry!.seq)
    engine.settle(entry!.seq)
    expect(engine.stats()).toMatchObject({ depth: 0, bytes: 0, unsettled: 0 })
  })

  it('delete segments from the oldest on, until one is left', async () => {
    const engine = await open({ segmentBytes: 16 * 1024, settleMs: 1 })
    for (let i = 0; i < 20; i += 1) await putAll(engine, texts(i * 10, i * 10 + 10, 1000))
    expect(segmentsIn().length).toBeGreaterThan(10)
    const out = await readAll(engine)
    settleAll(engine, out.slice(100))
    await expect.poll(() => engine.stats().depth).toBe(100)
    settleAll(engine, out.slice(1, 100))
    await put(engine, 'one more')
    expect(segmentsIn().length).toBeGreaterThan(10)
    engine.settle(out[0]!.seq)
    await expect.poll(() => segmentsIn().length).toBe(1)
    expect((await readAll(engine)).map(text)).toEqual(['one more'])
  })
})

it('peek shows what is pending and gives nothing out', async () => {
  const engine = await open()
  const seqs = await putAll(engine, texts(0, 10))
  const out = await firstValueFrom(engine.next(3))
  engine.settle(out[1]!.seq)
  expect((await firstValueFrom(engine.peek(0, 4))).map(text)).toEqual(['m0', 'm2', 'm3', 'm4'])
  expect((await firstValueFrom(engine.peek(seqs[8]!, 100))).map(text)).toEqual(['m8', 'm9'])
  expect(engine.stats().unsettled).toBe(2)
})

it('purge removes what is pending, and leaves what is outside', async () => {
  const engine = await open()
  await putAll(engine, texts(0, 10))
  const out = await firstValueFrom(engine.next(3))
  engine.settle(out[1]!.seq)
  expect(await firstValueFrom(engine.purge())).toBe(7)
  expect(engine.stats()).toMatchObject({ depth: 2, unsettled: 2, bytes: 4 })
  await put(engine, 'later')
  engine.rewind()
  expect((await readAll(engine)).map(text)).toEqual(['m0', 'm2', 'later'])
  await done(engine.close())
  expect((await readAll(await open())).map(text)).toEqual(['m0', 'm2', 'later'])
})

describe('sequence numbers', () => {
  it('are never used again, not even after an empty restart', async () => {
    const seen = new Set<number>()
    for (let round = 0; round < 5; round += 1) {
      const engine = await open()
      for (const seq of await putAll(engine, texts(0, round))) {
        expect(seen.has(seq)).toBe(false)
        seen.add(seq)
      }
      settleAll(engine, await readAll(engine))
      await done(engine.close())
    }
    expect(seen.size).toBe(10)
    expect(segmentsIn().length).toBe(1)
  })

  it('are not used again after the newest segment was destroyed, and it is kept aside', async () => {
    const first = await open()
    const seqs = await putAll(first, texts(0, 5))
    await done(first.close())
    const [name] = segmentsIn() as [string]
    writeFileSync(join(folder, name), Buffer.alloc(10, 0x5a))
    const second = await open()
    expect(await put(second, 'new')).toBeGreaterThan(Math.max(...seqs))
    expect(readdirSync(folder)).toContain(`${name}.damaged`)
    expect((await readAll(second)).map(text)).toEqual(['new'])
    expect(second.stats().damagedRecords).toBeGreaterThan(0)
  })
})

it('a new segment is synced before it gets its name, and its folder after', async () => {
  const happened: string[] = []
  const fs: LogFileSystem = {
    ...nodeFileSystem,
    open: async (path, how) => {
      const file = await nodeFileSystem.open(path, how)
      const sync = async (): Promise<void> => {
        await file.sync()
        happened.push(`sync ${basename(path)}`)
      }
      return { ...file, sync }
    },
    rename: async (from, to) => {
      happened.push(`rename ${basename(from)}`)
      await nodeFileSystem.rename(from, to)
    },
    syncFolder: async (path) => {
      happened.push('sync folder')
      await nodeFileSystem.syncFolder(path)
    },
  }
  await open({ fs, reserveBytes: 0 })
  const segment = `${segmentsIn()[0]!}.new`
  expect(happened.slice(-3)).toEqual([`sync ${segment}`, `rename ${segment}`, 'sync folder'])
})

describe('one folder', () => {
  it('is refused to a second opener', async () => {
    const engine = await open({ httpAddress: 'http://127.0.0.1:8787' })
    expect(await failure(openSegmentLog(folder, { maxBytes: 2 ** 30 }))).toMatchObject({
      code: 'BACKHAUL_FOLDER_IN_USE',
      holder: { httpAddress: 'http://127.0.0.1:8787' },
    })
    await done(engine.close())
    await open()
  })

  it('of a later version is refused untouched', async () => {
    await done((await open()).close())
    const [name] = segmentsIn() as [string]
    const { crc32 } = await import('node:zlib')
    const bytes = readFileSync(join(folder, name))
    bytes.writeUInt16BE(2, 4)
    bytes.writeUInt32BE(crc32(bytes.subarray(0, 28)), 28)
    writeFileSync(join(folder, name), bytes)
    expect(await failure(openSegmentLog(folder, { maxBytes: 2 ** 30 }))).toMatchObject({ code: 'BACKHAUL_QUEUE_FORMAT' })
    expect(readFileSync(join(folder, name)).equals(bytes)).toBe(true)
  })
})

describe('a closed log', () => {
  it('keeps what was appended before, takes nothing after, and completes a waiting reader', async () => {
    const engine = await open()
    const waiting = lastValueFrom(engine.next(1), { defaultValue: 'completed' })
    const [kept] = await Promise.all([failure(engine.append(Buffer.from('x'))), done(engine.close())])
    expect(kept).toBeUndefined()
    expect(await waiting).toBe('completed')
    expect(await failure(engine.append(Buffer.from('y')))).toMatchObject({ code: 'BACKHAUL_QUEUE_CLOSED' })
    expect((await readAll(await open())).map(text)).toEqual(['x'])
  })
})

describe('a full queue', () => {
  it('says so before the disk does, and heals as it drains', async () => {
    const engine = await open({ maxBytes: 64 * 1024, settleMs: 1 })
    let refused: unknown
    let kept = 0
    for (; refused === undefined && kept < 100; kept += 1) refused = await failure(engine.append(Buffer.alloc(1000, 'x')))
    expect(refused).toMatchObject({ code: 'BACKHAUL_QUEUE_FULL', limitBytes: 64 * 1024 })
    expect(engine.stats().usedBytes).toBeLessThanOrEqual(64 * 1024)
    expect(engine.stats().depth).toBe(kept - 1)
    for (let round = 0; round < 10; round += 1) {
      settleAll(engine, await readAll(engine))
      await expect.poll(async () => failure(engine.append(Buffer.alloc(1000, 'y')))).toBeUndefined()
    }
  })

  it('on a full disk refuses the batch and all behind it, keeps draining, and heals by itself', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs, settleMs: 1 })
    await putAll(engine, texts(0, 5))
    let room = 60
    faults.write = (_path, bytes) => {
      if (room <= 0) throw fault('ENOSPC')
      const some = Math.min(room, bytes.length)
      room -= some
      return some
    }
    const before = segmentsIn().map((name) => statSync(join(folder, name)).size)
    const refused = await Promise.all(texts(5, 10).map((body) => failure(engine.append(Buffer.from(body)))))
    expect(refused.every((error) => (error as { code?: string }).code === 'BACKHAUL_QUEUE_FULL')).toBe(true)
    expect(segmentsIn().map((name) => statSync(join(folder, name)).size)).toEqual(before)
    settleAll(engine, (await readAll(engine)).slice(0, 3))
    expect(await failure(engine.append(Buffer.from('still')))).toMatchObject({ code: 'BACKHAUL_QUEUE_FULL' })
    expect(readdirSync(folder)).not.toContain('reserve')
    delete faults.write
    await put(engine, 'healed')
    expect(readdirSync(folder)).toContain('reserve')
    await done(engine.close())
    expect((await readAll(await open())).map(text)).toEqual(['m3', 'm4', 'healed'])
  })

  it('on a full disk that has room again records what was settled, with nobody appending', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs, settleMs: 1 })
    await putAll(engine, texts(0, 50))
    faults.write = () => {
      throw fault('ENOSPC')
    }
    const out: Entry[] = []
    // The window does not hold back what cannot be recorded: better twice than never.
    while (out.length < 50) {
      const got = await firstValueFrom(engine.next(10))
      out.push(...got)
      settleAll(engine, got)
      await expect.poll(() => engine.stats().writeErrors).toBeGreaterThan(0)
    }
    expect(engine.stats().depth).toBe(0)
    delete faults.write
    const copy = join(root, 'copy')
    await expect
      .poll(async () => {
        rmSync(copy, { recursive: true, force: true })
        cpSync(folder, copy, { recursive: true })
        const left = await open({}, copy)
        const { depth } = left.stats()
        await done(left.close())
        return depth
      }, { timeout: 10_000 })
      .toBe(0)
  })

  it('still opens on a full disk, to drain', async () => {
    const first = await open()
    await putAll(first, texts(0, 5))
    await done(first.close())
    const { fs, faults } = faultyDisk()
    faults.write = () => {
      throw fault('ENOSPC')
    }
    const engine = await open({ fs })
    const out = await readAll(engine)
    expect(out.map(text)).toEqual(texts(0, 5))
    delete faults.write
    settleAll(engine, out)
    await put(engine, 'x')
    expect(engine.stats().depth).toBe(1)
  })
})

describe('a failed sync', () => {
  for (const truncates of [true, false]) {
    it(`refuses its batch for good, in this process and the next, when truncating ${truncates ? 'works' : 'fails too'}`, async () => {
      const { fs, faults, syncs } = faultyDisk()
      const engine = await open({ fs })
      await putAll(engine, texts(0, 3))
      const failed = segmentsIn().at(-1)!
      faults.sync = (path) => (path.endsWith(failed) ? Promise.reject(fault('EIO')) : Promise.resolve())
      if (!truncates) {
        faults.truncate = () => {
          throw fault('EIO')
        }
      }
      expect(await failure(engine.append(Buffer.from('refused')))).toMatchObject({ code: 'BACKHAUL_QUEUE_IO' })
      syncs.length = 0
      await expect.poll(() => segmentsIn().length).toBe(2)
      await putAll(engine, texts(3, 6))
      expect(syncs).not.toContain(failed)
      expect(engine.stats()).toMatchObject({ syncErrors: 1, depth: 6 })
      expect((await readAll(engine)).map(text)).toEqual(texts(0, 6))
      await done(engine.close())
      const again = await open()
      expect((await readAll(again)).map(text)).toEqual(texts(0, 6))
      expect(again.stats()).toMatchObject({ depth: 6, damagedRecords: 0 })
    })
  }

  it('refuses what waits behind it too, so that nothing overtakes', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs })
    let failSync = (): void => undefined
    let syncing = false
    faults.sync = () =>
      new Promise((_resolve, reject) => {
        syncing = true
        failSync = () => reject(fault('EIO'))
      })
    const first = failure(engine.append(Buffer.from('first')))
    await expect.poll(() => syncing).toBe(true)
    const behind = failure(engine.append(Buffer.from('behind')))
    delete faults.sync
    failSync()
    expect(await first).toMatchObject({ code: 'BACKHAUL_QUEUE_IO' })
    expect(await behind).toMatchObject({ code: 'BACKHAUL_QUEUE_IO' })
    await put(engine, 'again')
    expect((await readAll(engine)).map(text)).toEqual(['again'])
  })

  it('leaves the refused batch out after a crash right behind it', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs })
    await putAll(engine, texts(0, 3))
    const failed = segmentsIn().at(-1)!
    faults.sync = (path) => (path.endsWith(failed) ? Promise.reject(fault('EIO')) : Promise.resolve())
    faults.truncate = () => {
      throw fault('EIO')
    }
    await failure(engine.append(Buffer.from('refused')))
    await expect.poll(() => segmentsIn().length).toBe(2)
    const copy = join(root, 'copy')
    cpSync(folder, copy, { recursive: true })
    expect(readFileSync(join(copy, failed)).includes('refused')).toBe(true)
    expect((await readAll(await open({}, copy))).map(text)).toEqual(texts(0, 3))
  })

  it('with no new segment to be had refuses until there is one', async () => {
    const { fs, faults } = faultyDisk()
    const engine = await open({ fs })
    await put(engine, 'a')
    faults.sync = () => Promise.reject(fault('EIO'))
    expect(await failure(engine.append(Buffer.from('b')))).toMatchObject({ code: 'BACKHAUL_QUEUE_IO' })
    expect(await failure(engine.append(Buffer.from('c')))).toMatchObject({ code: 'BACKHAUL_QUEUE_IO' })
    delete faults.sync
    await put(engine, 'd')
    expect((await readAll(engine)).map(text)).toEqual(['a', 'd'])
  })
})

/** A closed log of a few messages in one small segment, some of them settled out of order. */
const smallLog = async (): Promise<{ whole: Map<string, Buffer>; name: string; pending: string[] }> => {
  const engine = await open({ reserveBytes: 0 })
  await putAll(engine, texts(0, 3, 9))
  const out = await readAll(engine)
  engine.settle(out[1]!.seq)
  await putAll(engine, texts(3, 6, 9))
  await done(engine.close())
  const whole = new Map(readdirSync(folder).map((file) => [file, readFileSync(join(folder, file))]))
  return { whole, name: segmentsIn().at(-1)!, pending: texts(0, 6, 9).filter((_, i) => i !== 1) }
}
/** The same log on a disk in memory, where a thousand of them open in no time. */
const openInMemory = (disk: MemoryDisk): Promise<QueueEngine> =>
  firstValueFrom(openSegmentLog('/queue', { maxBytes: 2 ** 30, reserveBytes: 0, fs: disk.fs, lock: () => of({ release: () => EMPTY }) }))
const inMemory = (whole: Map<string, Buffer>, name: string, bytes: Buffer): MemoryDisk =>
  memoryDisk(new Map([...whole, [name, bytes] as const].map(([file, content]) => [`/queue/${file}`, content])))
const restore = (whole: Map<string, Buffer>): void => {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  for (const [file, bytes] of whole) writeFileSync(join(folder, file), bytes)
}

describe('after damage', () => {
  it('a tail torn at any byte costs what it tore, and nothing else', async () => {
    const { whole, name } = await smallLog()
    const bytes = whole.get(name)!
    const ends = texts(0, 6, 9).map((body) => bytes.indexOf(body) + 9)
    for (let length = 0; length < bytes.length; length += 1) {
      const disk = inMemory(whole, name, bytes.subarray(0, length))
      const engine = await openInMemory(disk)
      const got = (await readAll(engine)).map(text)
      const kept = texts(0, 6, 9).filter((_, i) => ends[i]! <= length)
      // The settlement of the second may be torn off; then that one comes again.
      expect(got.filter((body) => body !== 'm1.......')).toEqual(kept.filter((body) => body !== 'm1.......'))
      const seq = await put(engine, 'after')
      expect(seq).toBeGreaterThan(kept.length)
      expect((await readAll(engine)).map(text)).toEqual(['after'])
      await done(engine.close())
      const again = await openInMemory(disk.afterKill())
      expect((await readAll(again)).map(text)).toEqual([...got, 'after'])
      expect(again.stats()).toMatchObject({ damagedRecords: 0, tornBytes: 0 })
      await done(again.close())
    }
  })

  it('any one flipped bit costs at most one message, is counted, and changes no content', async () => {
    const { whole, name, pending } = await smallLog()
    const bytes = whole.get(name)!
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3]! ^= 1 << (bit & 7)
      const engine = await openInMemory(inMemory(whole, name, flipped))
      const got = (await readAll(engine)).map(text)
      const wanted = got.filter((body) => body !== 'm1.......')
      expect(pending).toEqual(expect.arrayContaining(wanted))
      expect(wanted).toEqual([...wanted].sort())
      expect(wanted.length).toBeGreaterThanOrEqual(pending.length - 1)
      const { damagedRecords, tornBytes, lostMessages, depth } = engine.stats()
      expect({ damagedRecords, tornBytes }, `bit ${bit}`).toEqual({ damagedRecords: 1, tornBytes: 0 })
      expect(depth).toBe(got.length)
      expect(lostMessages).toBeLessThanOrEqual(1)
      await done(engine.close())
    }
  })

  it('in an older segment it is met and counted when it is read, and the segment is kept aside', async () => {
    const first = await open({ segmentBytes: 16 * 1024 })
    for (let i = 0; i < 10; i += 1) await putAll(first, texts(i * 10, i * 10 + 10, 1000))
    await done(first.close())
    const [oldest] = segmentsIn() as [string]
    const bytes = readFileSync(join(folder, oldest))
    bytes[bytes.indexOf('m5.')]! ^= 1
    writeFileSync(join(folder, oldest), bytes)
    const engine = await open({ settleMs: 1 })
    expect(engine.stats()).toMatchObject({ depth: 100, damagedRecords: 0 })
    const out = await readAll(engine)
    expect(out.map(text)).toEqual(texts(0, 100, 1000).filter((_, i) => i !== 5))
    expect(engine.stats()).toMatchObject({ depth: 99, damagedRecords: 1, lostMessages: 1 })
    engine.rewind()
    settleAll(engine, await readAll(engine))
    expect(engine.stats()).toMatchObject({ depth: 0, bytes: 0, damagedRecords: 1 })
    await expect.poll(() => readdirSync(folder)).toContain(`${oldest}.damaged`)
  })

  it('messages that vanish between two segments, or before the first, are counted', async () => {
    const first = await open({ segmentBytes: 16 * 1024 })
    for (let i = 0; i < 5; i += 1) await putAll(first, texts(i * 10, i * 10 + 10, 1000))
    await done(first.close())
    const names = segmentsIn()
    const whole = new Map(readdirSync(folder).map((file) => [file, readFileSync(join(folder, file))]))
    const oldest = whole.get(names[0]!)!
    const losses: [() => void, number][] = [
      // Cut where one record ends and the next one starts: nothing left is broken.
      [() => truncateSync(join(folder, names[0]!), oldest.indexOf('m3.') - 24), 7],
      [() => rmSync(join(folder, names[1]!)), 10],
      [() => rmSync(join(folder, names[0]!)), 10],
    ]
    for (const [lose, lost] of losses) {
      restore(whole)
      lose()
      const engine = await open()
      const got = await readAll(engine)
      expect(got.length).toBe(50 - lost)
      expect(engine.stats()).toMatchObject({ depth: 50 - lost, damagedRecords: 1, lostMessages: lost })
      engine.rewind()
      await readAll(engine)
      expect(engine.stats()).toMatchObject({ damagedRecords: 1, lostMessages: lost })
      await done(engine.close())
    }
  })

  it('a broken last record is damage and stays, and a torn one is cut off', async () => {
    const { whole, name } = await smallLog()
    const bytes = whole.get(name)!
    const broken = Buffer.from(bytes)
    broken[bytes.length - 1]! ^= 1
    restore(new Map([...whole, [name, broken]]))
    const damaged = await open({ reserveBytes: 0 })
    expect(damaged.stats()).toMatchObject({ damagedRecords: 1, tornBytes: 0 })
    expect(readFileSync(join(folder, name)).equals(broken)).toBe(true)
    await done(damaged.close())
    restore(new Map([...whole, [name, bytes.subarray(0, -1)]]))
    const torn = await open({ reserveBytes: 0 })
    expect(torn.stats().damagedRecords).toBe(0)
    expect(torn.stats().tornBytes).toBeGreaterThan(24)
    expect(statSync(join(folder, name)).size).toBe(bytes.length - 1 - torn.stats().tornBytes)
  })

  it('the salt comes from any of its copies', async () => {
    const { whole, pending } = await smallLog()
    const salt = Buffer.from(whole.get('salt')!)
    salt[12]! ^= 4
    for (const left of [salt, Buffer.alloc(0), undefined]) {
      restore(whole)
      if (left === undefined) rmSync(join(folder, 'salt'))
      else writeFileSync(join(folder, 'salt'), left)
      const engine = await open({ reserveBytes: 0 })
      expect((await readAll(engine)).map(text)).toEqual(pending)
      expect(readFileSync(join(folder, 'salt')).equals(whole.get('salt')!)).toBe(true)
      await done(engine.close())
    }
  })

  it('a record inside a payload is not taken for one, even a genuine old one', async () => {
    const first = await open()
    await putAll(first, ['one', 'two'])
    await done(first.close())
    const own = readFileSync(join(folder, segmentsIn()[0]!))
    const second = await open()
    const seq = await firstValueFrom(second.append(own))
    await put(second, 'neighbour')
    await done(second.close())
    const name = `${String(seq).padStart(16, '0')}.log`
    const bytes = readFileSync(join(folder, name))
    bytes[bytes.indexOf(own) - 1]! ^= 1
    writeFileSync(join(folder, name), bytes)
    const third = await open()
    expect((await readAll(third)).map(text)).toEqual(['one', 'two', 'neighbour'])
    expect(third.stats()).toMatchObject({ damagedRecords: 1, lostMessages: 1 })
  })

  it('a record repeated over its neighbour is damage, not a message', async () => {
    const { whole, name } = await smallLog()
    const bytes = Buffer.from(whole.get(name)!)
    const [one, other] = [bytes.indexOf('m3'), bytes.indexOf('m4')] as [number, number]
    bytes.copy(bytes, other - 24, one - 24, one + 9)
    restore(new Map([...whole, [name, bytes]]))
    const engine = await open({ reserveBytes: 0 })
    expect((await readAll(engine)).map((entry) => text(entry).slice(0, 2))).toEqual(['m0', 'm2', 'm3', 'm5'])
    expect(engine.stats()).toMatchObject({ depth: 4, damagedRecords: 1, lostMessages: 1 })
  })

  it('a deleted segment that comes back brings no message back', async () => {
    const first = await open({ segmentBytes: 16 * 1024, settleMs: 1 })
    for (let i = 0; i < 5; i += 1) await putAll(first, texts(i * 10, i * 10 + 10, 1000))
    const old = new Map(segmentsIn().slice(0, -1).map((name) => [name, readFileSync(join(folder, name))]))
    settleAll(first, await readAll(first))
    await expect.poll(() => segmentsIn().length).toBe(1)
    await put(first, 'left')
    await done(first.close())
    for (const [name, bytes] of old) writeFileSync(join(folder, name), bytes)
    const second = await open()
    expect((await readAll(second)).map(text)).toEqual(['left'])
    expect(segmentsIn().filter((name) => old.has(name))).toEqual([])
  })

  it('many restarts without a message leave one segment', async () => {
    for (let i = 0; i < 5; i += 1) await done((await open()).close())
    expect(segmentsIn().length).toBe(1)
  })
})

it('runs in virtual time, on any disk', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'Date'] })
  /** Moves the time on until it is done. */
  const passing = async <T>(work: Promise<T>): Promise<T> => {
    let over = false
    void work.finally(() => (over = true)).catch(() => undefined)
    while (!over) await vi.advanceTimersByTimeAsync(1)
    return work
  }
  try {
    const disk = memoryDisk()
    const engine = await passing(openInMemory(disk))
    await passing(put(engine, 'x'))
    const [entry] = await firstValueFrom(engine.next(10))
    await vi.advanceTimersByTimeAsync(1000)
    const before = disk.calls()
    engine.settle(entry!.seq)
    await vi.advanceTimersByTimeAsync(24)
    expect(disk.calls()).toBe(before)
    await vi.advanceTimersByTimeAsync(2)
    expect(disk.calls()).toBeGreaterThan(before)
    await passing(done(engine.close()))
  } finally {
    vi.useRealTimers()
  }
})

type Step =
  | { kind: 'append'; sizes: number[] }
  | { kind: 'next'; max: number }
  | { kind: 'settle'; picks: number[] }
  | { kind: 'rewind' | 'reopen' | 'purge' | 'failSync' | 'fill' }

const appending = (count: number): Step[] => [{ kind: 'append', sizes: Array.from({ length: count }, () => 0) }]

it('behaves as an ordered list that forgets only what was settled', async () => {
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('append' as const), sizes: fc.array(fc.nat({ max: 3000 }), { minLength: 1, maxLength: 8 }) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('next' as const), max: fc.integer({ min: 1, max: 10 }) }) },
    { weight: 5, arbitrary: fc.record({ kind: fc.constant('settle' as const), picks: fc.array(fc.nat({ max: 30 }), { maxLength: 8 }) }) },
    { weight: 2, arbitrary: fc.constantFrom<Step>({ kind: 'rewind' }, { kind: 'reopen' }, { kind: 'failSync' }, { kind: 'fill' }) },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: 'purge' }) },
  )
  let run = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const where = join(root, `model-${run++}`)
      const { fs, faults } = faultyDisk()
      const options = { fs, segmentBytes: 16 * 1024, settleMs: 1 }
      let engine = await open(options, where)
      let model: { seq: number; body: string; out: boolean }[] = []
      let top = 0
      let n = 0
      try {
        for (const now of steps) {
          if (now.kind === 'append') {
            const bodies = now.sizes.map((size) => `${n++}`.padEnd(size, '.'))
            const seqs = await putAll(engine, bodies)
            seqs.forEach((seq, i) => {
              expect(seq).toBeGreaterThan(top)
              top = seq
              model.push({ seq, body: bodies[i]!, out: false })
            })
          } else if (now.kind === 'next') {
            const waiting = model.filter(({ out }) => !out)
            if (waiting.length === 0) continue
            const got = await firstValueFrom(engine.next(now.max))
            expect(got.length).toBeLessThanOrEqual(now.max)
            expect(got.map((entry) => [entry.seq, text(entry)])).toEqual(waiting.slice(0, got.length).map(({ seq, body }) => [seq, body]))
            waiting.slice(0, got.length).forEach((entry) => (entry.out = true))
          } else if (now.kind === 'settle') {
            for (const pick of now.picks) {
              const outside = model.filter(({ out }) => out)
              const chosen = outside[pick % Math.max(1, outside.length)]
              if (chosen === undefined) continue
              engine.settle(chosen.seq)
              model = model.filter((entry) => entry !== chosen)
            }
          } else if (now.kind === 'purge') {
            expect(await firstValueFrom(engine.purge())).toBe(model.filter(({ out }) => !out).length)
            model = model.filter(({ out }) => out)
          } else if (now.kind === 'failSync' || now.kind === 'fill') {
            if (now.kind === 'failSync') faults.sync = () => Promise.reject(fault('EIO'))
            else {
              faults.write = () => {
                throw fault('ENOSPC')
              }
            }
            expect(await failure(engine.append(Buffer.from('refused')))).toBeDefined()
            delete faults.sync
            delete faults.write
          } else {
            if (now.kind === 'rewind') engine.rewind()
            else {
              await done(engine.close())
              engine = await open(options, where)
            }
            model.forEach((entry) => (entry.out = false))
          }
          expect(engine.stats()).toMatchObject({
            depth: model.length,
            bytes: model.reduce((sum, { body }) => sum + body.length, 0),
            unsettled: model.filter(({ out }) => out).length,
            damagedRecords: 0,
          })
        }
        engine.rewind()
        expect((await readAll(engine)).map(text)).toEqual(model.map(({ body }) => body))
        expect(engine.stats()).toMatchObject({ depth: model.length, damagedRecords: 0, lostMessages: 0 })
      } finally {
        await closeAll()
        rmSync(where, { recursive: true, force: true })
      }
    }),
    {
      numRuns: Number(process.env['BACKHAUL_TEST_MODEL_RUNS'] ?? 150),
      // Found by chance: the refused number between two segments, once it had been purged over, counted as lost.
      examples: [[[...appending(1), { kind: 'failSync' }, ...appending(1), { kind: 'next', max: 2 }, { kind: 'purge' }, ...appending(1)]]],
    },
  )
}, 3_600_000)
