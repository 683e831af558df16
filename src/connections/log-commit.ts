/** One batch on its way to the disk: messages, then a mark that tells what was settled by then. */
import type { Settlements } from './log-reader.js'
import { WriteFailed, type Segments } from './log-segments.js'
import { QueueFailed, type QueueStats } from './queue-engine.js'
import { encodeMark, LAST_SEQ, MARK, MESSAGE, RECORD_HEADER_BYTES, writeRecord, type Seal } from './segment-record.js'

export interface Appending {
  readonly body: Uint8Array
  readonly headers: Uint8Array
  /** As a record. */
  readonly bytes: number
}

export interface Commits {
  /**
   * One write and one sync for a batch, which may be empty, and its mark. `kept` hears the
   * first number once that is done, and before any of it can be read.
   *
   * **Fails** when nothing of it is kept. The next mark then tells everything anew, in a new
   * segment unless the write could be undone.
   */
  readonly commit: (batch: readonly Appending[], kept: (first: number) => void) => Promise<void>
  /** A new segment, unless there is one. */
  readonly begin: () => Promise<void>
  /** Whether there is something for a mark to tell. */
  readonly due: () => boolean
  /** The next mark has to tell everything. */
  readonly retell: () => void
  /** Looks after the growing file: one that somebody has removed, replaced or shortened is written anew. **Fails** when that cannot be done. */
  readonly look: () => Promise<void>
  readonly counts: () => Pick<QueueStats, 'writeErrors' | 'syncErrors' | 'lostFiles'>
}

const fill = (image: Buffer, batch: readonly Appending[], mark: Buffer, seal: Seal, first: number): void => {
  let at = 0
  let seq = first
  for (const { body, headers } of batch) at = writeRecord(image, at, seal, MESSAGE, seq++, body, headers)
  writeRecord(image, at, seal, MARK, seq, mark)
}

export const createCommits = (segments: Segments, settlements: Settlements, segmentBytes: number): Commits => {
  let writeErrors = 0
  let syncErrors = 0
  let lostFiles = 0
  /** The growing file is lost, has been counted, and could not be mended yet. */
  let lost = false
  /** The next mark must tell all, since an earlier one may be lost. */
  let complete = false

  const begin = async (): Promise<void> => {
    if (segments.active() !== undefined) return
    const mark = settlements.mark(true, 0, 0)
    complete = true
    try {
      settlements.begun(await segments.begin(encodeMark(mark)))
    } catch (error) {
      settlements.marked(false)
      writeErrors += 1
      throw error
    }
    settlements.marked(true)
    complete = false
    await segments.trim(mark.floor, settlements.leave)
  }

  const look: Commits['look'] = async () => {
    if (segments.isThere()) return void (lost = false)
    if (!lost) lostFiles += 1
    lost = true
    try {
      if (settlements.drained()) await segments.retire()
      else await segments.mend()
    } catch (error) {
      settlements.marked(false)
      writeErrors += 1
      throw error
    }
    lost = false
    complete = true
  }

  /** Leaves a segment that is long enough, or drained: then a small one takes its place. */
  const rotate = async (size: number): Promise<void> => {
    const active = segments.active()
    if (active === undefined) return
    const drained = settlements.drained() && active.length >= segmentBytes / 4
    const long = active.length + size > segmentBytes && segments.nextSeq() > active.first
    if (drained || long) await segments.retire()
  }

  const failed = (error: unknown, to: number): void => {
    complete = true
    settlements.marked(false)
    if (!(error instanceof WriteFailed)) return
    if (error.during === 'write') writeErrors += 1
    else syncErrors += 1
    if (error.undone) return
    // Nobody knows what of it is on the disk: these numbers are spent, and the next mark says so.
    settlements.refused(segments.nextSeq(), to)
    segments.spend(to)
  }

  const commit: Commits['commit'] = async (batch, kept) => {
    await look()
    const size = batch.reduce((sum, { bytes }) => sum + bytes, 0)
    await rotate(size)
    await begin()
    if (segments.nextSeq() + batch.length > LAST_SEQ && batch.length > 0) {
      throw new QueueFailed('BACKHAUL_QUEUE_IO', 'the embedded queue has used up its numbers: let it drain, then give it a new folder')
    }
    if (batch.length === 0 && !complete && !settlements.unmarked()) return
    const payload = size - batch.length * RECORD_HEADER_BYTES
    const mark = settlements.mark(complete, batch.length, payload)
    const told = encodeMark(mark)
    const first = segments.nextSeq()
    const image = segments.buffer(size + RECORD_HEADER_BYTES + told.length)
    fill(image, batch, told, segments.active()!.seal, first)
    try {
      await segments.append(image)
    } catch (error) {
      failed(error, first + batch.length)
      throw error
    }
    complete = false
    settlements.marked(true)
    segments.spend(first + batch.length)
    settlements.appended(batch.length, payload)
    kept(first)
    segments.grow(image)
    await segments.trim(mark.floor, settlements.leave)
  }

  return {
    commit,
    begin,
    due: () => complete || settlements.unmarked(),
    retell: () => (complete = true),
    look,
    counts: () => ({ writeErrors, syncErrors, lostFiles }),
  }
}
