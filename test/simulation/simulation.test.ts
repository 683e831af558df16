import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))
const node = (...args: readonly string[]): Promise<{ stdout: string }> => run(process.execPath, args, { cwd: root })
const limitMs = 600_000

/** In processes of their own, for a simulator puts virtual time in the place of the real one. */
const simulate = async (...args: readonly string[]): Promise<string> => {
  const { stdout } = await node('.simulate/test/simulation/main.js', '--quiet', ...args)
  return stdout
}

beforeAll(() => node('node_modules/typescript/bin/tsc', '-p', 'tsconfig.simulate.json'), limitMs)

describe('the simulator', () => {
  it(
    'repeats a seed to the last thing that happened, within a process and in another',
    async () => {
      const seeds = ['11', '12', '13']
      const fingerprints = async (): Promise<readonly string[]> => {
        const lines = await Promise.all(seeds.map((seed) => simulate('--seed', seed, '--json')))
        return lines.flatMap((line) => {
          const { fingerprint, again } = JSON.parse(line) as { fingerprint: string; again: string }
          return [fingerprint, again]
        })
      }
      const first = await fingerprints()
      expect(new Set(first).size).toBe(seeds.length)
      expect(await fingerprints()).toEqual(first)
    },
    limitMs,
  )
  it(
    'finds three hundred runs in order, and faults that hit something in flight',
    async () => {
      const report = await simulate('--seed', '1', '--runs', '300', '--workers', '2')
      expect(report).toContain('300 runs, 0 failed')
      for (const kind of ['crash', 'power-cut', 'rabbitmq-kill', 'pulsar-kill', 'disk-bad-syncs'])
        expect(Number(new RegExp(`${kind} +\\d+ +(\\d+)`).exec(report)?.[1])).toBeGreaterThan(0)
    },
    limitMs,
  )
  it(
    'notices a promise that is broken',
    async () => {
      const { stdout } = await node('.simulate/test/simulation/teeth.js', 'settle before the confirm')
      expect(stdout).toMatch(/settle before the confirm +run/)
    },
    limitMs,
  )
})
