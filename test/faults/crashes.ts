/** Lives of one log that end in the middle of any call of the file system. */
import { EMPTY, firstValueFrom, of } from 'rxjs'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import type { QueueEngine } from '../../src/connections/queue-engine.js'
import { memoryDisk, randomFrom, type MemoryDisk } from './memory-disk.js'

export interface CrashReport {
  crashes: number
  accepted: number
  /** Accepted, not settled, and not there any more. */
  lost: number
  /** The most that came again after one crash, of what had been given out before it. */
  mostRepeated: number
  repeated: number
  outOfOrder: number
  numbersReused: number
  failedStarts: number
  /** Damage that a crash cannot have done: counted although all that was written is there. */
  falseAlarms: number
}

const FOLDER = '/queue'
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** What the outside knows: it lives on when the process does not. */
interface World {
  appended: number
  readonly accepted: Set<number>
  readonly settled: Set<number>
  readonly numbers: Map<number, number>
}

/** Appends, reads and settles until the disk freezes; says what was given out. */
const live = async (log: QueueEngine, world: World, random: () => number, window: number, over: () => boolean): Promise<Set<number>> => {
  const given = new Set<number>()
  const outside: { id: number; seq: number }[] = []
  let asking = false
  const ask = (): void => {
    if (asking || outside.length >= window || over()) return
    asking = true
    log.next(window - outside.length).subscribe((entries) => {
      asking = false
      for (const { seq, body } of entries) {
        const id = body.readUInt32BE()
        given.add(id)
        outside.push({ id, seq })
      }
    })
  }
  for (let turns = 0; !over(); turns += 1) {
    if (turns > 20_000) throw new Error(`nothing moves any more: ${JSON.stringify({ ...log.stats(), outside: outside.length, asking })}`)
    for (let n = Math.floor(random() * 6); n > 0; n -= 1) {
      const body = Buffer.alloc(4 + Math.floor(random() ** 4 * 6000), 'x')
      const id = world.appended++
      body.writeUInt32BE(id)
      log.append(body).subscribe({ next: () => world.accepted.add(id), error: () => undefined })
    }
    ask()
    for (let n = Math.floor(random() * 4); n > 0 && outside.length > 0; n -= 1) {
      const [{ id, seq }] = outside.splice(Math.floor(random() * Math.min(outside.length, 8)), 1) as [{ id: number; seq: number }]
      log.settle(seq)
      world.settled.add(id)
    }
    await turn()
  }
  return given
}

/** Opens what a crash left, and compares it with what the world knows. */
const judge = async (log: QueueEngine, world: World, given: Set<number>, report: CrashReport): Promise<void> => {
  const pending = await firstValueFrom(log.peek(0, Infinity))
  const ids = pending.map(({ body }) => body.readUInt32BE())
  const there = new Set(ids)
  for (const id of world.accepted) if (!world.settled.has(id) && !there.has(id)) report.lost += 1
  const repeated = ids.filter((id) => given.has(id)).length
  report.repeated += repeated
  report.mostRepeated = Math.max(report.mostRepeated, repeated)
  ids.forEach((id, i) => (report.outOfOrder += i > 0 && ids[i - 1]! >= id ? 1 : 0))
  for (const { seq, body } of pending) {
    const id = body.readUInt32BE()
    if ((world.numbers.get(seq) ?? id) !== id) report.numbersReused += 1
    world.numbers.set(seq, id)
  }
  // What damage took is found out by reading on: then there may be nothing left to wait for.
  const more = (): boolean => log.stats().unsettled < log.stats().depth
  while (more()) {
    let came = false
    const asked = log.next(1000).subscribe(() => (came = true))
    while (!came && more()) await turn()
    asked.unsubscribe()
  }
  report.falseAlarms += log.stats().damagedRecords
}

/**
 * For each seed one log with four lives, each ended by a kill or by a power cut in the
 * middle of some call, opening included. With `syncs: false` the disk lies, as a control.
 */
export const crashes = async (options: { seeds: number; kind: 'kill' | 'cut'; window: number; syncs?: boolean }): Promise<CrashReport> => {
  const { seeds, kind, window, syncs = true } = options
  const report: CrashReport = { crashes: 0, accepted: 0, lost: 0, mostRepeated: 0, repeated: 0, outOfOrder: 0, numbersReused: 0, failedStarts: 0, falseAlarms: 0 }
  const open = ({ fs }: MemoryDisk): Promise<QueueEngine> =>
    firstValueFrom(
      openSegmentLog(FOLDER, { fs, maxBytes: 2 ** 20, segmentBytes: 16_384, settleMs: 1, reserveBytes: 4096, lock: () => of({ release: () => EMPTY }) }),
    )
  for (let seed = 1; seed <= seeds; seed += 1) {
    const random = randomFrom(seed)
    const world: World = { appended: 0, accepted: new Set(), settled: new Set(), numbers: new Map() }
    let disk = memoryDisk(new Map(), { syncs })
    let given = new Set<number>()
    for (let life = 0; life < 4; life += 1) {
      const present = disk
      const end = 1 + Math.floor(random() ** 2 * 400)
      let over = false
      const ended = new Promise<undefined>((resolve) =>
        present.onCall((call) => {
          if (call < end) return
          over = true
          present.freeze()
          resolve(undefined)
        }),
      )
      const log = await Promise.race([open(present), ended])
      if (log !== undefined) given = new Set([...given, ...(await live(log, world, random, window, () => over))])
      report.crashes += 1
      disk = kind === 'kill' ? present.afterKill() : present.afterCut(random)
      const judging = await open(disk.afterKill()).catch(() => undefined)
      if (judging === undefined) report.failedStarts += 1
      else {
        await judge(judging, world, given, report)
        given = new Set()
        await firstValueFrom(judging.close(), { defaultValue: undefined })
      }
    }
    report.accepted += world.accepted.size
  }
  return report
}
