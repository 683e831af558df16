/** `npm run simulate -- --seed N --runs M --workers W`: see docs/simulator.md. */
import { fork } from 'node:child_process'
import { parseArgs } from 'node:util'
import { clock, install } from './clock.js'
import { describe, planOf } from './plan.js'
import { emptyTally, report, total } from './report.js'
import type { Tally } from './report.js'
import { shrink } from './shrink.js'
import { simulate, watchRejections } from './world.js'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string' },
    workers: { type: 'string', default: '1' },
    'keep-going': { type: 'boolean', default: false },
    quiet: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})
const print = (text: string): boolean => process.stdout.write(`${text}\n`)
const seed = Number(values.seed)
const runs = Number(values.runs ?? 1)
const workers = Number(values.workers)

/** One seed with everything that happens, twice: the second proves that the first can be had again. */
const replay = async (): Promise<boolean> => {
  const plan = planOf(seed)
  const result = await simulate(plan, values.quiet ? undefined : print)
  const again = await simulate(plan)
  if (values.json) return print(JSON.stringify({ seed, fingerprint: result.fingerprint, again: again.fingerprint, verdict: result.verdict })) && result.verdict === undefined
  print(`\nseed ${seed}, ${plan.middle}${plan.middle === 'rabbitmq' ? ` ${plan.rabbitVersion}` : ''}, window ${plan.window}, patience ${plan.patienceMs} ms`)
  for (const event of plan.events) print(`  ${describe(event)}`)
  print(`${result.records} records, ${result.repeats} repeats, ${result.starts} starts, ${(result.virtualMs / 1000).toFixed(1)} s`)
  print(`fingerprint ${result.fingerprint}${again.fingerprint === result.fingerprint ? ', the same again' : `, BUT ${again.fingerprint} the second time`}`)
  const { verdict } = result
  if (verdict === undefined) return print('everything holds')
  print(`\n${verdict.kind}: ${verdict.what}`)
  const short = await shrink(plan, async (smaller) => (await simulate(smaller)).verdict?.kind === verdict.kind)
  print(`\n${short.events.length} of ${plan.events.length} events do:`)
  for (const event of short.events) print(`  ${describe(event)}`)
  print(`  ${(await simulate(short)).verdict?.what}`)
  return false
}

const work = async (from: number, step: number, count: number, told: (tally: Tally) => void): Promise<void> => {
  let tally = emptyTally()
  for (let index = 0; index < count; index += 1) {
    const began = clock.realMs()
    total(tally, await simulate(planOf(from + index * step)), clock.realMs() - began)
    if (tally.runs >= 50 || tally.failures.length > 0 || index === count - 1) {
      told(tally)
      tally = emptyTally()
    }
  }
}

if (process.send !== undefined && process.env['SIMULATE_WORKER'] !== undefined) {
  const [from = 1, step = 1, count = 0] = process.env['SIMULATE_WORKER'].split(',').map(Number)
  install()
  watchRejections()
  await work(from, step, count, (tally) => process.send?.(tally))
  process.disconnect()
} else if (values.runs === undefined) {
  install()
  watchRejections()
  process.exitCode = (await replay()) ? 0 : 1
} else {
  const began = performance.now()
  const all = emptyTally()
  let printed = 0
  const children = Array.from({ length: workers }, (_, index) => {
    const count = Math.floor((runs - index + workers - 1) / workers)
    return fork(process.argv[1] as string, process.argv.slice(2), { env: { ...process.env, SIMULATE_WORKER: `${seed + index},${workers},${count}` } })
  })
  const ends = children.map(
    (child) =>
      new Promise<void>((resolve, reject) => {
        child.on('message', (tally: Tally) => {
          total(all, tally)
          const { failures } = tally
          for (const { seed: bad, kind, what } of failures) print(`seed ${bad}: ${kind}: ${what}`)
          if (!values.quiet && all.runs - printed >= 1000) {
            printed = all.runs
            print(`${all.runs} of ${runs} runs, ${all.failures.length} failed`)
          }
          if (all.failures.length > 0 && !values['keep-going']) for (const one of children) one.kill()
        })
        child.on('exit', (code, signal) => {
          // Ended by us, for another one has found something.
          const ours = signal !== null && all.failures.length > 0
          if (code === 0 || ours) resolve()
          else reject(new Error(`a worker ended with ${code ?? signal}`))
        })
      }),
  )
  await Promise.all(ends)
  report(all, performance.now() - began).forEach(print)
  if (all.failures.length > 0) print(`replay: npm run simulate -- --seed ${Math.min(...all.failures.map((one) => one.seed))}`)
  process.exitCode = all.failures.length === 0 && all.runs === runs ? 0 : 1
}
