/**
 *   npm run faults [-- R01 R24] [-- --long] [-- --saboteurs] [-- --json] [-- --list]
 *
 * Runs the rows one after the other against a RabbitMQ and a Pulsar of its own, and prints the table of
 * docs/reliability.md. `--saboteurs` runs each row with a daemon that breaks the row's promise: red is right then.
 * Exit code 0 when every verdict is as it must be.
 */
import { parseArgs } from 'node:util'
import { makeBrokers } from './brokers.js'
import { rows } from './rows.js'
import { distFolder, sabotagedDist } from './sabotage.js'
import { heading, line, toCells } from './table.js'
import { faultsOf, isVoid, onlySlow } from './verdict.js'
import { runOnce } from './world.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { long: { type: 'boolean', default: false }, saboteurs: { type: 'boolean', default: false }, json: { type: 'boolean', default: false }, list: { type: 'boolean', default: false } },
})
const { long, saboteurs, json, list } = values
const voidRuns = 3
const slowRuns = 3
const brokenRuns = 2

const chosen = rows.filter(({ id }) => positionals.length === 0 || positionals.includes(id))
const stray = positionals.find((id) => !rows.some((row) => row.id === id))
if (stray !== undefined) throw new Error(`no row ${stray}; --list shows all`)

/**
 * A row's result and verdict. Done again: a void run; one that only missed a bar in time, as machines are shared; and,
 * once, one that could not be run to its end. Whatever else is wrong is wrong the first time.
 */
const runRow = async (row, brokers, dist, quick) => {
  const count = long ? row.counts.long : row.counts.short
  const began = Date.now()
  const lacking = row.needs?.()
  if (lacking !== undefined) return { row, count, verdict: 'skipped', wrong: [lacking] }
  for (let attempt = 1; ; attempt += 1) {
    try {
      const result = row.drive ? await row.drive(count, { long, dist }) : await runOnce(row, { brokers, dist, count, quick, long })
      result.seconds = Math.round((Date.now() - began) / 1000)
      const wrong = faultsOf(row, result)
      if (!quick && attempt < slowRuns && onlySlow(wrong)) {
        console.error(`${row.id}, run ${attempt}: ${wrong.join('; ')}; once more`)
        continue
      }
      if (wrong.length > 0) return { row, count, result, verdict: 'FAILED', wrong }
      if (result.skipped) return { row, count, result, verdict: 'skipped', wrong: [result.skipped] }
      if (!isVoid(result, count)) return { row, count, result, verdict: 'passed' }
      if (attempt === voidRuns) return { row, count, result, verdict: 'VOID' }
    } catch (error) {
      if (!quick && attempt < brokenRuns) {
        console.error(`${row.id}, run ${attempt}: ${error.message}; once more`)
        continue
      }
      return { row, count, result: { seconds: Math.round((Date.now() - began) / 1000) }, verdict: 'BROKEN', wrong: [error.message] }
    }
  }
}

const sabotaged = async (row, brokers) => {
  // Most break the daemon; one breaks the queue that the daemon finds.
  const copy = row.sabotage.file ? sabotagedDist(row.sabotage) : { dist: distFolder, remove: () => {} }
  try {
    const one = await runRow({ ...row, ...row.sabotage.row }, brokers, copy.dist, true)
    return { ...one, verdict: one.verdict === 'FAILED' ? 'caught' : `NOT CAUGHT (${one.verdict})`, wrong: [row.sabotage.name, ...(one.wrong ?? [])] }
  } finally {
    copy.remove()
  }
}

/** Those there are, started; new ones where a row has left them unable to start. */
const started = async (brokers) => {
  try {
    await brokers.start()
    return brokers
  } catch (error) {
    console.error(`${error.message}; with new brokers`)
    await brokers.dispose()
    const fresh = await makeBrokers()
    await fresh.start()
    return fresh
  }
}

const main = async () => {
  if (list) return chosen.forEach(({ id, fault, counts, bar }) => console.log(`${id}  ${fault} (${counts.short}, --long ${counts.long}): ${bar}`))
  const wanted = saboteurs ? chosen.filter(({ sabotage }) => sabotage !== undefined) : chosen
  const began = Date.now()
  let brokers = wanted.some(({ drive }) => drive === undefined) ? await makeBrokers() : undefined
  const results = []
  try {
    if (!json) console.log(heading())
    for (const row of wanted) {
      if (brokers) brokers = await started(brokers)
      const one = saboteurs ? await sabotaged(row, brokers) : await runRow(row, brokers, distFolder, false)
      results.push(one)
      if (!json) console.log(line(toCells(one)))
    }
  } finally {
    await brokers?.dispose()
  }
  const good = results.every(({ verdict }) => ['passed', 'caught', 'skipped'].includes(verdict))
  const seconds = Math.round((Date.now() - began) / 1000)
  if (json) console.log(JSON.stringify({ good, seconds, long, results: results.map(({ row, ...rest }) => ({ id: row.id, fault: row.fault, bar: row.bar, ...rest })) }, null, 2))
  else console.log(`\n${results.filter(({ verdict }) => verdict === 'passed' || verdict === 'caught').length} of ${results.length} ${saboteurs ? 'caught' : 'passed'} in ${seconds} s`)
  process.exitCode = good ? 0 : 1
}
// An exit by signal runs the handlers that end brokers, daemons and the sender.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130))
await main()
