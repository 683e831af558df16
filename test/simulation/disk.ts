/**
 * A disk: what was written is in the system's memory until it is synced, names until their
 * folder is. A power cut leaves what was synced, and of the rest whatever chance says.
 */
import { Observable, of } from 'rxjs'
import { FolderInUse } from '../../src/connections/folder-lock.js'
import type { Lock } from '../../src/connections/folder-lock.js'
import type { LogFile, LogFileSystem } from '../../src/connections/log-files.js'
import { clock } from './clock.js'
import type { Owner } from './clock.js'
import type { Ground } from './ground.js'

interface Inode {
  data: Buffer
  size: number
  durable: Buffer
  durableSize: number
  /** Written and not synced. */
  dirty: { readonly from: number; readonly to: number }[]
}

interface Folder {
  readonly names: Map<string, Inode>
  readonly durable: Map<string, Inode>
  /** What was done to names since the folder was synced. */
  changes: ((names: Map<string, Inode>) => void)[]
}

const sectorBytes = 512

export interface Disk {
  readonly fs: (owner: Owner) => LogFileSystem
  readonly lock: (owner: Owner) => (folder: string) => Observable<Lock>
  readonly powerCut: () => void
  readonly full: (freeBytes: number | undefined) => void
  readonly failSyncs: (count: number) => void
  readonly failWrites: (count: number) => void
  readonly slow: (ms: number) => void
  readonly dirtyBytes: () => number
  /** It has failed at something: a process may give up because of it. */
  readonly failures: () => number
}

const problem = (code: string): Error => Object.assign(new Error(`${code}: as simulated`), { code })

const grow = (inode: Inode, size: number): void => {
  if (size > inode.data.length) {
    const larger = Buffer.alloc(Math.max(size, inode.data.length * 2, 1024))
    inode.data.copy(larger)
    inode.data = larger
  }
  inode.size = Math.max(inode.size, size)
}

export const simulatedDisk = ({ random, trace, point }: Ground): Disk => {
  const folders = new Map<string, Folder>()
  const holders = new Map<string, Owner>()
  let limit = Number.POSITIVE_INFINITY
  let badSyncs = 0
  let badWrites = 0
  let slowMs = 0
  let failures = 0

  const split = (path: string): [string, string] => {
    const at = path.lastIndexOf('/')
    return [path.slice(0, at), path.slice(at + 1)]
  }
  const folderOf = (path: string): Folder => {
    const folder = folders.get(path)
    if (folder === undefined) throw problem('ENOENT')
    return folder
  }
  const used = (): number => {
    let sum = 0
    for (const { names } of folders.values()) for (const { size } of names.values()) sum += size
    return sum
  }
  const change = (folder: Folder, act: (names: Map<string, Inode>) => void): void => {
    act(folder.names)
    folder.changes.push(act)
  }
  const keep = (inode: Inode, { from, to }: { from: number; to: number }): void => {
    if (to > inode.durable.length) {
      const larger = Buffer.alloc(Math.max(to, inode.durable.length * 2, 1024))
      inode.durable.copy(larger)
      inode.durable = larger
    }
    inode.data.copy(inode.durable, from, from, to)
    inode.durableSize = Math.max(inode.durableSize, to)
  }
  const fail = (code: string): never => {
    failures += 1
    throw problem(code)
  }

  /** `begin` happens now, its end is told later; a process that has died hears nothing. */
  const operation = <T>(owner: Owner, ms: number, begin: () => () => T): Promise<T> =>
    new Promise((resolve, reject) => {
      if (!owner.alive) return
      let end: () => T
      try {
        end = begin()
      } catch (error) {
        const failed = error as Error
        end = () => {
          throw failed
        }
      }
      clock.after(ms + slowMs, () => {
        if (!owner.alive) return
        try {
          resolve(end())
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)))
        }
      })
    })
  const quick = (): number => random.between(0, 2) / 4
  const nothing = (): void => {}

  const fileOf = (owner: Owner, inode: Inode): LogFile => ({
    read: (into, position) =>
      operation(owner, quick(), () => () => {
        const bytes = Math.max(0, Math.min(into.length, inode.size - position))
        inode.data.copy(into, 0, position, position + bytes)
        return bytes
      }),
    write: (bytes, position) => {
      point('write')
      return operation(owner, quick(), () => {
        if (badWrites > 0) {
          badWrites -= 1
          return fail('EIO')
        }
        const room = Math.max(0, limit - used()) + Math.max(0, inode.size - position)
        const written = Math.min(bytes.length, room)
        if (written === 0 && bytes.length > 0) return fail('ENOSPC')
        grow(inode, position + written)
        bytes.copy(inode.data, position, 0, written)
        inode.dirty.push({ from: position, to: position + written })
        return () => written
      })
    },
    sync: () => {
      point('sync')
      return operation(owner, random.between(1, 8) / 2, () => {
        const dirty = [...inode.dirty]
        const bad = badSyncs > 0
        if (bad) badSyncs -= 1
        return () => {
          // After a failed sync the system forgets what it could not write: no later one brings it to the disk.
          for (const range of dirty) if (!bad || random.chance(0.5)) keep(inode, range)
          inode.dirty = inode.dirty.filter((range) => !dirty.includes(range))
          if (!bad) inode.durableSize = inode.size
          trace(`disk ${bad ? 'fails to sync' : 'syncs'}`)
          if (bad) fail('EIO')
        }
      })
    },
    truncate: (length) =>
      operation(owner, quick(), () => {
        inode.data.fill(0, Math.min(length, inode.data.length))
        inode.size = Math.min(inode.size, length)
        inode.dirty = inode.dirty.filter(({ from }) => from < length).map(({ from, to }) => ({ from, to: Math.min(to, length) }))
        return nothing
      }),
    size: () => operation(owner, quick(), () => () => inode.size),
    isAt: (path, length) => {
      const [parent, name] = split(path)
      return folders.get(parent)?.names.get(name) === inode && inode.size >= length
    },
    close: () => operation(owner, 0, () => nothing),
  })

  const fs = (owner: Owner): LogFileSystem => ({
    open: (path, how) =>
      operation(owner, quick(), () => {
        const [parent, name] = split(path)
        const folder = folderOf(parent)
        const found = folder.names.get(name)
        if (how !== 'create') {
          if (found === undefined) throw problem('ENOENT')
          return () => fileOf(owner, found)
        }
        const inode: Inode = { data: Buffer.alloc(0), size: 0, durable: Buffer.alloc(0), durableSize: 0, dirty: [] }
        change(folder, (names) => names.set(name, inode))
        return () => fileOf(owner, inode)
      }),
    makeFolder: (path) =>
      operation(owner, quick(), () => {
        if (!folders.has(path)) folders.set(path, { names: new Map(), durable: new Map(), changes: [] })
        return nothing
      }),
    list: (path) => operation(owner, quick(), () => () => [...folderOf(path).names.keys()]),
    rename: (from, to) =>
      operation(owner, quick(), () => {
        const [parent, old] = split(from)
        const folder = folderOf(parent)
        const inode = folder.names.get(old)
        if (inode === undefined) throw problem('ENOENT')
        const [, fresh] = split(to)
        change(folder, (names) => {
          names.delete(old)
          names.set(fresh, inode)
        })
        return nothing
      }),
    remove: (path) =>
      operation(owner, quick(), () => {
        const [parent, name] = split(path)
        const folder = folderOf(parent)
        if (!folder.names.has(name)) throw problem('ENOENT')
        change(folder, (names) => names.delete(name))
        return nothing
      }),
    syncFolder: (path) => {
      point('sync')
      return operation(owner, random.between(1, 4) / 2, () => {
        const folder = folderOf(path)
        const changes = [...folder.changes]
        const bad = badSyncs > 0
        if (bad) badSyncs -= 1
        return () => {
          if (bad) fail('EIO')
          for (const act of changes) act(folder.durable)
          folder.changes = folder.changes.filter((act) => !changes.includes(act))
        }
      })
    },
  })

  /** Of what was not synced: nothing, all, the beginning, or some sectors. */
  const tear = (inode: Inode): void => {
    const sectors = inode.dirty.flatMap(({ from, to }) => {
      const parts = []
      for (let at = from; at < to; at = Math.min(to, at + sectorBytes - (at % sectorBytes)))
        parts.push({ from: at, to: Math.min(to, at + sectorBytes - (at % sectorBytes)) })
      return parts
    })
    const how = random.between(0, 3)
    const kept = how === 0 ? [] : how === 1 ? sectors : how === 2 ? sectors.slice(0, random.between(0, sectors.length)) : sectors.filter(() => random.chance(0.5))
    for (const sector of kept) keep(inode, sector)
    inode.data = Buffer.alloc(inode.durableSize)
    inode.durable.copy(inode.data, 0, 0, inode.durableSize)
    inode.size = inode.durableSize
    inode.dirty = []
  }

  return {
    fs,
    lock: (owner) => (folder) => {
      const holder = holders.get(folder)
      if (holder !== undefined && holder !== owner && holder.alive)
        return new Observable((subscriber) => subscriber.error(new FolderInUse(folder, { pid: 1 })))
      holders.set(folder, owner)
      return of({
        release: () =>
          new Observable<never>((subscriber) => {
            holders.delete(folder)
            subscriber.complete()
          }),
      })
    },
    powerCut: () => {
      for (const folder of folders.values()) {
        for (const act of folder.changes.slice(0, random.between(0, folder.changes.length))) act(folder.durable)
        folder.changes = []
        folder.names.clear()
        for (const [name, inode] of folder.durable) folder.names.set(name, inode)
        for (const inode of new Set(folder.names.values())) tear(inode)
      }
    },
    full: (freeBytes) => {
      limit = freeBytes === undefined ? Number.POSITIVE_INFINITY : used() + freeBytes
    },
    failSyncs: (count) => {
      badSyncs = count
    },
    failWrites: (count) => {
      badWrites = count
    },
    slow: (ms) => {
      slowMs = ms
    },
    dirtyBytes: () => {
      let sum = 0
      for (const { names } of folders.values()) for (const { dirty } of names.values()) for (const { from, to } of dirty) sum += to - from
      return sum
    },
    failures: () => failures,
  }
}
