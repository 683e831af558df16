/**
 * Somebody takes a file of the queue away, or empties it: each file in turn, of a killed log before its start, and of
 * a running one. What was in it is gone, by somebody's hand; the queue has to start, to say so, and to go on. The file
 * that grows is another matter: as long as the process lives nothing of it is lost, and what is accepted afterwards is there.
 */
import { cpSync, mkdtempSync, readdirSync, rmSync, truncateSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom, timeout } from 'rxjs'

const options = { maxBytes: 2 ** 20, segmentBytes: 4096, reserveBytes: 8192, settleMs: 1 }
const messages = 40
const bodyOf = (i) => `m${i}`.padEnd(300, '.')
const harms = { gone: unlinkSync, empty: (path) => truncateSync(path) }

/**
 * `stalled`: an answer that did not come within 5 s, or messages that are still there and are not given out. `unreported`:
 * messages missing, or the growing file, and no counter tells. `lost`: accepted, in the growing file, and not there at the
 * next start.
 */
export const lostFiles = async ({ modules }) => {
  const { openSegmentLog } = await import(`${modules}/segment-log.js`)
  const home = mkdtempSync(join(tmpdir(), 'backhaul-lost-'))
  const report = { points: 0, struck: 0, accepted: 0, failedStarts: 0, stalled: 0, unreported: 0, wrong: 0, missing: 0, lost: 0 }
  const open = (folder) => firstValueFrom(openSegmentLog(folder, options).pipe(timeout(5000)))
  const shut = (log) => lastValueFrom(log.close().pipe(timeout(5000)), { defaultValue: undefined }).catch(() => undefined)
  const put = (log, body) => firstValueFrom(log.append(Buffer.from(body)).pipe(timeout(5000)))
  /** An answer, whichever it is, is no stall. */
  const answered = (work) => work.then(() => true, (error) => error?.name !== 'TimeoutError')
  const fresh = async (name) => {
    const folder = join(home, name)
    const log = await open(folder)
    for (let i = 0; i < messages; i += 1) await put(log, bodyOf(i))
    return { folder, log }
  }
  /** All that is left, read to the end. */
  const readAll = async (log) => {
    const left = []
    for (;;) {
      const some = await firstValueFrom(log.next(1000).pipe(timeout(300)), { defaultValue: [] }).catch(() => [])
      if (some.length === 0) return left
      for (const { seq, body } of some) {
        left.push(body.toString())
        log.settle(seq)
      }
    }
  }
  /** Nothing else knows how long the newest file was: that it is gone cannot be told. */
  const judge = (log, left, canBeTold = true) => {
    const known = new Set(Array.from({ length: messages }, (_, i) => bodyOf(i)))
    const there = left.filter((body) => known.has(body)).length
    const { damagedRecords, lostMessages } = log.stats()
    report.missing += messages - there
    if (canBeTold && there < messages && damagedRecords + lostMessages === 0) report.unreported += 1
    if (log.stats().depth > 0) report.stalled += 1
    report.wrong += left.filter((body) => !known.has(body) && !body.startsWith('after')).length
  }
  /** As if it had been killed right behind its last yes. */
  const judgeCrash = async (running) => {
    const left = join(home, `crashed-${report.points}`)
    cpSync(running, left, { recursive: true, filter: (path) => !path.endsWith('/lock') })
    const log = await open(left)
    const there = new Set(await readAll(log))
    await shut(log)
    report.lost += [...Array.from({ length: messages }, (_, i) => bodyOf(i)), 'after'].filter((body) => !there.has(body)).length
  }
  try {
    const { folder: whole, log } = await fresh('whole')
    const names = readdirSync(whole).filter((name) => name !== 'lock')
    const newest = names.filter((name) => name.endsWith('.log')).sort().at(-1)
    const killed = join(home, 'killed')
    cpSync(whole, killed, { recursive: true, filter: (path) => !path.endsWith('/lock') })
    await shut(log)
    for (const harm of Object.values(harms))
      for (const name of names) {
        report.points += 1
        report.accepted += messages
        // At rest.
        const folder = join(home, `rest-${report.points}`)
        cpSync(killed, folder, { recursive: true })
        harm(join(folder, name))
        report.struck += 1
        const found = await open(folder).catch(() => undefined)
        if (found === undefined) report.failedStarts += 1
        else {
          if (!(await answered(put(found, 'after')))) report.stalled += 1
          judge(found, await readAll(found), harm !== harms.gone || name !== newest)
          await shut(found)
        }
        report.points += 1
        report.accepted += messages
        // Live: what is read afterwards and what is appended both get an answer, and the next start is one.
        const { folder: running, log: live } = await fresh(`live-${report.points}`)
        harm(join(running, name))
        report.struck += 1
        if (!(await answered(put(live, 'after')))) report.stalled += 1
        if (name === newest) {
          if (live.stats().lostFiles !== 1) report.unreported += 1
          await judgeCrash(running)
        }
        judge(live, await readAll(live))
        await shut(live)
        const again = await open(running).catch(() => undefined)
        if (again === undefined) report.failedStarts += 1
        else if (!(await put(again, 'after all').then(() => true, () => false))) report.stalled += 1
        if (again !== undefined) await shut(again)
      }
    return report
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
}
