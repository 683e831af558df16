/**
 * SIGKILL at each call of the file system in turn, before it takes effect: in a life with all that a log does, in a
 * start that finds a torn tail, in one that finds its newest segment destroyed, and in one on a full disk.
 */
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { forEachOf, openWorkshop, spread, tally } from './workshop.js'

const newestSegment = (folder) => join(folder, readdirSync(folder).filter((name) => name.endsWith('.log')).sort().at(-1))
const tornTail = (folder) => {
  const path = newestSegment(folder)
  appendFileSync(path, readFileSync(path).subarray(32, 62))
  writeFileSync(join(folder, '0000000000099999.log.new'), 'left over')
}
/** Its header is one broken place, the rest another. */
const destroyedNewest = (folder) => writeFileSync(join(folder, '0000000000009000.log'), Buffer.alloc(300, 7))

const pathOf = ({ line }) => /"([^"]+)"/.exec(line)?.[1] ?? /<([^>]*)>/.exec(line)?.[1] ?? ''
/** Names that are drawn anew in each life, and numbers without their zeros. */
const shown = (path) => basename(path).replace(/^lock\..*/, 'lock.…').replace(/^0+(?=\d)/, '')

/**
 * Where to kill: the call, which of its kind, and the path to look at alone. Node opens files of its own in several
 * threads, so opens are counted by path; the lock's own file, with a name that is new each time, is left out.
 */
const pointsOf = (calls, folder) => {
  const opened = new Map()
  return calls.flatMap((call) => {
    const path = pathOf(call)
    if (!call.name.startsWith('open')) return [{ name: call.name, index: call.index }]
    if (/lock\../.test(path)) return []
    opened.set(path, (opened.get(path) ?? 0) + 1)
    return [{ name: call.name, index: opened.get(path), path: relative(folder, path) }]
  })
}

/** At most so many points, spread over all. `say` hears each. */
export const crashSweep = async ({ modules, most = Infinity, say = () => {} }) => {
  const shop = openWorkshop(modules)
  const { report, add } = tally()
  Object.assign(report, { all: 0, points: 0, struck: 0, names: {} })
  try {
    const scenes = [
      { scene: 'life' },
      { scene: 'torn tail', from: shop.prepare(tornTail), rounds: 2 },
      { scene: 'destroyed segment', from: shop.prepare(destroyedNewest), rounds: 2, damage: 2 },
      { scene: 'full disk', always: ['pwrite64:error=ENOSPC:when=12..14'], only: /^(ftruncate|unlink)/ },
    ]
    const points = []
    for (const { scene, always = [], only = /./, damage, ...how } of scenes) {
      const whole = await shop.live(always, how)
      if (!whole.ledger.ended) throw new Error(`${scene}: did not come to its end without a kill`)
      add(await whole.judge(), damage)
      const own = pointsOf(whole.calls, whole.folder).filter(({ name }) => only.test(name))
      points.push(...own.map((point) => ({ scene, always, damage, how, ...point })))
      whole.remove()
    }
    report.all = points.length
    await forEachOf(spread(points, most), async ({ scene, always, damage, how, name, index, path }) => {
      const one = await shop.live([...always, `${name}:signal=KILL:when=${index}`], { ...how, path })
      const last = one.calls.at(-1)
      const struck = one.killed && last?.name === name
      report.points += 1
      if (struck) report.struck += 1
      report.names[name] = (report.names[name] ?? 0) + (struck ? 1 : 0)
      say(`${scene}: ${name} ${index} ${struck ? shown(pathOf(last)) : one.killed ? '(elsewhere)' : '(never came)'}`)
      add(await one.judge(), damage)
      one.remove()
    })
    return report
  } finally {
    shop.close()
  }
}
