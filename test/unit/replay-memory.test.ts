import { firstValueFrom, lastValueFrom, throwError } from 'rxjs'
import { appendFileSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { embeddedStore } from '../../src/connections/embedded-store.js'
import { replayMemory } from '../../src/connections/replay-memory.js'
import { temporaryFolder } from '../wire/daemon-process.js'

const open = (folder: string, size?: number) => {
  const { engine, closed } = embeddedStore(folder, { maxBytes: 256 * 1024 })
  const failures: unknown[] = []
  const memory = replayMemory(engine, { onFailure: (error) => failures.push(error), ...(size === undefined ? {} : { size }) })
  return {
    failures,
    has: (letter: string) => firstValueFrom(memory.has(letter)),
    add: (letter: string) => lastValueFrom(memory.add(letter), { defaultValue: undefined }),
    close: async () => {
      memory.close()
      await lastValueFrom(closed, { defaultValue: undefined })
    },
  }
}
const letter = (n: number): string => `letter-${String(n).padStart(15, '0')}`

describe('what was replayed', () => {
  it('is known after a restart, and nothing else is', async () => {
    const folder = temporaryFolder('memory')
    const first = open(folder)
    expect(await first.has(letter(1))).toBe(false)
    await Promise.all([1, 2, 3].map((n) => first.add(letter(n))))
    expect(await first.has(letter(2))).toBe(true)
    await first.close()
    const second = open(folder)
    expect(await Promise.all([0, 1, 2, 3, 4].map((n) => second.has(letter(n))))).toEqual([false, true, true, true, false])
    await second.close()
    expect([first.failures, second.failures]).toEqual([[], []])
  })
  it('is forgotten from the oldest on, and its folder stays small', async () => {
    const folder = temporaryFolder('memory')
    const bytes = () => readdirSync(folder).filter((name) => name.endsWith('.log')).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)
    for (let round = 0; round < 5; round += 1) {
      const memory = open(folder, 100)
      for (let n = 0; n < 1000; n += 50) await Promise.all(Array.from({ length: 50 }, (_, k) => memory.add(letter(round * 1000 + n + k))))
      expect(await memory.has(letter(round * 1000 + 900))).toBe(true)
      expect(await memory.has(letter(round * 1000 + 899))).toBe(false)
      await memory.close()
      expect(memory.failures).toEqual([])
    }
    expect(bytes()).toBeLessThan(256 * 1024)
    const last = open(folder, 100)
    expect([await last.has(letter(4900)), await last.has(letter(4999)), await last.has(letter(4899))]).toEqual([true, true, false])
    await last.close()
  })
  it('is known as far as a damaged disk tells, and the rest still works', async () => {
    const folder = temporaryFolder('memory')
    const first = open(folder)
    for (let n = 0; n < 20; n += 1) await first.add(letter(n))
    await first.close()
    const file = join(folder, readdirSync(folder).find((name) => name.endsWith('.log')) as string)
    const bytes = readFileSync(file)
    bytes.write('X', bytes.indexOf(letter(10)))
    writeFileSync(file, bytes)
    appendFileSync(file, 'half a record')
    const second = open(folder)
    expect(await Promise.all([9, 10, 11, 19].map((n) => second.has(letter(n))))).toEqual([true, false, true, true])
    await second.add(letter(30))
    expect(await second.has(letter(30))).toBe(true)
    await second.close()
  })
  it('is known in memory when the disk cannot have it', async () => {
    const failures: unknown[] = []
    const memory = replayMemory(throwError(() => new Error('no disk')), { onFailure: (error) => failures.push(error) })
    expect(await firstValueFrom(memory.has('a'))).toBe(false)
    await lastValueFrom(memory.add('a'), { defaultValue: undefined })
    expect(await firstValueFrom(memory.has('a'))).toBe(true)
    expect(failures).toHaveLength(1)
  })
  it('is not looked up, and its folder not made, before anybody asks', async () => {
    const folder = join(temporaryFolder('memory'), 'forward')
    const { engine } = embeddedStore(folder, { maxBytes: 256 * 1024 })
    replayMemory(engine).close()
    expect(readdirSync(join(folder, '..'))).toEqual([])
    await Promise.resolve()
  })
})
