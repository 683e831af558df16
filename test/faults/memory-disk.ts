/** A disk in memory that knows what has been synced, so that it can lose the rest. */
import type { LogFile, LogFileSystem } from '../../src/connections/log-files.js'

interface File {
  bytes: Buffer
  durable: Buffer
  /** Written since the last sync. */
  pending: { at: number; bytes: Buffer }[]
}
type Names = Map<string, File>
type NameChange = (names: Names) => void

export interface MemoryDisk {
  readonly fs: LogFileSystem
  readonly files: () => Map<string, Buffer>
  /** Calls of the file system so far; `onCall` hears each number, before the call takes effect. */
  readonly calls: () => number
  readonly onCall: (listener: (call: number) => void) => void
  /** From now on no call comes back: the process that made them is gone. */
  readonly freeze: () => void
  /** What a killed process leaves: all that was written. */
  readonly afterKill: () => MemoryDisk
  /**
   * What a power cut leaves: all that was synced, and by chance pages of what was not, in any
   * order, with zeros where others are missing; of renames and removals not yet synced the first few.
   */
  readonly afterCut: (random: () => number) => MemoryDisk
}

const PAGE = 4096
const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/'))
const missing = (path: string): Error => Object.assign(new Error(`no ${path}`), { code: 'ENOENT' })
const put = (into: Buffer, bytes: Buffer, at: number): Buffer => {
  const grown = into.length >= at + bytes.length ? into : Buffer.concat([into, Buffer.alloc(at + bytes.length - into.length)])
  bytes.copy(grown, at)
  return grown
}

export const memoryDisk = (contents: Map<string, Buffer> = new Map(), { syncs = true } = {}): MemoryDisk => {
  const names: Names = new Map([...contents].map(([path, bytes]) => [path, { bytes: Buffer.from(bytes), durable: Buffer.from(bytes), pending: [] }]))
  const durableNames: Names = new Map(names)
  let changes: NameChange[] = []
  let calls = 0
  let frozen = false
  let listener: (call: number) => void = () => undefined

  const call = async <T>(work: () => T): Promise<T> => {
    calls += 1
    listener(calls)
    if (frozen) await new Promise(() => undefined)
    return work()
  }
  const change = (done: NameChange): void => {
    done(names)
    changes.push(done)
  }
  const find = (path: string): File => {
    const file = names.get(path)
    if (file === undefined) throw missing(path)
    return file
  }
  const handle = (file: File): LogFile => ({
    read: (into, position) => call(() => file.bytes.copy(into, 0, position, position + into.length)),
    write: (bytes, position) =>
      call(() => {
        const copy = Buffer.from(bytes)
        file.bytes = put(file.bytes, copy, position)
        file.pending.push({ at: position, bytes: copy })
        return bytes.length
      }),
    sync: () =>
      call(() => {
        if (!syncs) return
        file.durable = Buffer.from(file.bytes)
        file.pending = []
      }),
    truncate: (length) => call(() => void (file.bytes = Buffer.from(file.bytes.subarray(0, length)))),
    size: () => call(() => file.bytes.length),
    isAt: (path, length) => names.get(path) === file && file.bytes.length >= length,
    close: () => call(() => undefined),
  })

  const fs: LogFileSystem = {
    open: (path, how) =>
      call(() => {
        if (how === 'create') {
          const file: File = { bytes: Buffer.alloc(0), durable: Buffer.alloc(0), pending: [] }
          change((to) => to.set(path, file))
        }
        return handle(find(path))
      }),
    makeFolder: () => call(() => undefined),
    list: (folder) => call(() => [...names.keys()].filter((path) => folderOf(path) === folder).map((path) => path.slice(folder.length + 1))),
    rename: (from, to) =>
      call(() => {
        const file = find(from)
        change((where) => {
          where.delete(from)
          where.set(to, file)
        })
      }),
    remove: (path) =>
      call(() => {
        find(path)
        change((where) => where.delete(path))
      }),
    syncFolder: () =>
      call(() => {
        if (!syncs) return
        for (const done of changes) done(durableNames)
        changes = []
      }),
  }

  const files = (): Map<string, Buffer> => new Map([...names].map(([path, { bytes }]) => [path, bytes]))
  return {
    fs,
    files,
    calls: () => calls,
    onCall: (heard) => (listener = heard),
    freeze: () => (frozen = true),
    afterKill: () => memoryDisk(files(), { syncs }),
    afterCut: (random) => {
      const left: Names = new Map(durableNames)
      for (const done of changes.slice(0, Math.floor(random() * (changes.length + 1)))) done(left)
      const survived = new Map<string, Buffer>()
      for (const [path, { durable, pending }] of left) {
        let bytes: Buffer = Buffer.from(durable)
        const share = random()
        for (const write of pending) {
          for (let at = 0; at < write.bytes.length; at += PAGE) {
            if (random() < share) bytes = put(bytes, write.bytes.subarray(at, at + PAGE), write.at + at)
          }
        }
        survived.set(path, bytes)
      }
      return memoryDisk(survived, { syncs })
    },
  }
}

/** The same numbers from the same seed. */
export const randomFrom = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
