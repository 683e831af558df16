/** Room set aside so that settlements still fit on a full disk: without them nothing could ever be deleted. */
import { join } from 'node:path'
import { attempt, placeFile, type LogFileSystem } from './log-files.js'

export interface Reserve {
  /** Sets the room aside, if it is not. **Fails** when there is none: then nothing may be appended. */
  readonly keep: () => Promise<void>
  /** Gives the room up; says whether there was some. */
  readonly spend: () => Promise<boolean>
}

export const createReserve = (fs: LogFileSystem, folder: string, reserveBytes: number): Reserve => {
  const path = join(folder, 'reserve')
  let kept = reserveBytes === 0
  return {
    keep: async () => {
      if (kept) return
      if (!(await fs.list(folder)).includes('reserve')) await (await placeFile(fs, folder, path, Buffer.alloc(reserveBytes))).close()
      kept = true
    },
    spend: async () => {
      if (!kept || reserveBytes === 0) return false
      kept = false
      await attempt(fs.remove(path))
      return true
    },
  }
}
