import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { firstValueFrom, lastValueFrom, timeout } from 'rxjs'
import ts from 'typescript'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Entry, QueueEngine } from '../../src/connections/queue-engine.js'
import { openSegmentLog } from '../../src/connections/segment-log.js'

const { allPending } = (await import(new URL('./pending.js', import.meta.url).href)) as { allPending: (log: QueueEngine) => Promise<readonly Entry[]> }

const kills = Number(process.env.BACKHAUL_TEST_KILLS ?? 5)
const window = 64
/** Inside the project, so that the worker finds its dependencies. */
const built = join('node_modules', '.cache', `kill-test-${process.pid}`)
let folder: string
let queue: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'backhaul-kill-'))
  queue = join(folder, 'queue')
  mkdirSync(join(built, 'connections'), { recursive: true })
  const ofTheLog = readdirSync('src/connections').filter((file) => /^(queue-engine|folder-lock|segment-|log-)/.test(file))
  for (const name of ['delivery.ts', 'make-folder.ts', ...ofTheLog.map((file) => `connections/${file}`)]) {
    const { outputText } = ts.transpileModule(readFileSync(join('src', name), 'utf8'), {
      compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
    })
    writeFileSync(join(built, name.replace(/ts$/, 'js')), outputText)
  }
  writeFileSync(join(built, 'package.json'), '{"type":"module"}')
})
afterAll(() => {
  rmSync(built, { recursive: true, force: true })
  rmSync(folder, { recursive: true, force: true })
})

/** A file takes up a page at least. */
const onDisk = (): number =>
  readdirSync(queue)
    .filter((name) => name.endsWith('.log'))
    .reduce((sum, name) => sum + Math.max(statSync(join(queue, name)).size, 4096), 0)

const refusal = (): Promise<unknown> =>
  firstValueFrom(openSegmentLog(queue, { maxBytes: 2 ** 30 }).pipe(timeout(1000))).then(() => undefined, (error: unknown) => error)

it('a queue whose process is killed keeps all it accepted, repeats no more than the window, and turns a second process away until then', async () => {
  const ledger = join(folder, 'ledger')
  writeFileSync(ledger, '')
  const told = (): number => statSync(ledger).size
  for (let round = 0; round < kills; round += 1) {
    const begun = told()
    const task = { modules: pathToFileURL(join(built, 'connections')).href, folder: queue, ledger, round, window }
    const child = spawn(process.execPath, ['test/faults/log-worker.js', JSON.stringify(task)], { stdio: ['ignore', 'ignore', 'inherit'] })
    const gone = once(child, 'close')
    await expect.poll(told, { timeout: 20_000, interval: 5 }).toBeGreaterThan(begun)
    expect(await refusal()).toMatchObject({ code: 'BACKHAUL_FOLDER_IN_USE', holder: { pid: child.pid } })
    await expect.poll(told, { timeout: 20_000, interval: 5 }).toBeGreaterThan(begun + 20_000 + ((round * 7_777) % 50_000))
    child.kill('SIGKILL')
    await gone
    const lines = readFileSync(ledger, 'utf8').split('\n')
    const [accepted, settled] = ['a', 's'].map((kind) => new Set(lines.filter((line) => line.startsWith(kind)).map((line) => line.slice(1))))
    const log = await firstValueFrom(openSegmentLog(queue, { maxBytes: 2 ** 30 }))
    const left = (await allPending(log)).map(({ body }) => body.toString().trim())
    const there = new Set(left)
    expect(there.size).toBe(left.length)
    expect([...accepted!].filter((id) => !settled!.has(id) && !there.has(id))).toEqual([])
    expect(left.filter((id) => settled!.has(id)).length).toBeLessThanOrEqual(window)
    expect(log.stats()).toMatchObject({ damagedRecords: 0, lostMessages: 0 })
    // The gauge is what is on the disk, however often it was killed.
    expect(log.stats().usedBytes).toBe(onDisk())
    await lastValueFrom(log.close(), { defaultValue: undefined })
    expect(accepted!.size).toBeGreaterThan((round + 1) * 200)
  }
}, 3_600_000)
