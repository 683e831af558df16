/** What a folder holds when the log is opened: its segments, and the salt that makes their records genuine. */
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { Segment } from './log-cursor.js'
import { attempt, placeFile, readStart, type LogFileSystem } from './log-files.js'
import { QueueFailed } from './queue-engine.js'
import { decodeSegmentHeader, encodeSegmentHeader, FORMAT_VERSION, LAST_SEQ, SALT_BYTES, sealOf, SEGMENT_HEADER_BYTES } from './segment-record.js'

/** Counts a broken place of so many bytes. */
export type CountDamage = (bytes: number) => void

const isSegment = (name: string): boolean => /^\d{16}\.log$/.test(name) && Number(name.slice(0, 16)) <= LAST_SEQ

/**
 * The segments by name, and the salt from whichever copy of it is whole.
 *
 * **Fails** with `QueueFailed` when a later version wrote the folder.
 */
export const readFolder = async (
  fs: LogFileSystem,
  folder: string,
  onDamage: CountDamage,
): Promise<{ readonly salt: Buffer; readonly segments: Segment[] }> => {
  const names = await fs.list(folder)
  for (const name of names) if (name.endsWith('.new')) await attempt(fs.remove(join(folder, name)))

  const files = await Promise.all(
    names.filter(isSegment).sort().map(async (name) => {
      const { start, size } = await readStart(fs, join(folder, name), SEGMENT_HEADER_BYTES)
      return { name, size, header: decodeSegmentHeader(start) }
    }),
  )
  for (const { name, header } of files) {
    if (header !== undefined && header.version > FORMAT_VERSION) {
      throw new QueueFailed('BACKHAUL_QUEUE_FORMAT', `${join(folder, name)} has format ${header.version}, which a later version wrote`)
    }
  }

  const saltPath = join(folder, 'salt')
  const saltKept = names.includes('salt')
  const kept = saltKept ? decodeSegmentHeader((await readStart(fs, saltPath, SEGMENT_HEADER_BYTES)).start) : undefined
  const salt = kept?.salt ?? files.find(({ header }) => header !== undefined)?.header?.salt ?? randomBytes(SALT_BYTES)
  if (kept === undefined) {
    if (saltKept) onDamage(SEGMENT_HEADER_BYTES)
    // Without room for it the copies in the segments do, and the next start tries again.
    await placeFile(fs, folder, saltPath, encodeSegmentHeader(salt)).then(
      (file) => file.close(),
      (error: unknown) => {
        if (files.length === 0) throw error
      },
    )
  }

  const segments = files.map(({ name, size, header }): Segment => {
    const first = Number(name.slice(0, 16))
    const damaged = header === undefined
    if (damaged && size > 0) onDamage(Math.min(size, SEGMENT_HEADER_BYTES))
    return { first, path: join(folder, name), seal: sealOf(header?.salt ?? salt, first), length: size, verified: 0, damaged, next: undefined }
  })
  segments.forEach((segment, i) => (segment.next = segments[i + 1]))
  return { salt, segments }
}

