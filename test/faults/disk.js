/** A small ext4 of one's own that can be filled up and broken. Needs root, losetup and mount. */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { freshImage, mounted, run } from './power-cut/image.js'

export const openDisk = (sizeMiB) => {
  const home = mkdtempSync(join(tmpdir(), 'backhaul-disk-'))
  const [image, folder] = [join(home, 'image'), join(home, 'disk')]
  let disk
  const mount = () => {
    disk = mounted(image, folder, 'errors=remount-ro')
  }
  const unmount = () => {
    disk?.unmount()
    disk = undefined
  }
  const remove = () => rmSync(home, { recursive: true, force: true })
  const ballast = join(folder, 'ballast')
  try {
    freshImage(image, sizeMiB)
    mount()
  } catch (error) {
    remove()
    throw error
  }
  return {
    folder,
    /** Not one byte is left for anybody. */
    fill: () => {
      const into = openSync(ballast, 'a')
      for (let size = 2 ** 20; size >= 1; )
        try {
          if (writeSync(into, Buffer.alloc(size)) < size) size >>= 1
        } catch (error) {
          if (error.code !== 'ENOSPC') throw error
          size >>= 1
        }
      closeSync(into)
    },
    free: () => rmSync(ballast),
    /** The file system meets an error and turns itself read-only, with everything open that is open. */
    fail: () => writeFileSync(`/sys/fs/ext4/${basename(disk.device)}/trigger_fs_error`, 'trouble'),
    isReadOnly: () => {
      try {
        writeFileSync(join(folder, 'probe'), '')
        return false
      } catch (error) {
        return error.code === 'EROFS'
      }
    },
    /** Checked and mounted anew; nobody may use it meanwhile. */
    repair: () => {
      unmount()
      try {
        run('e2fsck', '-y', image)
      } catch (error) {
        // 1: mended.
        if (error.status !== 1) throw error
      }
      mount()
    },
    close: () => {
      unmount()
      remove()
    },
  }
}

/** Why there can be none here, or nothing. */
export const whyNoDisk = () => {
  try {
    openDisk(16).close()
    return undefined
  } catch (error) {
    return `no loop-mounted ext4 here: ${String(error.stderr || error.message).trim().split('\n')[0]}`
  }
}
