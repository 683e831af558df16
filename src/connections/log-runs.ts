/** Sets of sequence numbers, kept as runs. */
import type { Run } from './segment-record.js'

/** Grows the last run or adds one. */
export const addRun = (runs: Run[], from: number, to: number): void => {
  const last = runs.at(-1)
  if (last !== undefined && last.to === from) runs[runs.length - 1] = { from: last.from, to }
  else if (to > from) runs.push({ from, to })
}

/** Sorted and joined, without what lies below the floor. */
export const tidy = (runs: readonly Run[], floor: number): Run[] => {
  const out: Run[] = []
  for (const { from, to } of runs.filter((run) => run.to > floor).sort((a, b) => a.from - b.from)) {
    const last = out.at(-1)
    if (last !== undefined && from <= last.to) out[out.length - 1] = { from: last.from, to: Math.max(last.to, to) }
    else out.push({ from, to })
  }
  return out
}

/** How many of the numbers in `run` are at or above the floor and in none of the tidy `runs`. */
export const missingIn = ({ from, to }: Run, runs: readonly Run[], floor: number): number => {
  const start = Math.max(from, floor)
  const covered = runs.reduce((sum, run) => sum + Math.max(0, Math.min(run.to, to) - Math.max(run.from, start)), 0)
  return Math.max(0, to - start - covered)
}

/** A floor that settled runs begin at goes up over them. */
export const raiseOver = (floor: number, runs: readonly Run[]): { readonly floor: number; readonly runs: readonly Run[] } => {
  let passed = 0
  let to = floor
  while (passed < runs.length && runs[passed]!.from <= to) to = Math.max(to, runs[passed++]!.to)
  return { floor: to, runs: passed === 0 ? runs : runs.slice(passed) }
}
