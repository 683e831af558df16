/** What is pending, and what went missing. */
import type { Damage } from './log-cursor.js'
import type { QueueStats } from './queue-engine.js'
import { RECORD_HEADER_BYTES } from './segment-record.js'

type Counted = Pick<QueueStats, 'depth' | 'bytes' | 'damagedRecords' | 'damagedBytes' | 'lostMessages'>

export interface Tally {
  readonly counts: () => Counted
  readonly add: (messages: number, bytes: number) => void
  readonly remove: (bytes: number) => void
  /** Exact, whatever damage has made of the counts. */
  readonly correct: (messages: number, bytes: number) => void
  /** Once for each place, however often it is read. `missing` says how many of the lost numbers were pending. */
  readonly damage: (damage: Damage, missing: number) => void
}

export const createTally = (found: Counted): Tally => {
  let { depth, bytes, damagedRecords, damagedBytes, lostMessages } = found
  /** Numbers below this that are missing between two segments have been counted. */
  let gapsCounted = 0

  return {
    counts: () => ({ depth, bytes, damagedRecords, damagedBytes, lostMessages }),
    add: (messages, added) => {
      depth += messages
      bytes += added
    },
    remove: (removed) => {
      depth -= 1
      bytes -= removed
    },
    correct: (messages, all) => {
      depth = messages
      bytes = all
    },
    damage: ({ segment, from, to, lost }, missing) => {
      const broken = to - from
      if (broken > 0 ? to <= segment.verified : lost.to <= gapsCounted || missing === 0) return
      if (broken > 0) {
        segment.verified = to
        segment.damaged = true
      } else gapsCounted = lost.to
      damagedRecords += 1
      damagedBytes += broken
      lostMessages += missing
      depth = Math.max(0, depth - missing)
      if (missing > 0) bytes = Math.max(0, bytes - Math.max(0, broken - missing * RECORD_HEADER_BYTES))
    },
  }
}
