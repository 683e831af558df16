/**
 * What was written last, for a reader close behind who then need not fetch it from the disk;
 * and the buffers that it lies in, which are used over and over: fresh ones for each batch
 * would be garbage that the collector is slow to notice.
 */
import type { Segment } from './log-cursor.js'

/** Bytes of a segment in memory; what is in them was checked when it was written. */
export interface Recent {
  readonly segment: Segment
  readonly at: number
  readonly bytes: Buffer
  /** No longer: something else is in this memory. */
  gone: boolean
}

export interface RecentBatches {
  /** To write a batch into; it is the caller's until `keep` or `free`. */
  readonly buffer: (size: number) => Buffer
  readonly free: (bytes: Buffer) => void
  readonly keep: (segment: Segment, at: number, bytes: Buffer) => void
  readonly find: (segment: Segment, offset: number) => Recent | undefined
  /** All that is left of a segment. */
  readonly of: (segment: Segment) => readonly Recent[]
  readonly forget: (segment: Segment) => void
}

const KEEP_BYTES = 4 * 1024 * 1024
const STEP_BYTES = 64 * 1024

export const createRecentBatches = (): RecentBatches => {
  let kept: Recent[] = []
  let keptBytes = 0
  const spare: ArrayBuffer[] = []

  const free: RecentBatches['free'] = ({ buffer }) => {
    // Rather few than many: a batch of unusual size takes its memory with it.
    if (spare.length < 4 && buffer.byteLength <= KEEP_BYTES / 4) spare.push(buffer as ArrayBuffer)
  }
  const drop = (old: Recent): void => {
    old.gone = true
    keptBytes -= old.bytes.buffer.byteLength
    free(old.bytes)
  }

  return {
    buffer: (size) => {
      const fits = spare.findIndex(({ byteLength }) => byteLength >= size)
      if (fits >= 0) return Buffer.from(spare.splice(fits, 1)[0]!, 0, size)
      return Buffer.from(new ArrayBuffer(Math.ceil(size / STEP_BYTES) * STEP_BYTES), 0, size)
    },
    free,
    keep: (segment, at, bytes) => {
      kept.push({ segment, at, bytes, gone: false })
      keptBytes += bytes.buffer.byteLength
      while (kept.length > 1 && keptBytes > KEEP_BYTES) drop(kept.shift()!)
    },
    find: (segment, offset) => kept.find((some) => some.segment === segment && some.at <= offset && offset < some.at + some.bytes.length),
    of: (segment) => kept.filter((some) => some.segment === segment),
    forget: (segment) => {
      for (const some of kept) if (some.segment === segment) drop(some)
      kept = kept.filter(({ gone }) => !gone)
    },
  }
}
