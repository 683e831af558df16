/** System calls below the embedded queue that fail, or take their time, one after the other. */
import { closeSync, existsSync, fstatSync, openSync, writeSync } from 'node:fs'
import { forEachOf, openWorkshop, spread, tally } from './workshop.js'

const injected = ({ line }) => line.includes('INJECTED')
const pathOf = ({ line }) => /<([^>]*)>/.exec(line)?.[1] ?? ''

/** The pages of the last write before a failed sync are gone: what a kernel leaves, which marks them clean. */
const losePages = (calls, failed) => {
  const path = pathOf(calls[failed])
  const write = calls.slice(0, failed).findLast((call) => call.name === 'pwrite64' && pathOf(call) === path)
  const [, length, offset] = /, (\d+), (\d+)\) += \d+/.exec(write?.line ?? '') ?? []
  if (offset === undefined || !existsSync(path)) return
  const file = openSync(path, 'r+')
  const end = Math.min(Number(offset) + Number(length), fstatSync(file).size)
  if (end > Number(offset)) writeSync(file, Buffer.alloc(end - Number(offset)), 0, end - Number(offset), Number(offset))
  closeSync(file)
}

/** Calls that trusted a file after its sync had failed; a file made anew under the same name is another one. */
const trustedAgain = (calls, failed) => {
  const path = pathOf(calls[failed])
  const later = calls.slice(failed + 1)
  const made = later.findIndex(({ name, line }) => name.startsWith('open') && line.includes('O_TRUNC') && line.includes(`"${path}"`))
  return later.slice(0, made < 0 ? undefined : made).filter((call) => ['pwrite64', 'fdatasync'].includes(call.name) && pathOf(call) === path).length
}

/**
 * The sync of a file, and of the folder, fails once, at each call in turn; then the pages that it should have kept are
 * zeros, and the process is dead. `trustedAgain` counts writes to, and syncs of, a file that had failed.
 */
export const syncFailures = async ({ modules, most = Infinity }) => {
  const shop = openWorkshop(modules)
  const { report, add } = tally()
  Object.assign(report, { points: 0, struck: 0, refused: 0, trustedAgain: 0 })
  try {
    const whole = await shop.live([], { endless: true })
    const points = whole.calls.filter(({ name }) => name === 'fdatasync' || name === 'fsync')
    await forEachOf(spread(points, most), async ({ name, index }) => {
      const one = await shop.live([`${name}:error=EIO:when=${index}`], { endless: true })
      const failed = one.calls.findIndex(injected)
      report.points += 1
      report.refused += one.ledger.refusals
      if (failed >= 0) {
        report.struck += 1
        report.trustedAgain += name === 'fdatasync' ? trustedAgain(one.calls, failed) : 0
        if (name === 'fdatasync') losePages(one.calls, failed)
      }
      // What the lost pages have left of a batch that nobody was promised may look like damage.
      add(await one.judge(), Infinity)
      one.remove()
    })
    return report
  } finally {
    shop.close()
  }
}

/** The disk is full, or gives errors, for six writes on end, wherever they begin; then it is as before. No restart. */
export const failingWrites = async ({ modules, most = Infinity }) => {
  const shop = openWorkshop(modules)
  const { report, add } = tally()
  Object.assign(report, { points: 0, struck: 0, refused: 0, notHealed: 0 })
  try {
    const whole = await shop.live([])
    const points = whole.calls.filter(({ name }) => name === 'pwrite64').flatMap(({ index }) => ['ENOSPC', 'EIO'].map((error) => ({ error, index })))
    await forEachOf(spread(points, most), async ({ error, index }) => {
      const one = await shop.live([`pwrite64:error=${error}:when=${index}..${index + 5}`], { mayFail: true })
      report.points += 1
      report.struck += one.calls.some(injected) ? 1 : 0
      report.refused += one.ledger.refusals
      report.notHealed += one.ledger.ended ? 0 : 1
      add(await one.judge())
      one.remove()
    })
    return report
  } finally {
    shop.close()
  }
}

/** Each of some syncs takes `slowMs`; `stallMs` is the longest that the event loop stood still meanwhile. */
export const slowSyncs = async ({ modules, syncs = 3, slowMs = 2000 }) => {
  const shop = openWorkshop(modules)
  const { report, add } = tally()
  try {
    // Each round has a sync.
    const one = await shop.live([`fdatasync:delay_enter=${slowMs * 1000}:when=6..${5 + syncs}`], { rounds: 14 + syncs, stalls: true, deadlineMs: 60_000 + syncs * slowMs })
    const delayed = one.calls.filter(({ line }) => line.includes('DELAYED')).length
    add(await one.judge())
    return { ...report, points: syncs, struck: delayed, stallMs: one.ledger.stalledMs }
  } finally {
    shop.close()
  }
}
