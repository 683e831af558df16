import { mkdir } from 'node:fs/promises'
import { resolve } from 'node:path'

/**
 * Makes a folder, and those above it, with mode 0700, unless it is there.
 *
 * A path below a working directory that is gone is made anew, or fails with ENOENT: Node would look for a relative one
 * for ever, at the cost of a processor.
 */
export const makeFolder = async (path: string): Promise<void> => void (await mkdir(resolve(path), { recursive: true, mode: 0o700 }))
