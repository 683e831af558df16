/**
 * The numbers on disk, so that the next start knows what this one had sent: two files of one
 * size, written in place and in turn, so that a full disk does not stop the road to Pulsar.
 *
 * A record has 40 bytes: checksum, kind, number, run, and a key or a second number. The
 * checksum depends on the file's pass, so what is left of an older pass is no record. What is
 * synced together begins with a record that says how many follow.
 */
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { catchError, defer, EMPTY, endWith, from, ignoreElements, switchMap } from 'rxjs'
import type { Observable } from 'rxjs'
import { lockFolder } from './folder-lock.js'
import type { Lock } from './folder-lock.js'
import { codeOf, nodeFileSystem, placeFile, readAround, writeAll } from './log-files.js'
import type { LogFile, LogFileSystem } from './log-files.js'
import type { NumberRecord } from './numbers.js'

export interface NumberJournal {
  /** What was found; nothing when it was damaged, which costs repeats and no message. */
  readonly found: readonly NumberRecord[]
  /** Completes once they are synced. `all` gives everything that counts, when a file is full. */
  readonly append: (records: readonly NumberRecord[], all: () => readonly NumberRecord[]) => Observable<never>
  /** Closes the files, frees the folder and completes. */
  readonly close: () => Observable<never>
}

export interface NumberJournalOptions {
  /** The most numbers that `all` ever tells. */
  readonly keep: number
  /** @default the disk */
  readonly fs?: LogFileSystem
}

const recordBytes = 40
const kinds = ['none', 'given', 'given to a foreign one', 'stored', 'dead', 'header', 'batch'] as const
type Kind = (typeof kinds)[number]

const write = (into: Buffer, at: number, pass: number, kind: Kind, number: number, run = '', last: Buffer = Buffer.alloc(0)): void => {
  into.writeUInt8(kinds.indexOf(kind), at + 4)
  into.writeUIntBE(number, at + 10, 6)
  into.write(run, at + 16, 8, 'hex')
  last.copy(into, at + 24)
  into.writeUInt32BE(crc32(into.subarray(at + 4, at + recordBytes), pass), at)
}

const encode = (records: readonly NumberRecord[], pass: number): Buffer => {
  const bytes = Buffer.alloc((1 + records.length) * recordBytes)
  write(bytes, 0, pass, 'batch', records.length)
  records.forEach((record, i) => {
    const at = (1 + i) * recordBytes
    if (record.kind === 'given')
      return write(bytes, at, pass, record.foreign ? 'given to a foreign one' : 'given', record.number, record.run, Buffer.from(record.key, 'hex'))
    const to = Buffer.alloc(8)
    to.writeUIntBE(record.to, 2, 6)
    write(bytes, at, pass, record.kind, record.number, record.run, to)
  })
  return bytes
}

const kindAt = (bytes: Buffer, at: number, pass: number): Kind | undefined =>
  bytes.readUInt32BE(at) === crc32(bytes.subarray(at + 4, at + recordBytes), pass) ? kinds[bytes.readUInt8(at + 4)] : undefined

const decode = (bytes: Buffer, at: number, kind: Kind): NumberRecord | undefined => {
  const number = bytes.readUIntBE(at + 10, 6)
  const run = bytes.toString('hex', at + 16, at + 24)
  if (kind === 'stored' || kind === 'dead') return { kind, run, number, to: bytes.readUIntBE(at + 26, 6) }
  if (kind === 'given' || kind === 'given to a foreign one')
    return { kind: 'given', run, number, key: bytes.toString('hex', at + 24, at + 40), foreign: kind !== 'given' }
  return undefined
}

/**
 * All whole batches. The last one may be torn: nothing of it was sent yet. Undefined when another
 * begins behind a torn one: that one was synced, and has been damaged since.
 */
const readRecords = (bytes: Buffer, pass: number): readonly NumberRecord[] | undefined => {
  const found: NumberRecord[] = []
  let batch: NumberRecord[] = []
  let left = 0 // of the batch that is being read
  let torn = false
  for (let at = recordBytes; at + recordBytes <= bytes.length; at += recordBytes) {
    const kind = kindAt(bytes, at, pass)
    if (kind === 'batch') {
      if (torn || left > 0) return undefined
      left = bytes.readUIntBE(at + 10, 6)
      batch = []
      continue
    }
    const record = kind === undefined || left === 0 ? undefined : decode(bytes, at, kind)
    if (record === undefined) torn = true
    else if (!torn) {
      batch.push(record)
      left -= 1
      if (left === 0) found.push(...batch)
    }
  }
  return found
}

interface Loaded {
  /** 0 when there is no such file, or nothing in it yet. */
  readonly pass: number
  readonly size: number
  readonly records: readonly NumberRecord[] | undefined
}

const load = async (fs: LogFileSystem, path: string): Promise<Loaded> => {
  try {
    const file = await fs.open(path, 'read')
    try {
      const bytes = Buffer.alloc(await file.size())
      const whole = await readAround(file, bytes, 0)
      if (bytes.length < recordBytes || bytes.subarray(0, recordBytes).every((byte) => byte === 0)) return { pass: 0, size: bytes.length, records: [] }
      const pass = kindAt(bytes, 0, 0) === 'header' ? bytes.readUIntBE(10, 6) : Number.POSITIVE_INFINITY
      return { pass, size: bytes.length, records: whole && pass !== Number.POSITIVE_INFINITY ? readRecords(bytes, pass) : undefined }
    } finally {
      await file.close()
    }
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return { pass: 0, size: 0, records: [] }
    throw error
  }
}

const open = async (folder: string, lock: Lock, { keep, fs = nodeFileSystem }: NumberJournalOptions): Promise<NumberJournal> => {
  const paths = ['0', '1'].map((name) => join(folder, name))
  const size = 5 * keep * recordBytes
  const [a, b] = (await Promise.all(paths.map((path) => load(fs, path)))) as [Loaded, Loaded]
  const newest = a.pass >= b.pass ? a : b
  // A file whose head is gone may be the newest: then nothing that is here can be trusted. The older one may be half overwritten.
  const damaged = newest.pass === Number.POSITIVE_INFINITY || newest.records === undefined
  const found = damaged ? [] : (newest.records ?? [])
  let side = a.pass >= b.pass ? 1 : 0 // written next
  // Above any pass that a damaged file can have.
  let pass = damaged ? Math.max(...[a.pass, b.pass].filter(Number.isFinite), 0) + 1_000_000 : newest.pass
  let file: LogFile | undefined
  let end = 0
  const fresh = async (records: readonly NumberRecord[]): Promise<void> => {
    await file?.close().catch(() => undefined)
    file = undefined
    const path = paths[side] as string
    const has = await load(fs, path)
    const opened = has.size === size ? await fs.open(path, 'write') : await placeFile(fs, folder, path, Buffer.alloc(size))
    const bytes = encode(records, pass + 1)
    const header = Buffer.alloc(recordBytes)
    write(header, 0, 0, 'header', pass + 1)
    await writeAll(opened, bytes, recordBytes)
    await opened.sync()
    await writeAll(opened, header, 0)
    await opened.sync()
    file = opened
    pass += 1
    end = recordBytes + bytes.length
    side = 1 - side
  }
  const put = async (records: readonly NumberRecord[], all: () => readonly NumberRecord[]): Promise<void> => {
    const bytes = records.length === 0 ? Buffer.alloc(0) : encode(records, pass)
    if (file === undefined || end + bytes.length > size) return fresh(all())
    try {
      await writeAll(file, bytes, end)
      await file.sync()
      end += bytes.length
    } catch (error) {
      // What a disk has after a sync that failed, nobody knows: on with the other file.
      await file.close().catch(() => undefined)
      file = undefined
      throw error
    }
  }
  // Both from the start: later the disk may be full.
  for (const [i, { size: has }] of [a, b].entries())
    if (has === 0) await (await placeFile(fs, folder, paths[i] as string, Buffer.alloc(size))).close()
  await fresh(found)
  if (damaged) await fresh(found) // over the other one, too
  let last: Promise<unknown> = Promise.resolve()
  const inTurn = (work: () => Promise<void>): Promise<void> => {
    const done = last.then(work)
    last = done.catch(() => undefined)
    return done
  }
  return {
    found,
    append: (records, all) => from(inTurn(() => put(records, all))).pipe(ignoreElements()),
    close: () =>
      defer(() => inTurn(async () => file?.close())).pipe(
        ignoreElements(),
        catchError(() => EMPTY),
        endWith(undefined),
        switchMap(() => lock.release()),
      ),
  }
}

/**
 * Opens the journal of a folder, making it when it is missing.
 *
 * **Fails** with `FolderInUse` when another process has it, and when the disk does.
 */
export const openNumberJournal = (folder: string, options: NumberJournalOptions): Observable<NumberJournal> =>
  lockFolder(folder).pipe(
    switchMap((lock) =>
      open(folder, lock, options).catch((error: unknown) => {
        lock.release().subscribe()
        throw error
      }),
    ),
  )
