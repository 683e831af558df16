/** One flipped bit anywhere in the folder of a log, many times over. */
import { EMPTY, firstValueFrom, of } from 'rxjs'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import type { Entry, QueueEngine } from '../../src/connections/queue-engine.js'
import { memoryDisk, randomFrom, type MemoryDisk } from './memory-disk.js'

export interface FlipReport {
  flips: number
  failedStarts: number
  /** Flips that no counter of damage tells of. */
  uncounted: number
  /** Flips that were counted more than once. */
  countedTwice: number
  /** The most pending messages that one flip cost. */
  mostLost: number
  lost: number
  /** Messages that came with other bytes, out of order, or twice. */
  wrong: number
}

const FOLDER = '/queue'
const open = ({ fs }: MemoryDisk): Promise<QueueEngine> =>
  firstValueFrom(openSegmentLog(FOLDER, { fs, maxBytes: 2 ** 24, segmentBytes: 16_384, settleMs: 1, reserveBytes: 0, lock: () => of({ release: () => EMPTY }) }))
const readAll = async (log: QueueEngine): Promise<Entry[]> => {
  const all: Entry[] = []
  while (log.stats().depth > log.stats().unsettled) {
    // What damage took is found out by reading on: then nothing comes, and the depth is right.
    let got: readonly Entry[] = []
    const asked = log.next(1000).subscribe((entries) => (got = entries))
    while (got.length === 0 && log.stats().depth > log.stats().unsettled) await new Promise((resolve) => setImmediate(resolve))
    asked.unsubscribe()
    all.push(...got)
  }
  return all
}

/** A log of several segments as a kill leaves it, and what is pending in it. */
const example = async (random: () => number): Promise<{ files: Map<string, Buffer>; pending: Map<number, string> }> => {
  const disk = memoryDisk()
  const log = await open(disk)
  const pending = new Map<number, string>()
  for (let batch = 0; batch < 40; batch += 1) {
    const bodies = Array.from({ length: 1 + Math.floor(random() * 8) }, (_, i) => `${batch}-${i} `.padEnd(Math.floor(random() * 400), 'x'))
    const headers = bodies.map((_, i) => (i % 2 === 0 ? '' : `h${i}`))
    const seqs = await Promise.all(bodies.map((body, i) => firstValueFrom(log.append(Buffer.from(body), Buffer.from(headers[i]!)))))
    seqs.forEach((seq, i) => pending.set(seq, `${headers[i]}|${bodies[i]}`))
    if (batch % 3 !== 0) continue
    for (const { seq } of await firstValueFrom(log.next(3))) {
      if (random() < 0.5) continue
      log.settle(seq)
      pending.delete(seq)
    }
  }
  await firstValueFrom(log.append(Buffer.from('last'))).then((seq) => pending.set(seq, '|last'))
  const files = disk.afterKill().files()
  await firstValueFrom(log.close(), { defaultValue: undefined })
  return { files, pending }
}

/** So many flips in logs that are made anew every hundred flips, all drawn from the seed. */
export const bitFlips = async (flips: number, seed = 1): Promise<FlipReport> => {
  const random = randomFrom(seed)
  const report: FlipReport = { flips: 0, failedStarts: 0, uncounted: 0, countedTwice: 0, mostLost: 0, lost: 0, wrong: 0 }
  let made = await example(random)
  for (; report.flips < flips; report.flips += 1) {
    if (report.flips % 100 === 99) made = await example(random)
    const { files, pending } = made
    const total = [...files.values()].reduce((sum, { length }) => sum + length, 0)
    let bit = Math.floor(random() * total * 8)
    const flipped = new Map(files)
    for (const [path, bytes] of files) {
      if (bit >= 0 && bit < bytes.length * 8) {
        const copy = Buffer.from(bytes)
        copy[bit >> 3]! ^= 1 << (bit & 7)
        flipped.set(path, copy)
      }
      bit -= bytes.length * 8
    }
    const log = await open(memoryDisk(flipped)).catch(() => undefined)
    if (log === undefined) {
      report.failedStarts += 1
      continue
    }
    const got = await readAll(log)
    const there = new Set(got.map(({ seq }) => seq))
    const lost = [...pending.keys()].filter((seq) => !there.has(seq)).length
    const { damagedRecords } = log.stats()
    report.lost += lost
    report.mostLost = Math.max(report.mostLost, lost)
    report.uncounted += damagedRecords === 0 ? 1 : 0
    report.countedTwice += damagedRecords > 1 ? 1 : 0
    got.forEach(({ seq, body, headers }, i) => {
      const text = `${headers.toString()}|${body.toString()}`
      // What was settled may come again when its mark is gone; it has no place in `pending`.
      const known = pending.get(seq) ?? text
      report.wrong += known !== text || (i > 0 && got[i - 1]!.seq >= seq) ? 1 : 0
    })
    await firstValueFrom(log.close(), { defaultValue: undefined })
  }
  return report
}
