/** Rows of the embedded queue: drivers that have ledgers of their own, and are tests too. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const node = async (args, env = {}) => {
  const child = spawn(process.execPath, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data))
  const [code] = await once(child, 'close')
  return { code, output }
}

/**
 * The test itself asserts the bars, and that the fault struck: green or red is all that is known here, and what it
 * printed. So there are no figures to show.
 */
const byTest = (file, variable) => async (count) => {
  const { code, output } = await node(['node_modules/vitest/vitest.mjs', 'run', file], { [variable]: `${count}` })
  if (code !== 0) throw new Error(output.slice(-1500))
  return {}
}

const powerCuts = async (count) => {
  const cut = await node(['test/faults/power-cut/driver.js', '--cuts', `${count}`])
  if (cut.code === 77) return { skipped: cut.output.trim(), bites: 0 }
  const control = await node(['test/faults/power-cut/driver.js', '--cuts', '1', '--control'])
  if (control.code !== 0) throw new Error(`without syncing nothing was lost either: ${control.output.slice(-500)}`)
  const { accepted, due, lost } = JSON.parse(cut.output.trim().split('\n').at(-1))
  return { accepted, lost, bites: due > 0 ? count : 0, controlLost: JSON.parse(control.output.trim().split('\n').at(-1)).lost }
}

/** @type {readonly import('./rows.js').Row[]} */
export const drivers = [
  { id: 'R06m', fault: 'embedded queue: the process ends, or the power, in the middle of any file call (a disk in memory)', counts: { short: 100, long: 2000 }, bar: '0 lost, 0 failed starts, at most the window repeated', drive: byTest('test/faults/crashes.test.ts', 'BACKHAUL_TEST_CRASHES') },
  { id: 'R01e', fault: 'embedded queue: kill -9', counts: { short: 5, long: 300 }, bar: '0 lost, at most the window repeated', drive: byTest('test/faults/kill.test.ts', 'BACKHAUL_TEST_KILLS') },
  { id: 'R11', fault: 'embedded queue: power cut, ext4 image', counts: { short: 3, long: 200 }, bar: '0 lost; without syncing it loses', drive: powerCuts },
  { id: 'R15', fault: 'embedded queue: one flipped bit anywhere', counts: { short: 400, long: 10_000 }, bar: '0 corrupt, at most the message that was hit, each counted', drive: byTest('test/faults/bit-flips.test.ts', 'BACKHAUL_TEST_FLIPS') },
]
