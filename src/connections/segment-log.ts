/**
 * The embedded queue: an append-only log in segments.
 *
 * A batch is some messages and a *mark*, one write and one sync. The mark tells the floor
 * (everything below is settled), what is settled above it, and the depth. Each segment
 * starts with a complete mark, so opening reads the newest segment only, and a settlement
 * never needs anything older than its own segment: segments are deleted from the oldest on,
 * as soon as a synced mark has a floor above their last message. Losing a mark, or a
 * deleted segment that comes back after a power cut, repeats messages and never loses one.
 *
 * Opening always begins a new segment, and so does a failed sync: a file that failed once is
 * never synced again. The refused messages are then a settled run in the new segment's mark.
 * If no new segment can be made either, and the power fails before one can, they may come
 * back: repeated by a caller who was told to send them again.
 *
 * Within a segment numbers follow each other without a hole; only a refused batch and a torn
 * tail leave one, always between two segments.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom, Observable, type Subscriber } from 'rxjs'
import { lockFolder, type Lock } from './folder-lock.js'
import { QueueFailed, QueueFull, type Entry, type QueueEngine } from './queue-engine.js'
import {
  claimedBytes,
  decodeMark,
  decodeSegmentHeader,
  encodeMark,
  encodeSegmentHeader,
  findRecord,
  FORMAT_VERSION,
  MARK,
  MAX_HEADERS_BYTES,
  MESSAGE,
  readRecord,
  RECORD_HEADER_BYTES,
  SALT_BYTES,
  sealOf,
  SEGMENT_HEADER_BYTES,
  writeRecord,
  type Run,
  type Seal,
  type StoredRecord,
} from './segment-record.js'

/** An open file, as far as the log needs one. */
export interface LogFile {
  readonly read: (into: Buffer, position: number) => Promise<number>
  readonly write: (bytes: Buffer, position: number) => Promise<number>
  readonly sync: () => Promise<void>
  readonly truncate: (length: number) => Promise<void>
  readonly size: () => Promise<number>
  readonly close: () => Promise<void>
}

/** The disk, so that a test can fail it. Files are made with mode 0600, folders with 0700. */
export interface LogFileSystem {
  /** `create` empties what is there. */
  readonly open: (path: string, how: 'read' | 'write' | 'create') => Promise<LogFile>
  readonly makeFolder: (path: string) => Promise<void>
  readonly list: (path: string) => Promise<readonly string[]>
  readonly rename: (from: string, to: string) => Promise<void>
  readonly remove: (path: string) => Promise<void>
  readonly syncFolder: (path: string) => Promise<void>
}

const FLAGS = { read: 'r', write: 'r+', create: 'w+' } as const

export const nodeFileSystem: LogFileSystem = {
  open: async (path, how) => {
    const file = await open(path, FLAGS[how], 0o600)
    return {
      read: async (into, position) => (await file.read(into, 0, into.length, position)).bytesRead,
      write: async (bytes, position) => (await file.write(bytes, 0, bytes.length, position)).bytesWritten,
      sync: () => file.datasync(),
      truncate: (length) => file.truncate(length),
      size: async () => (await file.stat()).size,
      close: () => file.close(),
    }
  },
  makeFolder: async (path) => void (await mkdir(path, { recursive: true, mode: 0o700 })),
  list: (path) => readdir(path),
  rename,
  remove: unlink,
  syncFolder: async (path) => {
    // Windows cannot open a folder, and needs no sync of it.
    if (process.platform === 'win32') return
    const folder = await open(path, 'r')
    await folder.sync().finally(() => folder.close())
  },
}

export interface SegmentLogOptions {
  /** On disk, with everything; an append beyond it is refused. At least 64 KiB. */
  readonly maxBytes: number
  /** A new file after so many bytes; at most a quarter of `maxBytes`. @default 16 MiB */
  readonly segmentBytes?: number
  /** The longest a settlement waits for an append's sync before it gets its own. @default 25 */
  readonly settleMs?: number
  /** Set aside so that settlements still fit on a full disk. @default 256 KiB */
  readonly reserveBytes?: number
  /** Named to whoever finds the folder in use. */
  readonly httpAddress?: string
  readonly fs?: LogFileSystem
  /** Keeps other processes out of the folder. @default lockFolder */
  readonly lock?: typeof lockFolder
}

const READ_BYTES = 256 * 1024
const BATCH_BYTES = 1024 * 1024
const TAIL_BYTES = 4 * 1024 * 1024
const PAGE_BYTES = 4096
const REACH = 65_536
const RETRY_MS = 1000
const KEEP_DAMAGED = 4
/** More messages than a segment holds. */
const DESTROYED_GAP = 1 << 20
const SEGMENT = /^(\d{16})\.log$/
const DAMAGED = /\.damaged$/

interface Segment {
  readonly first: number
  readonly path: string
  readonly seal: Seal
  /** Synced, and so readable. */
  length: number
  /** Damage before this offset has been counted. */
  verified: number
  damaged: boolean
  next: Segment | undefined
}

interface Damage {
  readonly segment: Segment
  readonly from: number
  readonly to: number
  /** The numbers that went missing. */
  readonly lost: Run
}

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const attempt = (work: Promise<unknown>): Promise<boolean> => work.then(() => true, () => false)
const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code
const isFull = (error: unknown): boolean => ['ENOSPC', 'EDQUOT'].includes(codeOf(error) ?? '')

const writeAll = async (file: LogFile, bytes: Buffer, position: number): Promise<void> => {
  for (let done = 0; done < bytes.length; ) {
    const written = await file.write(bytes.subarray(done), position + done)
    if (written === 0) throw Object.assign(new Error('nothing was written'), { code: 'EIO' })
    done += written
  }
}

const readUpTo = async (file: LogFile, into: Buffer, position: number): Promise<number> => {
  let done = 0
  while (done < into.length) {
    const got = await file.read(into.subarray(done), position + done)
    if (got === 0) break
    done += got
  }
  return done
}

/** Steps around pages that the disk cannot read: they stay zero, and count as damage. Fails when no page can be read. */
const readAround = async (file: LogFile, into: Buffer, position: number): Promise<void> => {
  into.fill(0)
  let failed: unknown
  let good = 0
  for (let at = 0, next = 0; at < into.length; at = next) {
    next = at + PAGE_BYTES - ((position + at) % PAGE_BYTES)
    const page = into.subarray(at, next)
    try {
      await readUpTo(file, page, position + at)
      good += 1
    } catch (error) {
      failed = error
      page.fill(0)
    }
  }
  if (good === 0) throw failed
}

/** Walks the records of one segment after the other, in order, stepping around damage. */
const createCursor = (
  fs: LogFileSystem,
  recall: (segment: Segment, offset: number) => { readonly at: number; readonly bytes: Buffer } | undefined,
  onDamage: (damage: Damage) => void,
) => {
  let segment: Segment | undefined
  let offset = 0
  let expected = 0
  let want = READ_BYTES
  let chunk: { segment: Segment; at: number; bytes: Buffer; verify: boolean } | undefined
  let file: { segment: Segment; handle: LogFile } | undefined

  const seek = (to: Segment, at: number, seq: number): void => {
    segment = to
    offset = at
    expected = seq
  }
  const covers = (): boolean =>
    chunk !== undefined && chunk.segment === segment && chunk.at <= offset && offset < chunk.at + chunk.bytes.length

  /** The next record; `load` when its bytes are not here yet; `end` when no synced one follows. */
  const step = (): StoredRecord | 'load' | 'end' => {
    for (;;) {
      if (segment === undefined) return 'end'
      if (offset >= segment.length) {
        if (segment.next === undefined) return 'end'
        seek(segment.next, SEGMENT_HEADER_BYTES, segment.next.first)
        continue
      }
      if (!covers()) {
        const recent = recall(segment, offset)
        if (recent === undefined) return 'load'
        chunk = { segment, ...recent, verify: false }
      }
      const { at, bytes, verify } = chunk!
      const limit = segment.length - at
      const record = readRecord(bytes, offset - at, limit, segment.seal, verify)
      if (record === 'short') {
        want = Math.max(READ_BYTES, claimedBytes(bytes, offset - at))
        chunk = undefined
        return 'load'
      }
      if (record !== 'bad' && record.seq === expected) {
        offset = at + record.end
        if (record.kind === MESSAGE) expected += 1
        return record
      }
      if (at + bytes.length < segment.length) {
        want = segment.length - offset
        chunk = undefined
        return 'load'
      }
      const found = findRecord(bytes, offset - at + 1, segment.seal, expected)
      const to = found === undefined ? segment.length : at + found.at
      const next = found?.seq ?? segment.next?.first ?? expected
      onDamage({ segment, from: offset, to, lost: { from: expected, to: Math.max(expected, next) } })
      seek(segment, to, Math.max(expected, next))
    }
  }

  const load = async (): Promise<void> => {
    if (segment === undefined) return
    const from = segment
    const at = offset
    const bytes = Buffer.allocUnsafe(Math.min(want, from.length - at))
    want = READ_BYTES
    if (file?.segment !== from) {
      await close()
      file = { segment: from, handle: await fs.open(from.path, 'read') }
    }
    const { handle } = file
    let got = bytes.length
    try {
      got = await readUpTo(handle, bytes, at)
    } catch {
      await readAround(handle, bytes, at)
    }
    // What the file lost behind our back is damage too, not a reason to wait for ever.
    bytes.fill(0, got)
    chunk = { segment: from, at, bytes, verify: true }
  }

  const close = async (): Promise<void> => {
    const old = file
    file = undefined
    if (old !== undefined) await attempt(old.handle.close())
  }

  return {
    step,
    load,
    seek,
    close,
    segment: () => segment,
    offset: () => offset,
    /** The number that the next message will have, as far as one can tell from here. */
    expected: () => expected,
  }
}

/** Grows the last run or adds one. */
const addRun = (runs: Run[], from: number, to: number): void => {
  const last = runs.at(-1)
  if (last !== undefined && last.to === from) runs[runs.length - 1] = { from: last.from, to }
  else runs.push({ from, to })
}

/** Sorted and joined, without what lies below the floor. */
const tidy = (runs: readonly Run[], floor: number): Run[] => {
  const out: Run[] = []
  for (const run of runs.filter(({ to }) => to > floor).sort((a, b) => a.from - b.from)) {
    const last = out.at(-1)
    if (last !== undefined && run.from <= last.to) out[out.length - 1] = { from: last.from, to: Math.max(last.to, run.to) }
    else out.push(run)
  }
  return out
}

interface Recovered {
  readonly segments: Segment[]
  readonly salt: Buffer
  readonly floor: number
  readonly nextSeq: number
  readonly depth: number
  readonly bytes: number
  readonly runs: Run[]
  readonly damagedRecords: number
  readonly damagedBytes: number
  readonly lostMessages: number
  readonly tornBytes: number
}

/** Reads a small file, or the start of a large one. */
const readStart = async (fs: LogFileSystem, path: string, bytes: number): Promise<{ start: Buffer; size: number }> => {
  const file = await fs.open(path, 'read')
  try {
    const size = await file.size()
    const start = Buffer.alloc(Math.min(size, bytes))
    await readUpTo(file, start, 0).catch(() => readAround(file, start, 0))
    return { start, size }
  } finally {
    await file.close()
  }
}

/** Whole or not at all: written beside its place, synced, renamed, and the folder synced. */
const place = async (fs: LogFileSystem, folder: string, path: string, bytes: Buffer): Promise<LogFile> => {
  const beside = `${path}.new`
  let file: LogFile | undefined
  try {
    file = await fs.open(beside, 'create')
    await writeAll(file, bytes, 0)
    await file.sync()
    await fs.rename(beside, path)
    await fs.syncFolder(folder)
    return file
  } catch (error) {
    if (file !== undefined) await attempt(file.close())
    await attempt(fs.remove(beside))
    throw error
  }
}

const recover = async (fs: LogFileSystem, folder: string): Promise<Recovered> => {
  let damagedRecords = 0
  let damagedBytes = 0
  let lostMessages = 0
  let tornBytes = 0
  const names = await fs.list(folder)
  for (const name of names) if (name.endsWith('.new')) await attempt(fs.remove(join(folder, name)))

  const saltPath = join(folder, 'salt')
  const kept = names.includes('salt') ? decodeSegmentHeader((await readStart(fs, saltPath, SEGMENT_HEADER_BYTES)).start) : undefined
  const files = await Promise.all(
    names.filter((name) => SEGMENT.test(name)).sort().map(async (name) => {
      const { start, size } = await readStart(fs, join(folder, name), SEGMENT_HEADER_BYTES)
      return { name, size, header: decodeSegmentHeader(start) }
    }),
  )
  for (const { name, header } of files) {
    if (header !== undefined && header.version > FORMAT_VERSION) {
      throw new QueueFailed('BACKHAUL_QUEUE_FORMAT', `${join(folder, name)} has format ${header.version}, which a later version wrote`)
    }
  }
  const salt = kept?.salt ?? files.find(({ header }) => header !== undefined)?.header?.salt ?? randomBytes(SALT_BYTES)
  if (kept === undefined) {
    if (names.includes('salt')) {
      damagedRecords += 1
      damagedBytes += SEGMENT_HEADER_BYTES
    }
    // Without room for it the copies in the segments do, and the next start tries again.
    await place(fs, folder, saltPath, encodeSegmentHeader(salt)).then(
      (file) => file.close(),
      (error: unknown) => {
        if (files.length === 0) throw error
      },
    )
  }

  let segments = files.map(({ name, size, header }): Segment => {
    const first = Number(name.slice(0, 16))
    if (header === undefined && size > 0) {
      damagedRecords += 1
      damagedBytes += Math.min(size, SEGMENT_HEADER_BYTES)
    }
    return {
      first,
      path: join(folder, name),
      seal: sealOf(header?.salt ?? salt, first),
      length: size,
      verified: 0,
      damaged: header === undefined,
      next: undefined,
    }
  })
  segments.forEach((segment, i) => (segment.next = segments[i + 1]))

  let torn: Damage | undefined
  const damages: Damage[] = []
  const cursor = createCursor(fs, () => undefined, (damage) => {
    if (damage.to <= damage.segment.verified) return
    damage.segment.verified = damage.to
    if (damage.to === damage.segment.length && damage.segment.next === undefined) {
      torn = damage
      return
    }
    damagedRecords += 1
    damagedBytes += damage.to - damage.from
    lostMessages += damage.lost.to - damage.lost.from
    damages.push(damage)
    damage.segment.damaged = true
  })
  /** Every record from here on, letting others run in between. */
  const walk = async (visit: (record: StoredRecord) => void): Promise<void> => {
    for (let steps = 1; ; steps += 1) {
      const record = cursor.step()
      if (record === 'end') return
      if (record === 'load') await cursor.load()
      else visit(record)
      if (steps % 4096 === 0) await tick()
    }
  }

  // The newest segment whose complete mark can be read knows everything about the older ones.
  let start = Math.max(0, segments.length - 1)
  for (; start > 0; start -= 1) {
    const { first, path, length, seal } = segments[start]!
    const claimed = (await readStart(fs, path, SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES)).start
    const { start: head } = await readStart(fs, path, Math.min(length, SEGMENT_HEADER_BYTES + Math.min(claimedBytes(claimed, SEGMENT_HEADER_BYTES), BATCH_BYTES * 4)))
    const record = readRecord(head, SEGMENT_HEADER_BYTES, head.length, seal)
    if (typeof record === 'object' && record.kind === MARK && record.seq === first) break
  }
  const origin = segments[start]
  let floor = segments[0]?.first ?? 0
  let nextSeq = origin?.first ?? 0
  let depth = 0
  let bytes = 0
  let runs: Run[] = []
  let runsLimit = REACH
  /** Damage that came before the last mark, which still counts its messages. */
  let counted = 0
  let genuine = 0
  if (origin !== undefined) {
    cursor.seek(origin, SEGMENT_HEADER_BYTES, origin.first)
    await walk((record) => {
      if (cursor.segment()?.next === undefined) genuine += 1
      nextSeq = Math.max(nextSeq, record.kind === MESSAGE ? record.seq + 1 : record.seq)
      if (record.kind === MARK) {
        const mark = decodeMark(record.body)
        floor = Math.max(floor, mark.floor)
        depth = mark.depth
        bytes = mark.bytes
        counted = damages.length
        for (const run of mark.runs) runs.push(run)
        if (runs.length > runsLimit) {
          runs = tidy(runs, floor)
          runsLimit = REACH + runs.length * 2
        }
      } else {
        depth += 1
        bytes += record.body.length + record.headers.length
      }
    })
    await cursor.close()
    runs = tidy(runs, floor)
    for (const { from, to, lost } of damages.slice(0, counted)) {
      let gone = 0
      for (let seq = Math.max(lost.from, floor); seq < lost.to; seq += 1) {
        if (!runs.some((run) => run.from <= seq && seq < run.to)) gone += 1
      }
      depth = Math.max(0, depth - gone)
      if (gone > 0) bytes = Math.max(0, bytes - (to - from - gone * RECORD_HEADER_BYTES))
    }
  }
  const last = segments.at(-1)
  if (last !== undefined) {
    const lost = torn === undefined ? 0 : torn.to - torn.from
    // Numbers that the torn bytes may have used are not used again.
    nextSeq = Math.max(nextSeq, last.first) + Math.ceil(lost / RECORD_HEADER_BYTES)
    if (genuine > 0 && torn !== undefined) {
      tornBytes += lost
      last.length = torn.from
      await attempt((async () => {
        const file = await fs.open(last.path, 'write')
        await file.truncate(last.length).finally(() => file.close())
      })())
    } else if (genuine === 0) {
      // Segments appear whole, so this one was destroyed: kept aside, and none of its numbers is used again.
      damagedRecords += 1
      damagedBytes += Math.max(0, last.length - SEGMENT_HEADER_BYTES)
      nextSeq = Math.max(nextSeq, last.first) + DESTROYED_GAP
      await attempt(fs.rename(last.path, `${last.path}.damaged`))
      segments = segments.slice(0, -1)
      const before = segments.at(-1)
      if (before !== undefined) before.next = undefined
    }
  }
  return {
    segments,
    salt,
    floor: Math.max(floor, segments[0]?.first ?? floor),
    nextSeq: Math.max(nextSeq, 1),
    depth,
    bytes,
    runs: tidy(runs, floor),
    damagedRecords,
    damagedBytes,
    lostMessages,
    tornBytes,
  }
}

/** Given out, or known to be settled, between the oldest unsettled and the cursor. */
interface Outside extends Run {
  settled: boolean
  readonly bytes: number
  readonly segment?: Segment
  readonly at?: number
}

interface Appending {
  readonly body: Uint8Array
  readonly headers: Uint8Array
  readonly bytes: number
  readonly subscriber: Subscriber<number>
}

const NONE = new Uint8Array(0)

const start = async (folder: string, options: SegmentLogOptions, fs: LogFileSystem, lock: Lock): Promise<QueueEngine> => {
  const maxBytes = Math.max(options.maxBytes, 64 * 1024)
  const segmentBytes = Math.min(options.segmentBytes ?? 16 * 1024 * 1024, maxBytes / 4)
  const settleMs = options.settleMs ?? 25
  const reserveBytes = options.reserveBytes ?? 256 * 1024
  const reservePath = join(folder, 'reserve')

  const found = await recover(fs, folder)
  const { segments, salt } = found
  let { nextSeq, depth, bytes, damagedRecords, damagedBytes, lostMessages } = found
  let writeErrors = 0
  let syncErrors = 0
  let closed = false

  let tail: { segment: Segment; at: number; bytes: Buffer }[] = []
  let tailBytes = 0
  let floor = found.floor
  /** Settled beyond the cursor. */
  let skip = found.runs
  /** From the oldest unsettled, at `head`, up to the cursor. */
  let reach: Outside[] = []
  let head = 0
  const unsettled = new Map<number, Outside>()
  let unsettledBytes = 0
  let waiting: { max: number; subscriber: Subscriber<readonly Entry[]> } | undefined
  let loading = false
  let pumping = false

  const onDamage = ({ segment, from, to, lost }: Damage): void => {
    if (to <= segment.verified) return
    segment.verified = to
    segment.damaged = true
    damagedRecords += 1
    damagedBytes += to - from
    const pending = Math.min(depth, Math.max(0, lost.to - Math.max(lost.from, floor)))
    lostMessages += lost.to - lost.from
    depth -= pending
    bytes = Math.max(0, bytes - (pending === 0 ? 0 : to - from - pending * RECORD_HEADER_BYTES))
  }
  const recall = (segment: Segment, offset: number) =>
    tail.find((recent) => recent.segment === segment && recent.at <= offset && offset < recent.at + recent.bytes.length)
  const cursor = createCursor(fs, recall, onDamage)
  const seekFloor = (): void => {
    const from = segments.findLast(({ first }) => first <= floor) ?? segments[0]
    if (from !== undefined) cursor.seek(from, SEGMENT_HEADER_BYTES, from.first)
  }
  seekFloor()

  const raiseFloor = (): void => {
    while (head < reach.length && reach[head]!.settled) head += 1
    floor = Math.max(floor, reach[head]?.from ?? cursor.expected())
    if (head > 1024 && head * 2 > reach.length) {
      reach = reach.slice(head)
      head = 0
    }
  }

  /** Passes over settled runs; says whether this number is in one. */
  const skips = (seq: number): boolean => {
    while (skip.length > 0 && skip[0]!.to <= seq) reach.push({ ...skip.shift()!, settled: true, bytes: 0 })
    return seq < floor || (skip.length > 0 && skip[0]!.from <= seq)
  }

  const take = (max: number): Entry[] | 'load' | 'end' => {
    const entries: Entry[] = []
    while (entries.length < max && reach.length - head < REACH) {
      const record = cursor.step()
      if (typeof record === 'string') {
        raiseFloor()
        if (record === 'end' && cursor.expected() === nextSeq) {
          // All that is pending is outside: exact, whatever damage has made of the counts.
          depth = unsettled.size
          bytes = unsettledBytes
        }
        return entries.length > 0 ? entries : record
      }
      if (record.kind !== MESSAGE || skips(record.seq)) continue
      const { seq, body, headers } = record
      const size = body.length + headers.length
      const at = cursor.offset() - RECORD_HEADER_BYTES - size
      const outside: Outside = { from: seq, to: seq + 1, settled: false, bytes: size, segment: cursor.segment()!, at }
      reach.push(outside)
      unsettled.set(seq, outside)
      unsettledBytes += size
      entries.push({ seq, body, headers })
    }
    raiseFloor()
    return entries.length > 0 ? entries : 'end'
  }

  /** A loop, so that a consumer may ask for more from within its emission. */
  const pump = (): void => {
    if (pumping) return
    pumping = true
    while (waiting !== undefined && !loading && !closed) {
      const taken = take(waiting.max)
      if (taken === 'end') break
      if (taken === 'load') load()
      else {
        const { subscriber } = waiting
        waiting = undefined
        subscriber.next(taken)
        subscriber.complete()
      }
    }
    pumping = false
  }

  const load = (): void => {
    const from = cursor.segment()
    loading = true
    cursor.load().then(
      () => {
        loading = false
        pump()
      },
      (error: unknown) => {
        loading = false
        // Settled and deleted in the meantime.
        if (cursor.segment() !== from) return pump()
        const { subscriber } = waiting ?? {}
        waiting = undefined
        subscriber?.error(new QueueFailed('BACKHAUL_QUEUE_IO', 'the embedded queue cannot be read', { cause: error }))
      },
    )
  }

  const rewind = (): void => {
    raiseFloor()
    const oldest = reach[head]
    if (oldest === undefined) return
    skip = [...tidy(reach.slice(head).filter(({ settled }) => settled), floor), ...skip]
    cursor.seek(oldest.segment!, oldest.at!, oldest.from)
    reach = []
    head = 0
    unsettled.clear()
    unsettledBytes = 0
    pump()
  }

  let active: { segment: Segment; file: LogFile } | undefined
  let queue: Appending[] = []
  let queuedBytes = 0
  let purges: Subscriber<number>[] = []
  let diskBytes = 0
  /** Settled since the last mark. */
  let fresh: Run[] = []
  /** The next mark must tell all, since an earlier one may be lost. */
  let complete = false
  let markDue = false
  let reserved = false
  let settleTimer: NodeJS.Timeout | undefined
  let flushing: Promise<void> | undefined

  const measure = (): void => {
    diskBytes = segments.reduce((sum, { length }) => sum + Math.max(length, PAGE_BYTES), 0)
  }
  const allRuns = (): Run[] => tidy([...reach.slice(head).filter(({ settled }) => settled), ...skip], floor).map(({ from, to }) => ({ from, to }))

  const kick = (): void => {
    flushing ??= flush().finally(() => {
      flushing = undefined
      if (queue.length > 0 || purges.length > 0 || markDue) kick()
    })
  }
  const markWithin = (ms: number): void => {
    if (settleTimer !== undefined || closed) return
    settleTimer = setTimeout(() => {
      settleTimer = undefined
      markDue = true
      kick()
    }, ms)
  }

  const reserve = async (): Promise<void> => {
    const file = await place(fs, folder, reservePath, Buffer.alloc(reserveBytes))
    await file.close()
    reserved = true
  }

  /** Deletes what a synced floor has left behind, from the oldest on. Damaged segments are kept aside, the last few. */
  const trim = async (syncedFloor: number): Promise<void> => {
    while (segments.length > 1 && segments[1]!.first <= syncedFloor && segments[0] !== active?.segment) {
      const [old] = segments as [Segment]
      if (cursor.segment() === old && old.next !== undefined) cursor.seek(old.next, SEGMENT_HEADER_BYTES, old.next.first)
      const gone = old.damaged ? fs.rename(old.path, `${old.path}.damaged`) : fs.remove(old.path)
      // What cannot be deleted now is tried again with the next batch, and at the next start.
      if (!(await gone.then(() => true, (error: unknown) => codeOf(error) === 'ENOENT'))) break
      segments.shift()
      tail = tail.filter(({ segment }) => segment !== old)
      tailBytes = tail.reduce((sum, recent) => sum + recent.bytes.length, 0)
      if (old.damaged) {
        const aside = (await fs.list(folder).catch(() => [])).filter((name) => DAMAGED.test(name)).sort()
        for (const name of aside.slice(0, -KEEP_DAMAGED)) await attempt(fs.remove(join(folder, name)))
      }
    }
    measure()
  }

  const retire = async (sound: boolean): Promise<void> => {
    const old = active
    active = undefined
    if (old === undefined) return
    if (!sound) await attempt(old.file.truncate(old.segment.length))
    await attempt(old.file.close())
  }

  const begin = async (): Promise<void> => {
    const first = nextSeq
    const seal = sealOf(salt, first)
    const marked = floor
    const body = encodeMark({ floor: marked, depth, bytes, runs: allRuns() })
    const settledBefore = fresh
    fresh = []
    const image = Buffer.concat([encodeSegmentHeader(salt), Buffer.alloc(RECORD_HEADER_BYTES + body.length)])
    writeRecord(image, SEGMENT_HEADER_BYTES, seal, MARK, first, body)
    const path = join(folder, `${String(first).padStart(16, '0')}.log`)
    const file = await place(fs, folder, path, image).catch((error: unknown) => {
      writeErrors += 1
      fresh = [...settledBefore, ...fresh]
      throw error
    })
    const segment: Segment = { first, path, seal, length: image.length, verified: 0, damaged: false, next: undefined }
    const before = segments.at(-1)
    if (before !== undefined) before.next = segment
    if (before?.first === first) {
      // Same name: the older one had no messages, and its file has just been replaced.
      before.length = 0
      segments.pop()
      const older = segments.at(-1)
      if (older !== undefined) older.next = segment
    }
    segments.push(segment)
    const where = cursor.segment()
    if (where === undefined || where.first === first) cursor.seek(segment, SEGMENT_HEADER_BYTES, first)
    active = { segment, file }
    complete = false
    await trim(marked)
  }

  const takeBatch = (): Appending[] => {
    let size = 0
    let count = 0
    while (count < queue.length && (count === 0 || size + queue[count]!.bytes <= BATCH_BYTES)) size += queue[count++]!.bytes
    return queue.splice(0, count)
  }

  const remember = (segment: Segment, at: number, written: Buffer): void => {
    tail.push({ segment, at, bytes: written })
    tailBytes += written.length
    while (tail.length > 1 && tailBytes > TAIL_BYTES) tailBytes -= tail.shift()!.bytes.length
  }

  /** One write and one sync for a batch and its mark. Throws when nothing of it is kept. */
  const commit = async (batch: readonly Appending[]): Promise<void> => {
    const size = batch.reduce((sum, { bytes: each }) => sum + each, 0)
    if (active !== undefined) {
      const { length } = active.segment
      const drained = depth === 0 && length >= segmentBytes / 4
      if (drained || (length + size > segmentBytes && nextSeq > active.segment.first)) await retire(true)
    }
    if (active === undefined) await begin()
    if (batch.length === 0 && !complete && fresh.length === 0) return
    const { segment, file } = active!
    const marked = floor
    const told = fresh
    fresh = []
    const payload = batch.reduce((sum, { body, headers }) => sum + body.length + headers.length, 0)
    const runs = complete ? allRuns() : tidy(told, marked)
    const mark = encodeMark({ floor: marked, depth: depth + batch.length, bytes: bytes + payload, runs })
    const image = Buffer.allocUnsafeSlow(size + RECORD_HEADER_BYTES + mark.length)
    let at = 0
    let seq = nextSeq
    for (const { body, headers } of batch) at = writeRecord(image, at, segment.seal, MESSAGE, seq++, body, headers)
    writeRecord(image, at, segment.seal, MARK, seq, mark)

    let writing = true
    try {
      await writeAll(file, image, segment.length)
      writing = false
      await file.sync()
    } catch (error) {
      complete = true
      if (writing) writeErrors += 1
      else syncErrors += 1
      const cut = writing && isFull(error) && (await attempt(file.truncate(segment.length)))
      if (!cut) {
        // Nobody knows what of it is on the disk: these numbers are spent, and the next mark says so.
        if (seq > nextSeq) addRun(skip, nextSeq, seq)
        nextSeq = seq
        markDue = true
        await retire(false)
      }
      throw error
    }
    complete = false
    const from = segment.length
    const firstSeq = nextSeq
    nextSeq = seq
    depth += batch.length
    bytes += payload
    queuedBytes -= size
    batch.forEach(({ subscriber }, i) => {
      subscriber.next(firstSeq + i)
      subscriber.complete()
    })
    // Readable only now: an append completes before its record can be read.
    remember(segment, from, image)
    segment.length += image.length
    await trim(marked)
  }

  const refuse = (error: unknown, batch: readonly Appending[]): void => {
    const all = [...batch, ...queue]
    queue = []
    queuedBytes = 0
    const refusal = isFull(error)
      ? new QueueFull(maxBytes, diskBytes, { cause: error })
      : new QueueFailed('BACKHAUL_QUEUE_IO', 'the embedded queue cannot be written: nothing was kept', { cause: error })
    for (const { subscriber } of all) subscriber.error(refusal)
  }

  /** Moves the reader behind everything synced: what it passes over counts as settled. */
  const purgeNow = (): number => {
    const last = segments.at(-1)
    if (last === undefined) return 0
    raiseFloor()
    const removed = depth - unsettled.size
    const from = Math.max(floor, cursor.expected())
    if (nextSeq > from) {
      reach.push({ from, to: nextSeq, settled: true, bytes: 0 })
      addRun(fresh, from, nextSeq)
    }
    skip = []
    cursor.seek(last, last.length, nextSeq)
    depth = unsettled.size
    bytes = unsettledBytes
    raiseFloor()
    complete = true
    return removed
  }

  const flush = async (): Promise<void> => {
    // One turn of the loop, so that everything that arrived with this one shares the sync.
    await tick()
    do {
      clearTimeout(settleTimer)
      settleTimer = undefined
      markDue = false
      const asked = purges
      purges = []
      const removed = asked.length > 0 ? purgeNow() : 0
      let batch = takeBatch()
      if (batch.length > 0 && !reserved) {
        await reserve().catch((error: unknown) => {
          refuse(error, batch)
          batch = []
        })
      }
      try {
        await commit(batch)
        asked.forEach((subscriber, i) => {
          subscriber.next(i === 0 ? removed : 0)
          subscriber.complete()
        })
      } catch (error) {
        if (isFull(error) && reserved && reserveBytes > 0) {
          // The settlements may have the room that was kept for them; appends wait until it is back.
          reserved = false
          await attempt(fs.remove(reservePath))
          markDue = complete || fresh.length > 0
        }
        if (batch.length > 0) refuse(error, batch)
        asked.forEach((subscriber) => subscriber.error(error))
        if (!markDue && (complete || fresh.length > 0)) markWithin(RETRY_MS)
      }
      pump()
      await tick()
    } while (queue.length > 0 || purges.length > 0 || markDue)
    if (fresh.length > 0) markWithin(settleMs)
  }

  const names = await fs.list(folder)
  reserved = reserveBytes === 0 || names.includes('reserve') || (await attempt(reserve()))
  measure()
  // On a full disk the queue still opens, to drain.
  if (!(await attempt(begin()))) {
    complete = true
    markWithin(RETRY_MS)
  }

  const closedError = (): QueueFailed => new QueueFailed('BACKHAUL_QUEUE_CLOSED', 'the embedded queue is closed: nothing was kept')

  const shut = async (): Promise<void> => {
    waiting?.subscriber.complete()
    waiting = undefined
    clearTimeout(settleTimer)
    while (flushing !== undefined) await flushing
    let failure: unknown
    for (let tries = 0; tries < 2 && (complete || fresh.length > 0); tries += 1) {
      failure = undefined
      await commit([]).catch((error: unknown) => (failure = error))
    }
    clearTimeout(settleTimer)
    await retire(true)
    await cursor.close()
    await lastValueFrom(lock.release(), { defaultValue: undefined })
    if (failure !== undefined) {
      throw new QueueFailed('BACKHAUL_QUEUE_IO', 'the last settlements could not be kept: those messages come again', { cause: failure })
    }
  }
  let shutting: Promise<void> | undefined

  const peek = async (from: number, max: number): Promise<readonly Entry[]> => {
    const entries: Entry[] = []
    const wanted = Math.max(from, floor)
    const settled = allRuns()
    const aside = createCursor(fs, recall, () => undefined)
    const origin = segments.findLast(({ first }) => first <= wanted) ?? segments[0]
    if (origin === undefined) return entries
    aside.seek(origin, SEGMENT_HEADER_BYTES, origin.first)
    try {
      for (let steps = 1; entries.length < max; steps += 1) {
        const record = aside.step()
        if (record === 'end') break
        if (record === 'load') await aside.load()
        else if (record.kind === MESSAGE && record.seq >= wanted) {
          const { seq, body, headers } = record
          while (settled.length > 0 && settled[0]!.to <= seq) settled.shift()
          if (settled.length === 0 || settled[0]!.from > seq) entries.push({ seq, body, headers })
        }
        if (steps % 4096 === 0) await tick()
      }
    } finally {
      await aside.close()
    }
    return entries
  }

  return {
    append: (body, headers = NONE) =>
      new Observable((subscriber) => {
        if (closed) return subscriber.error(closedError())
        const size = RECORD_HEADER_BYTES + body.length + headers.length
        const usedBytes = diskBytes + queuedBytes
        if (headers.length > MAX_HEADERS_BYTES) return subscriber.error(new RangeError('headers of 16 MiB or more'))
        // With room for the mark, and for the page that a new segment takes.
        if (usedBytes + size + 2 * PAGE_BYTES > maxBytes) return subscriber.error(new QueueFull(maxBytes, usedBytes))
        queuedBytes += size
        queue.push({ body, headers, bytes: size, subscriber })
        kick()
      }),
    next: (max) =>
      new Observable((subscriber) => {
        if (closed) return subscriber.complete()
        if (waiting !== undefined) {
          return subscriber.error(new QueueFailed('BACKHAUL_QUEUE_BUSY', 'the embedded queue has a reader already'))
        }
        const mine = { max: Math.max(1, max), subscriber }
        waiting = mine
        subscriber.add(() => {
          if (waiting === mine) waiting = undefined
        })
        pump()
      }),
    rewind,
    settle: (seq) => {
      const outside = unsettled.get(seq)
      if (outside === undefined || closed) return
      unsettled.delete(seq)
      outside.settled = true
      depth -= 1
      bytes -= outside.bytes
      unsettledBytes -= outside.bytes
      addRun(fresh, seq, seq + 1)
      const held = reach.length - head >= REACH
      raiseFloor()
      if (flushing === undefined) markWithin(settleMs)
      if (held) queueMicrotask(pump)
    },
    peek: (from, max) =>
      new Observable((subscriber) => {
        peek(from, max).then(
          (entries) => {
            subscriber.next(entries)
            subscriber.complete()
          },
          (error: unknown) => subscriber.error(error),
        )
      }),
    purge: () =>
      new Observable((subscriber) => {
        if (closed) return subscriber.error(closedError())
        purges.push(subscriber)
        kick()
      }),
    stats: () => ({
      depth,
      bytes,
      usedBytes: diskBytes,
      unsettled: unsettled.size,
      damagedRecords,
      damagedBytes,
      lostMessages,
      tornBytes: found.tornBytes,
      writeErrors,
      syncErrors,
    }),
    close: () =>
      new Observable((subscriber) => {
        closed = true
        shutting ??= shut()
        shutting.then(
          () => subscriber.complete(),
          (error: unknown) => subscriber.error(error),
        )
      }),
  }
}

/**
 * Opens the log in its folder, or makes it; emits the engine and completes. The engine is
 * to be closed. Unsubscribing before it is there closes it.
 *
 * **Fails** with `FolderInUse`, or `QueueFailed` when a later version wrote the folder.
 * Damage never stops it: see `stats`.
 *
 * **Example** `openSegmentLog('spool', { maxBytes: 2 ** 30 }).pipe(mergeMap((log) => log.append(body)))`
 */
export const openSegmentLog = (folder: string, options: SegmentLogOptions): Observable<QueueEngine> =>
  new Observable((subscriber) => {
    const fs = options.fs ?? nodeFileSystem
    const opening = async (): Promise<QueueEngine> => {
      await fs.makeFolder(folder)
      const { httpAddress } = options
      const take = options.lock ?? lockFolder
      const lock = await firstValueFrom(take(folder, { pid: process.pid, ...(httpAddress !== undefined && { httpAddress }) }))
      try {
        return await start(folder, options, fs, lock)
      } catch (error) {
        await lastValueFrom(lock.release(), { defaultValue: undefined })
        throw error
      }
    }
    void opening().then(
      (engine) => {
        if (subscriber.closed) return void engine.close().subscribe({ error: () => undefined })
        subscriber.next(engine)
        subscriber.complete()
      },
      (error: unknown) => subscriber.error(error),
    )
  })
