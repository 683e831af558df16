import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { expect, it } from 'vitest'

/** The queue as it was built, on a real file system. */
const powerCuts = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['test/faults/power-cut/driver.js', ...args], { encoding: 'utf8', timeout: 3_600_000 })
  return { status, stdout, stderr }
}
const cuts = process.env.BACKHAUL_TEST_CUTS ?? '3'

it.skipIf(!existsSync('dist'))('a power cut loses nothing that was accepted and repeats no more than the window, and without syncing it does lose', ({ skip }) => {
  const run = powerCuts('--cuts', cuts)
  if (run.status === 77) return skip(run.stdout)
  expect(run, run.stderr).toMatchObject({ status: 0 })
  expect(powerCuts('--cuts', '1', '--control')).toMatchObject({ status: 0 })
}, 3_600_000)
