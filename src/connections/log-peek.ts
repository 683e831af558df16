/** A look at what is pending, past the road: for people. */
import { createCursor, walk, type Segment } from './log-cursor.js'
import type { LogFileSystem } from './log-files.js'
import { entryOf } from './log-reader.js'
import type { Entry } from './queue-engine.js'
import { MESSAGE, SEGMENT_HEADER_BYTES, type Run } from './segment-record.js'

/** An answer is at most this long, one entry excepted. */
const MAX_BYTES = 8 * 1024 * 1024

/** Up to `max` entries, and 8 MiB, from a number on that are in none of the settled runs. Counts no damage: the reader does. */
export const peekInto = async (
  fs: LogFileSystem,
  segments: readonly Segment[],
  { floor, runs }: { readonly floor: number; readonly runs: readonly Run[] },
  from: number,
  max: number,
): Promise<readonly Entry[]> => {
  const entries: Entry[] = []
  const wanted = Math.max(from, floor)
  const origin = segments.findLast(({ first }) => first <= wanted) ?? segments[0]
  if (origin === undefined || max <= 0) return entries
  const settled = [...runs]
  let bytes = 0
  const cursor = createCursor(fs, () => undefined, () => undefined)
  cursor.seek(origin, SEGMENT_HEADER_BYTES, origin.first)
  try {
    await walk(cursor, ({ kind, seq, body, headers }) => {
      if (kind !== MESSAGE || seq < wanted) return true
      while (settled.length > 0 && settled[0]!.to <= seq) settled.shift()
      if (settled.length === 0 || settled[0]!.from > seq) {
        entries.push(entryOf(seq, body, headers))
        bytes += body.length + headers.length
      }
      return entries.length < max && bytes < MAX_BYTES
    })
  } finally {
    await cursor.close()
  }
  return entries
}
