/** What a life of the log told the outside, against what is in its folder afterwards. */
import { existsSync, readFileSync } from 'node:fs'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { allPending } from '../pending.js'

export const readLedger = (file) => {
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : []
  const ids = (kind) => new Set(lines.filter((line) => line[0] === kind).map((line) => line.slice(1)))
  return { accepted: ids('a'), refusals: lines.filter((line) => line[0] === 'r').length, given: ids('g'), settled: ids('s'), ended: lines.includes('end'), stalledMs: Number(lines.find((line) => line.startsWith('stalled '))?.slice(8) ?? NaN) }
}

const idOf = (body) => body.toString().replace(/\.+$/, '')
const numberOf = (id) => id.split('-').map(Number)
const isBefore = ([a, b], [c, d]) => a < c || (a === c && b < d)
const options = { maxBytes: 2 ** 20, segmentBytes: 4096, reserveBytes: 8192, settleMs: 1 }

/**
 * Opens what is left, reads it, appends one message more and finds all of it again after a second start. `lost`: accepted, not
 * settled, and gone. `repeated`: settled, and there. `reordered`: in another order than it was appended.
 */
export const judgeFolder = async (modules, folder, { accepted, settled }) => {
  const { openSegmentLog } = await import(`${modules}/segment-log.js`)
  const found = { accepted: accepted.size, lost: 0, repeated: 0, reordered: 0, corrupt: 0, failedStarts: 0, tornBytes: 0, damagedRecords: 0 }
  const pending = async (log) => (await allPending(log)).map(({ body }) => idOf(body))
  const shut = (log) => lastValueFrom(log.close(), { defaultValue: undefined })
  try {
    const log = await firstValueFrom(openSegmentLog(folder, options))
    const left = await pending(log)
    const there = new Set(left)
    found.lost = [...accepted].filter((id) => !settled.has(id) && !there.has(id)).length
    found.repeated = left.filter((id) => settled.has(id)).length
    found.corrupt = left.filter((id) => !/^\d+-\d+$/.test(id)).length
    left.forEach((id, i) => (found.reordered += i > 0 && !isBefore(numberOf(left[i - 1]), numberOf(id)) ? 1 : 0))
    found.tornBytes = log.stats().tornBytes
    await firstValueFrom(log.append(Buffer.from('99-0')))
    found.damagedRecords = log.stats().damagedRecords
    await shut(log)
    const again = await firstValueFrom(openSegmentLog(folder, options))
    if ((await pending(again)).join() !== [...left, '99-0'].join()) found.failedStarts += 1
    await shut(again)
  } catch (error) {
    found.failedStarts += 1
    found.why = error.message
  }
  return found
}
