/** What is outside and what is settled, from the oldest unsettled message up to the reader and beyond. */
import type { Segment } from './log-cursor.js'
import { addRun, missingIn, raiseOver, tidy } from './log-runs.js'
import type { Run } from './segment-record.js'

export interface Place {
  readonly seq: number
  readonly segment: Segment
  readonly at: number
}

interface Outside extends Run {
  settled: boolean
  readonly bytes: number
  readonly place?: Place
}

export interface Reach {
  /** Everything below is settled. */
  readonly floor: () => number
  readonly unsettled: () => number
  readonly unsettledBytes: () => number
  /** Settled, and not yet in a synced mark: after a crash these come again. */
  readonly unrecorded: () => number
  readonly isFull: () => boolean
  /** Whether the reader has to pass over this number. */
  readonly isSettled: (seq: number) => boolean
  /** How many of these numbers, which the reader has just met, nothing accounts for. */
  readonly missing: (run: Run) => number
  readonly give: (place: Place, bytes: number) => void
  /** Settles it; the bytes of the message, or undefined when it is not outside. */
  readonly remove: (seq: number) => number | undefined
  /** Where to read on from, so that all that is outside comes again; undefined when nothing is. */
  readonly rewind: () => Place | undefined
  /** Settled without having been given out. */
  readonly refuse: (run: Run) => void
  readonly purge: (run: Run) => void
  /** `expected` is the number that the reader meets next. */
  readonly raiseFloor: (expected: number) => void
  readonly runs: () => Run[]
  /** What the next mark tells: every run, or those since the last mark. */
  readonly toldBy: (complete: boolean) => Run[]
  readonly anythingToTell: () => boolean
  /** The last mark is synced. */
  readonly recorded: () => void
}

/** The most messages between the oldest unsettled and the newest given out. */
const REACH = 65_536

export const createReach = (found: { readonly floor: number; readonly runs: readonly Run[] }): Reach => {
  let { floor } = found
  /** Settled beyond the reader. */
  let ahead: readonly Run[] = found.runs
  /** From the oldest unsettled, at `head`, up to the reader. */
  let behind: Outside[] = []
  let head = 0
  const outside = new Map<number, Outside>()
  let outsideBytes = 0
  /** Settled since the last mark. */
  let fresh: Run[] = []
  let unrecorded = 0
  /** Of those, how many the last mark tells. */
  let told = 0

  const settledBehind = (): Run[] => behind.slice(head).filter(({ settled }) => settled)
  const raiseFloor: Reach['raiseFloor'] = (expected) => {
    while (head < behind.length && behind[head]!.settled) head += 1
    const oldest = behind[head]?.from
    floor = Math.max(floor, oldest ?? expected)
    if (oldest === undefined && ahead.length > 0) ({ floor, runs: ahead } = raiseOver(floor, ahead))
    if (head > 1024 && head * 2 > behind.length) {
      behind = behind.slice(head)
      head = 0
    }
  }
  const runs = (): Run[] => tidy([...settledBehind(), ...ahead], floor)

  return {
    floor: () => floor,
    unsettled: () => outside.size,
    unsettledBytes: () => outsideBytes,
    unrecorded: () => unrecorded,
    isFull: () => behind.length - head >= REACH,
    isSettled: (seq) => {
      let passed = 0
      while (passed < ahead.length && ahead[passed]!.to <= seq) behind.push({ ...ahead[passed++]!, settled: true, bytes: 0 })
      if (passed > 0) ahead = ahead.slice(passed)
      return seq < floor || (ahead.length > 0 && ahead[0]!.from <= seq)
    },
    missing: (run) => missingIn(run, ahead, floor),
    give: (place, bytes) => {
      const given: Outside = { from: place.seq, to: place.seq + 1, settled: false, bytes, place }
      behind.push(given)
      outside.set(place.seq, given)
      outsideBytes += bytes
    },
    remove: (seq) => {
      const given = outside.get(seq)
      if (given === undefined) return undefined
      outside.delete(seq)
      given.settled = true
      outsideBytes -= given.bytes
      addRun(fresh, seq, seq + 1)
      unrecorded += 1
      return given.bytes
    },
    rewind: () => {
      const oldest = behind.slice(head).find(({ settled }) => !settled)
      if (oldest === undefined) return undefined
      ahead = [...tidy(settledBehind(), floor), ...ahead]
      behind = []
      head = 0
      outside.clear()
      outsideBytes = 0
      return oldest.place
    },
    refuse: (run) => (ahead = tidy([...ahead, run], floor)),
    purge: ({ from: expected, to }) => {
      // The reader may have passed refused numbers, between two segments, that no message has told it of.
      const from = Math.min(expected, ahead[0]?.from ?? expected)
      if (to > from) {
        behind.push({ from, to, settled: true, bytes: 0 })
        addRun(fresh, from, to)
      }
      ahead = []
    },
    raiseFloor,
    runs,
    toldBy: (complete) => {
      const telling = complete ? runs() : tidy(fresh, floor)
      fresh = []
      told = unrecorded
      return telling
    },
    anythingToTell: () => fresh.length > 0,
    recorded: () => {
      unrecorded -= told
      told = 0
    },
  }
}
