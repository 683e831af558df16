import { mkdir, open, readdir, rm, stat, statfs } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { randomUUID } from 'node:crypto'
import { lastValueFrom } from 'rxjs'
import { folderHolder } from '../connections/folder-lock.js'
import type { Holder } from '../connections/folder-lock.js'
import type { Settings } from '../settings.js'
import { ok, problem, skipped, warning } from './doctor-finding.js'
import type { Finding } from './doctor-finding.js'

const MiB = 1024 * 1024
const leastBytes = 100 * MiB
const size = (bytes: number): string => (bytes >= 1024 * MiB ? `${(bytes / 1024 / MiB).toFixed(1)} GiB` : `${Math.round(bytes / MiB)} MiB`)

type Kind = readonly [name: string, verdict?: 'warning' | 'problem', why?: string]
const network = 'a network file system may lose its locks and its syncs'
/** Linux's magic numbers of file systems: what a sync is worth there. */
const fileSystems: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  [0xef53, ['ext4']], [0x58465342, ['XFS']], [0x9123683e, ['Btrfs']], [0xf2f52010, ['F2FS']], [0x2fc12fc1, ['ZFS']],
  [0x01021994, ['tmpfs', 'problem', 'it is memory: everything in it is gone at a restart']],
  [0x858458f6, ['ramfs', 'problem', 'it is memory: everything in it is gone at a restart']],
  [0x794c7630, ['overlayfs', 'warning', 'a container’s own layer goes with the container']],
  [0x6969, ['NFS', 'warning', network]], [0xff534d42, ['CIFS', 'warning', network]], [0xfe534d42, ['SMB', 'warning', network]],
  [0x4d44, ['FAT', 'warning', 'it has no journal: a power cut may cost more than the last write']],
  [0x2011bab0, ['exFAT', 'warning', 'it has no journal: a power cut may cost more than the last write']],
])

export const fileSystemFinding = (magic: number): Finding => {
  const [name, verdict, why = ''] = fileSystems.get(magic) ?? [undefined]
  if (name === undefined) return skipped('file system', `of a kind that is not known here (0x${magic.toString(16)})`)
  if (verdict === undefined) return ok('file system', name)
  return { what: 'file system', verdict, detail: `${name}: ${why}`, todo: 'put BACKHAUL_DATA_DIR on a local disk: ext4, XFS, Btrfs or F2FS' }
}

export const spaceFinding = (freeBytes: number, { storeMaxBytes }: Pick<Settings, 'storeMaxBytes'>): Finding => {
  const free = `${size(freeBytes)} free`
  if (freeBytes < leastBytes) return problem('free space', `${free}: hardly anything can be kept`, 'make room, or set BACKHAUL_DATA_DIR to another disk')
  if (freeBytes < storeMaxBytes)
    return warning('free space', `${free}, and what is kept may take ${size(storeMaxBytes)}: the disk is full before that limit`, 'make room, or lower BACKHAUL_STORE_MAX_BYTES')
  return ok('free space', free)
}

/** The folder, or the nearest one above it that is there. */
const existing = async (folder: string): Promise<string> => {
  try {
    await stat(folder)
    return folder
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(folder) === folder) throw error
    return existing(dirname(folder))
  }
}

/** Writes, syncs and removes a small file, in a folder of its own: nothing else is touched. */
const tryWriting = async (folder: string): Promise<void> => {
  const own = join(folder, `.doctor-${randomUUID()}`)
  await mkdir(own)
  try {
    const file = await open(join(own, 'file'), 'wx')
    await file.writeFile('doctor\n')
    await file.sync()
    await file.close()
  } finally {
    await rm(own, { recursive: true, force: true })
  }
}

const newestIn = async (folder: string): Promise<number> => {
  const names = await readdir(folder).catch(() => [])
  const times = await Promise.all(names.map((name) => stat(join(folder, name)).then(({ mtimeMs }) => mtimeMs, () => 0)))
  return Math.max(0, ...times)
}

export interface FolderFindings {
  readonly findings: readonly Finding[]
  readonly holder?: Holder
  /** When the newest file in it was written. */
  readonly newestMs: number
}

/** The data folder: whether it can be written, on what, how much room there is, and who has it. */
export const folderFindings = async (settings: Settings): Promise<FolderFindings> => {
  const folder = resolve(settings.dataDir)
  const parts = [folder, join(folder, 'spool'), join(folder, 'dead'), join(folder, 'configuration')]
  const newestMs = Math.max(...(await Promise.all(parts.map(newestIn))))
  try {
    const there = await existing(folder)
    await tryWriting(there)
    const { bavail, bsize, type } = await statfs(there)
    const holders = await Promise.all(parts.slice(1).map((part) => lastValueFrom(folderHolder(part), { defaultValue: undefined })))
    const holder = holders.find((each) => each !== undefined)
    const held = holder === undefined ? 'nobody has it now' : `process ${holder.pid} has it${holder.httpAddress === undefined ? '' : `, at ${holder.httpAddress}`}`
    const findings = [
      ok('data folder', there === folder ? `${folder} can be written; ${held}` : `${folder} will be made in ${there}, which can be written`),
      fileSystemFinding(type),
      spaceFinding(bavail * bsize, settings),
    ]
    return { findings, newestMs, ...(holder === undefined ? {} : { holder }) }
  } catch (error) {
    const reason = (error as Error).message
    return { findings: [problem('data folder', `${folder} cannot be written: ${reason}`, 'give it to the user who runs Backhaul, or set BACKHAUL_DATA_DIR')], newestMs }
  }
}
