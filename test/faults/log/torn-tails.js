/**
 * The newest segment of a killed log, torn at every byte of its last records: cut off there, or zeros or garbage from
 * there on. Each is a start of its own, on a real file system.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { allPending } from '../pending.js'

const options = { maxBytes: 2 ** 20, segmentBytes: 65_536, reserveBytes: 0, settleMs: 60_000 }
const tears = {
  cut: (bytes, at) => bytes.subarray(0, at),
  zeros: (bytes, at) => Buffer.concat([bytes.subarray(0, at), Buffer.alloc(bytes.length - at)]),
  // No byte of it is as it was.
  garbage: (bytes, at) => Buffer.from(bytes.map((byte, i) => (i < at ? byte : byte ^ (1 + ((i * 37) % 255))))),
}
const bodyOf = (i) => `m${i}`.padEnd(20 + i, '.')
/** Every record of a segment begins with the same marker. */
const startsRecord = (bytes, at) => bytes.subarray(at, at + 4).equals(bytes.subarray(32, 36))
const messages = 8
/** The last three messages are torn, in all that was written for them. */
const spared = 5

/** Every `step`-th byte. `starts` counts them all; `uncounted` those at which something was dropped without a word. */
export const tornTails = async ({ modules, step = 1 }) => {
  const { openSegmentLog } = await import(`${modules}/segment-log.js`)
  const home = mkdtempSync(join(tmpdir(), 'backhaul-torn-'))
  const report = { starts: 0, accepted: 0, lost: 0, corrupt: 0, reordered: 0, failedStarts: 0, uncounted: 0, dropped: 0 }
  const shut = (log) => lastValueFrom(log.close(), { defaultValue: undefined })
  const pending = async (log) => (await allPending(log)).map(({ body }) => body.toString())
  try {
    const whole = join(home, 'whole')
    const log = await firstValueFrom(openSegmentLog(whole, options))
    for (let i = 0; i < messages; i += 1) await firstValueFrom(log.append(Buffer.from(bodyOf(i))))
    const asKilled = join(home, 'killed')
    cpSync(whole, asKilled, { recursive: true, filter: (path) => !path.endsWith('/lock') })
    await shut(log)
    const name = readdirSync(asKilled).filter((one) => one.endsWith('.log')).sort().at(-1)
    const bytes = readFileSync(join(asKilled, name))
    const ends = Array.from({ length: messages }, (_, i) => bytes.indexOf(bodyOf(i)) + bodyOf(i).length)
    for (const tear of Object.values(tears))
      for (let at = ends[spared - 1]; at < bytes.length; at += step) {
        const torn = tear(bytes, at)
        if (torn.equals(bytes)) continue
        const folder = join(home, 'torn')
        rmSync(folder, { recursive: true, force: true })
        cpSync(asKilled, folder, { recursive: true })
        writeFileSync(join(folder, name), torn)
        report.starts += 1
        try {
          const found = await firstValueFrom(openSegmentLog(folder, options))
          const left = await pending(found)
          const { tornBytes, damagedRecords } = found.stats()
          const kept = ends.filter((end) => end <= at).length
          report.accepted += kept
          report.dropped += tornBytes
          report.lost += Array.from({ length: kept }, (_, i) => bodyOf(i)).filter((body) => !left.includes(body)).length
          report.corrupt += left.filter((body, i) => body !== bodyOf(i)).length
          // What is cut off between two records cannot be told from what was never written.
          const told = tornBytes > 0 || damagedRecords > 0 || (torn.length === at && startsRecord(bytes, at))
          report.uncounted += told ? 0 : 1
          await firstValueFrom(found.append(Buffer.from('after')))
          await shut(found)
          const again = await firstValueFrom(openSegmentLog(folder, options))
          if ((await pending(again)).join() !== [...left, 'after'].join()) report.failedStarts += 1
          await shut(again)
        } catch {
          report.failedStarts += 1
        }
      }
    return report
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
}
