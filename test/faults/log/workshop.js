/** Lives of the embedded queue in folders of their own, under strace, and what was found in the end. */
import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { judgeFolder, readLedger } from './judge.js'
import { underStrace } from './strace.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const script = fileURLToPath(new URL('./life.js', import.meta.url))
/** The most that a life has outside, and so the most that may come again. */
export const window = 8

/** So many of them at most, spread over all. */
export const spread = (all, most) => (all.length <= most ? all : Array.from({ length: most }, (_, i) => all[Math.floor((i * all.length) / most)]))

/** Two at a time. */
export const forEachOf = async (items, work) => {
  const left = [...items]
  const worker = async () => {
    for (let one = left.shift(); one !== undefined; one = left.shift()) await work(one)
  }
  await Promise.all([worker(), worker()])
}

/** Adds what one judgement found; `expectedDamage` is what was broken on purpose. */
export const tally = () => {
  const report = { accepted: 0, lost: 0, reordered: 0, corrupt: 0, failedStarts: 0, falseAlarms: 0, mostRepeated: 0 }
  return {
    report,
    add: (found, expectedDamage = 0) => {
      for (const name of ['accepted', 'lost', 'reordered', 'corrupt', 'failedStarts']) report[name] += found[name]
      report.falseAlarms += Math.max(0, found.damagedRecords - expectedDamage)
      report.mostRepeated = Math.max(report.mostRepeated, found.repeated)
      if (found.why !== undefined) report.why = found.why
    },
  }
}

export const openWorkshop = (modules) => {
  const home = mkdtempSync(join(tmpdir(), 'backhaul-calls-'))
  let number = 0
  const task = (place, more) => [script, JSON.stringify({ modules, folder: join(place, 'queue'), ledger: join(place, 'ledger'), window, ...more })]
  const makePlace = (from) => {
    const place = join(home, `${(number += 1)}`)
    if (from === undefined) mkdirSync(place)
    else cpSync(from, place, { recursive: true })
    return place
  }
  return {
    /** What a killed life leaves, and was then done to its folder: for other lives to begin with. */
    prepare: (ruin) => {
      const place = makePlace()
      spawnSync(process.execPath, task(place, { endless: true }), { cwd: root })
      ruin(join(place, 'queue'))
      return place
    },
    /** `inject` is for strace; `from` is a prepared place; `path` inside the folder, to be traced alone. */
    live: async (inject, { from, path, mayFail, deadlineMs, ...more } = {}) => {
      const place = makePlace(from)
      const folder = join(place, 'queue')
      const ran = await underStrace(task(place, { life: from === undefined ? 0 : 1, ...more }), {
        inject,
        folder,
        trace: join(place, 'trace'),
        cwd: root,
        mayFail,
        deadlineMs,
        ...(path !== undefined && { path: join(folder, path) }),
      })
      const ledger = readLedger(join(place, 'ledger'))
      return { ...ran, folder, ledger, judge: () => judgeFolder(modules, folder, ledger), remove: () => rmSync(place, { recursive: true, force: true }) }
    },
    close: () => rmSync(home, { recursive: true, force: true }),
  }
}
