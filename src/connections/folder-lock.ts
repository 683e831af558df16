/**
 * One process at a time in a data folder.
 *
 * On Linux the lock is a bound abstract socket, which the kernel frees however the process
 * dies; a file `lock` beside it tells who holds it, and stands in where the socket cannot
 * reach (another network name space, another platform). Across process name spaces that
 * share neither, two containers on one volume, nothing can tell a live holder from a dead
 * one, and the file is taken over.
 */
import { createHash, randomUUID } from 'node:crypto'
import { open, readFile, readlink, realpath, rename, unlink } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { defer, ignoreElements, Observable } from 'rxjs'
import { makeFolder } from '../make-folder.js'

export interface Holder {
  readonly pid: number
  readonly httpAddress?: string
}

export interface Lock {
  /** Frees the folder and completes. */
  readonly release: () => Observable<never>
}

/** The folder belongs to another process, or is already open in this one. */
export class FolderInUse extends Error {
  override readonly name = 'FolderInUse'
  readonly code = 'BACKHAUL_FOLDER_IN_USE'
  constructor(
    readonly folder: string,
    readonly holder: Holder | undefined,
  ) {
    const who = holder === undefined ? 'another process' : `process ${holder.pid}`
    const where = holder?.httpAddress === undefined ? '' : `, which answers at ${holder.httpAddress}`
    super(`${folder} is in use by ${who}${where}: stop it, or choose another folder`)
  }
}

interface LockFile extends Holder {
  readonly token: string
  readonly bootId?: string
  readonly pidSpace?: string
  readonly startedAt?: string
}

const held = new Set<string>()

const orUndefined = <T>(promise: Promise<T>): Promise<T | undefined> => promise.catch(() => undefined)

/** Field 22 of the process's status, counted behind the name, which may hold anything. */
const startOf = async (pid: number): Promise<string | undefined> => {
  const status = await orUndefined(readFile(`/proc/${pid}/stat`, 'utf8'))
  return status?.slice(status.lastIndexOf(')') + 2).split(' ')[19]
}

const readLock = async (path: string): Promise<LockFile | undefined> => {
  try {
    const found = JSON.parse(await readFile(path, 'utf8')) as LockFile
    return Number.isInteger(found.pid) && found.pid > 0 ? found : undefined
  } catch {
    return undefined
  }
}

const alive = async (found: LockFile, own: LockFile): Promise<boolean> => {
  if (found.bootId !== own.bootId || found.pidSpace !== own.pidSpace) return false
  try {
    process.kill(found.pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
  }
  return found.startedAt === undefined || found.startedAt === (await startOf(found.pid))
}

const bind = (name: string): Promise<Server | undefined> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy())
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined)
      else reject(error)
    })
    server.listen(`\0${name}`, () => {
      server.unref()
      resolve(server)
    })
  })

const writeLock = async (path: string, own: LockFile): Promise<void> => {
  const temporary = `${path}.${own.token}`
  const file = await open(temporary, 'wx', 0o600)
  await file.writeFile(JSON.stringify(own)).finally(() => file.close())
  await rename(temporary, path)
}

const lockFileOf = async (holder: Holder): Promise<LockFile> => {
  const bootId = (await orUndefined(readFile('/proc/sys/kernel/random/boot_id', 'utf8')))?.trim()
  const pidSpace = await orUndefined(readlink('/proc/self/ns/pid'))
  const startedAt = await startOf(holder.pid)
  return {
    ...holder,
    token: randomUUID(),
    ...(bootId !== undefined && { bootId }),
    ...(pidSpace !== undefined && { pidSpace }),
    ...(startedAt !== undefined && { startedAt }),
  }
}

const acquire = async (folder: string, holder: Holder): Promise<Lock> => {
  await makeFolder(folder)
  // Links are one folder. Two names of one bind mount are not seen here: the file tells of those.
  const name = `backhaul-${createHash('sha256').update(await realpath(folder)).digest('hex').slice(0, 32)}`
  const path = join(folder, 'lock')
  if (held.has(name)) throw new FolderInUse(folder, await readLock(path))
  held.add(name)
  let server: Server | undefined
  try {
    const own = await lockFileOf(holder)
    if (process.platform === 'linux') {
      server = await bind(name)
      if (server === undefined) throw new FolderInUse(folder, await readLock(path))
    }
    const found = await readLock(path)
    // A file that names this very process is left over: `held` and the socket know better.
    if (found !== undefined && found.pid !== process.pid && (await alive(found, own))) throw new FolderInUse(folder, found)
    await writeLock(path, own)
    // Without a socket two processes may replace a dead holder's file at once: the last one has it.
    if (server === undefined && (await readLock(path))?.token !== own.token) throw new FolderInUse(folder, await readLock(path))
    const free = async (): Promise<void> => {
      if ((await readLock(path))?.token === own.token) await orUndefined(unlink(path))
      await new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())))
      held.delete(name)
    }
    let freed: Promise<void> | undefined
    return {
      release: () =>
        defer(() => (freed ??= free())).pipe(ignoreElements()),
    }
  } catch (error) {
    server?.close()
    held.delete(name)
    throw error
  }
}

/**
 * Takes the folder, making it when it is missing; emits the lock and completes. Unsubscribing
 * earlier gives it back.
 *
 * **Fails** within a second with `FolderInUse`, which names the holder and its HTTP address.
 */
export const lockFolder = (folder: string, holder: Holder = { pid: process.pid }): Observable<Lock> =>
  new Observable((subscriber) => {
    void acquire(folder, holder).then(
      (lock) => {
        if (subscriber.closed) return void lock.release().subscribe()
        subscriber.next(lock)
        subscriber.complete()
      },
      (error: unknown) => subscriber.error(error),
    )
  })

/** Who holds the folder now, as far as its lock file tells; undefined when nobody does. Takes nothing and writes nothing. */
export const folderHolder = (folder: string): Observable<Holder | undefined> =>
  defer(async () => {
    const found = await readLock(join(folder, 'lock'))
    if (found === undefined || !(await alive(found, await lockFileOf({ pid: process.pid })))) return undefined
    const { pid, httpAddress } = found
    return { pid, ...(httpAddress === undefined ? {} : { httpAddress }) }
  })
