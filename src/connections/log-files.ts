/** The disk under the segment log, behind a port so that a test can fail it. */
import { fstatSync, statSync, type BigIntStats } from 'node:fs'
import { open, readdir, rename, unlink } from 'node:fs/promises'
import { makeFolder } from '../make-folder.js'

/** An open file, as far as the log needs one. */
export interface LogFile {
  readonly read: (into: Buffer, position: number) => Promise<number>
  readonly write: (bytes: Buffer, position: number) => Promise<number>
  readonly sync: () => Promise<void>
  readonly truncate: (length: number) => Promise<void>
  readonly size: () => Promise<number>
  /** Whether the path names this very file, and it is at least so long. */
  readonly isAt: (path: string, length: number) => boolean
  readonly close: () => Promise<void>
}

/** Files are made with mode 0600, folders with 0700. */
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

export const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException | undefined)?.code
/** For a path that may be missing: undefined then. */
export const unlessMissing = (error: unknown): undefined => {
  if (codeOf(error) !== 'ENOENT') throw error
}

export const nodeFileSystem: LogFileSystem = {
  open: async (path, how) => {
    const file = await open(path, FLAGS[how], 0o600)
    let own: BigIntStats | undefined
    return {
      read: async (into, position) => (await file.read(into, 0, into.length, position)).bytesRead,
      write: async (bytes, position) => (await file.write(bytes, 0, bytes.length, position)).bytesWritten,
      sync: () => file.datasync(),
      truncate: (length) => file.truncate(length),
      size: async () => (await file.stat()).size,
      isAt: (at, length) => {
        // It is open, so the kernel has its name in memory: no disk is asked, and another thread would take longer.
        try {
          own ??= fstatSync(file.fd, { bigint: true })
          const there = statSync(at, { bigint: true })
          return there.ino === own.ino && there.dev === own.dev && there.size >= length
        } catch {
          return false
        }
      },
      close: () => file.close(),
    }
  },
  makeFolder,
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

/** The smallest piece that a disk loses, and the least that a file takes up. */
export const PAGE_BYTES = 4096

/** Whether it worked, where a failure changes nothing but the next step. */
export const attempt = (work: Promise<unknown>): Promise<boolean> => work.then(() => true, () => false)
export const isDiskFull = (error: unknown): boolean =>
  ['ENOSPC', 'EDQUOT'].includes(codeOf(error) ?? codeOf((error as Error | undefined)?.cause) ?? '')

export const writeAll = async (file: LogFile, bytes: Buffer, position: number): Promise<void> => {
  for (let done = 0; done < bytes.length; ) {
    const written = await file.write(bytes.subarray(done), position + done)
    if (written === 0) throw Object.assign(new Error('nothing was written'), { code: 'EIO' })
    done += written
  }
}

const fill = async (file: LogFile, into: Buffer, position: number): Promise<void> => {
  let done = 0
  for (let got = -1; done < into.length && got !== 0; done += got) got = await file.read(into.subarray(done), position + done)
  // What the file lost behind our back is damage, not a reason to wait for ever.
  into.fill(0, done)
}

/**
 * Fills the buffer, with zeros for what is missing and for pages that the disk cannot read:
 * both then count as damage. Says whether every page could be read.
 *
 * **Fails** when not one page can be read.
 */
export const readAround = async (file: LogFile, into: Buffer, position: number): Promise<boolean> => {
  if (await attempt(fill(file, into, position))) return true
  let failed: unknown
  let good = 0
  for (let at = 0, next = 0; at < into.length; at = next) {
    next = at + PAGE_BYTES - ((position + at) % PAGE_BYTES)
    const page = into.subarray(at, next)
    try {
      await fill(file, page, position + at)
      good += 1
    } catch (error) {
      failed = error
      page.fill(0)
    }
  }
  if (good === 0) throw failed
  return false
}

/** Up to so many bytes from the start of a file, and how long it is. */
export const readStart = async (fs: LogFileSystem, path: string, bytes: number): Promise<{ start: Buffer; size: number }> => {
  const file = await fs.open(path, 'read')
  try {
    const size = await file.size()
    const start = Buffer.alloc(Math.min(size, bytes))
    await readAround(file, start, 0)
    return { start, size }
  } finally {
    await file.close()
  }
}

/** Whole or not at all: written beside its place, synced, renamed, and the folder synced. Leaves it open. */
export const placeFile = async (fs: LogFileSystem, folder: string, path: string, bytes: Buffer): Promise<LogFile> => {
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
