/** Figures of many runs. */
import type { Result } from './world.js'

/** Travels between processes, so plain data. */
export interface Tally {
  runs: number
  virtualMs: number
  cpuMs: number
  events: number
  records: number
  repeats: number
  frames: number
  starts: number
  readonly strikes: Record<string, { struck: number; bit: number }>
  readonly failures: { readonly seed: number; readonly kind: string; readonly what: string }[]
}

export const emptyTally = (): Tally => ({ runs: 0, virtualMs: 0, cpuMs: 0, events: 0, records: 0, repeats: 0, frames: 0, starts: 0, strikes: {}, failures: [] })

/** Adds a run, or what another process has added up. */
export const total = (into: Tally, more: Result | Tally, cpuMs = 0): void => {
  const one = 'seed' in more
  into.runs += one ? 1 : more.runs
  into.cpuMs += one ? cpuMs : more.cpuMs
  for (const name of ['virtualMs', 'events', 'records', 'repeats', 'frames', 'starts'] as const) into[name] += more[name]
  for (const [kind, { struck, bit }] of one ? more.strikes : Object.entries(more.strikes)) {
    const sum = (into.strikes[kind] ??= { struck: 0, bit: 0 })
    sum.struck += struck
    sum.bit += bit
  }
  if (!one) into.failures.push(...more.failures)
  else if (more.verdict !== undefined) into.failures.push({ seed: more.seed, ...more.verdict })
}

const dayMs = 86_400_000

export const report = (tally: Tally, realMs: number): readonly string[] => {
  const { runs, virtualMs, cpuMs, events, records, repeats, frames, starts, strikes, failures } = tally
  const ratio = virtualMs / realMs
  return [
    '',
    `${runs} runs, ${failures.length} failed`,
    `${(virtualMs / dayMs).toFixed(2)} device-days in ${(realMs / 1000).toFixed(1)} s: ${Math.round(ratio)} times real time, ${Math.round((ratio * 3_600_000) / dayMs)} device-days an hour`,
    `${(cpuMs / runs).toFixed(1)} ms a run; ${events} events, ${records} records, ${repeats} repeats, ${frames} frames to clients, ${starts} starts of the process`,
    'faults that struck, and those that found something in flight:',
    ...Object.entries(strikes)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([kind, { struck, bit }]) => `  ${kind.padEnd(24)}${String(struck).padStart(8)}${String(bit).padStart(8)}`),
  ]
}
