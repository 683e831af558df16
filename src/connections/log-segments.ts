/** The files of a log, oldest first: one grows, and the oldest go once they are not needed. */
import { join } from 'node:path'
import type { Segment } from './log-cursor.js'
import { attempt, codeOf, isDiskFull, PAGE_BYTES, placeFile, readAround, writeAll, type LogFileSystem } from './log-files.js'
import { createRecentBatches, type Recent } from './log-recent.js'
import type { Recovered } from './log-recovery.js'
import { encodeSegmentHeader, MARK, RECORD_HEADER_BYTES, sealOf, SEGMENT_HEADER_BYTES, writeRecord } from './segment-record.js'

export interface Segments {
  readonly all: () => readonly Segment[]
  readonly active: () => Segment | undefined
  readonly usedBytes: () => number
  /** The number of the next message; never one that may have been used. */
  readonly nextSeq: () => number
  readonly spend: (to: number) => void
  /** To write the next batch into, for `append`. */
  readonly buffer: (size: number) => Buffer
  /** What was written last, as long as it is in memory. */
  readonly recall: (segment: Segment, offset: number) => Recent | undefined
  /** A new file, which starts with a complete mark and is there as a whole or not at all. */
  readonly begin: (mark: Buffer) => Promise<Segment>
  /**
   * One write and one sync at the end of the growing file. Readable only after `grow`.
   *
   * **Fails** with `WriteFailed`; unless that says `undone`, the file is closed for good: what
   * of the bytes is on the disk nobody knows, and a later sync of it could lie.
   */
  readonly append: (image: Buffer) => Promise<void>
  readonly grow: (image: Buffer) => void
  /** Whether the growing file is still where it was put, and whole; true when none grows. */
  readonly isThere: () => boolean
  /**
   * Writes the growing file anew under its name, from what is open and what is in memory, and
   * retires it. **Fails** when that cannot be done: then it goes on growing.
   */
  readonly mend: () => Promise<void>
  readonly retire: () => Promise<void>
  /** Deletes what a synced floor has left behind. Damaged files are kept aside, the last few. */
  readonly trim: (floor: number, leave: (segment: Segment) => void) => Promise<void>
}

export class WriteFailed extends Error {
  override readonly name = 'WriteFailed'
  constructor(
    readonly during: 'write' | 'sync',
    readonly undone: boolean,
    options: ErrorOptions,
  ) {
    super(`${during} failed`, options)
  }
}

const KEEP_DAMAGED = 4
const DAMAGED = /\.damaged$/

export const createSegments = (fs: LogFileSystem, folder: string, found: Recovered): Segments => {
  const segments = [...found.segments]
  let { nextSeq } = found
  let active: Segment | undefined
  let usedBytes = 0
  const recent = createRecentBatches()

  const measure = (): void => {
    usedBytes = segments.reduce((sum, { length }) => sum + Math.max(length, PAGE_BYTES), 0)
  }
  measure()

  const retire = async (): Promise<void> => {
    const old = active
    active = undefined
    const file = old?.file
    if (old !== undefined) old.file = undefined
    if (file !== undefined) await attempt(file.close())
  }

  const begin: Segments['begin'] = async (mark) => {
    const first = nextSeq
    const seal = sealOf(found.salt, first)
    const image = Buffer.concat([encodeSegmentHeader(found.salt), Buffer.alloc(RECORD_HEADER_BYTES + mark.length)])
    writeRecord(image, SEGMENT_HEADER_BYTES, seal, MARK, first, mark)
    const path = join(folder, `${String(first).padStart(16, '0')}.log`)
    const file = await placeFile(fs, folder, path, image)
    const segment: Segment = { first, path, seal, length: image.length, verified: 0, damaged: false, next: undefined, file }
    const before = segments.at(-1)
    if (before?.first === first) {
      // Same name: the older one had no messages, and its file has just been replaced.
      before.length = 0
      before.next = segment
      segments.pop()
    }
    const older = segments.at(-1)
    if (older !== undefined) older.next = segment
    segments.push(segment)
    active = segment
    measure()
    return segment
  }

  const append: Segments['append'] = async (image) => {
    const segment = active!
    const file = segment.file!
    let during: 'write' | 'sync' = 'write'
    try {
      await writeAll(file, image, segment.length)
      during = 'sync'
      await file.sync()
    } catch (error) {
      recent.free(image)
      const cut = await attempt(file.truncate(segment.length))
      const undone = cut && during === 'write' && isDiskFull(error)
      if (!undone) await retire()
      throw new WriteFailed(during, undone, { cause: error })
    }
  }

  const grow = (image: Buffer): void => {
    const segment = active!
    recent.keep(segment, segment.length, image)
    segment.length += image.length
    measure()
  }

  const isThere: Segments['isThere'] = () => active === undefined || active.file!.isAt(active.path, active.length)

  const mend: Segments['mend'] = async () => {
    const { path, length, file } = active!
    const image = Buffer.alloc(length)
    await readAround(file!, image, 0)
    for (const { at, bytes } of recent.of(active!)) bytes.copy(image, at)
    await (await placeFile(fs, folder, path, image)).close()
    await retire()
  }

  const dropOldDamage = async (): Promise<void> => {
    const aside = (await fs.list(folder).catch(() => [])).filter((name) => DAMAGED.test(name)).sort()
    for (const name of aside.slice(0, -KEEP_DAMAGED)) await attempt(fs.remove(join(folder, name)))
  }

  const trim: Segments['trim'] = async (floor, leave) => {
    for (let old = segments[0]; old !== undefined && old !== active; old = segments[0]) {
      if (segments[1] === undefined || segments[1].first > floor) break
      leave(old)
      const gone = old.damaged ? fs.rename(old.path, `${old.path}.damaged`) : fs.remove(old.path)
      // What cannot be deleted now is tried again with the next batch, and at the next start.
      if (!(await gone.then(() => true, (error: unknown) => codeOf(error) === 'ENOENT'))) break
      segments.shift()
      recent.forget(old)
      if (old.damaged) await dropOldDamage()
    }
    measure()
  }

  return {
    all: () => segments,
    active: () => active,
    usedBytes: () => usedBytes,
    nextSeq: () => nextSeq,
    spend: (to) => (nextSeq = Math.max(nextSeq, to)),
    buffer: recent.buffer,
    recall: recent.find,
    begin,
    append,
    grow,
    isThere,
    mend,
    retire,
    trim,
  }
}
