/** Embedded queues in a folder of each test's own: closed and removed after it, whatever becomes of the test. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom, type Observable } from 'rxjs'
import { afterEach, beforeEach } from 'vitest'
import type { Entry, QueueEngine } from '../../src/connections/queue-engine.js'
import { openSegmentLog, type SegmentLogOptions } from '../../src/connections/segment-log.js'

/** For whatever a test needs beside the queue's folder. */
export let root: string
export let folder: string
let engines: QueueEngine[] = []

export const done = (work: Observable<unknown>): Promise<unknown> => lastValueFrom(work, { defaultValue: undefined })
export const open = async (options: Partial<SegmentLogOptions> = {}, where = folder): Promise<QueueEngine> => {
  const engine = await firstValueFrom(openSegmentLog(where, { maxBytes: 2 ** 30, reserveBytes: 4096, ...options }))
  engines.push(engine)
  return engine
}
/** Closes what is open, as the end of the test does. */
export const closeAll = async (): Promise<void> => {
  for (const engine of engines) await done(engine.close()).catch(() => undefined)
  engines = []
}

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'backhaul-queue-'))
  folder = join(root, 'queue')
})
afterEach(async () => {
  await closeAll()
  rmSync(root, { recursive: true, force: true })
})

export const put = (engine: QueueEngine, text: string, headers = ''): Promise<number> =>
  firstValueFrom(engine.append(Buffer.from(text), Buffer.from(headers)))
export const putAll = (engine: QueueEngine, texts: readonly string[]): Promise<number[]> => Promise.all(texts.map((text) => put(engine, text)))
export const text = ({ body }: Entry): string => body.toString()
export const texts = (from: number, to: number, size = 0): string[] =>
  Array.from({ length: to - from }, (_, i) => `m${from + i}`.padEnd(size, '.'))

/** All that can be read without waiting: what damage took is found out by reading on, and then the depth is right. */
export const readAll = async (engine: QueueEngine, max = 100): Promise<Entry[]> => {
  const all: Entry[] = []
  const more = (): boolean => engine.stats().depth > engine.stats().unsettled
  while (more()) {
    let got: readonly Entry[] = []
    const asked = engine.next(max).subscribe((entries) => (got = entries))
    while (got.length === 0 && more()) await new Promise((resolve) => setImmediate(resolve))
    asked.unsubscribe()
    all.push(...got)
  }
  return all
}
