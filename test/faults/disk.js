/** A small ext4 of one's own, in an image behind a loop device, that can be filled up and broken. Needs root. */
import { execFileSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'

const run = (command, ...args) => execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 }).trim()

export const openDisk = (sizeMiB) => {
  const home = mkdtempSync(join(tmpdir(), 'backhaul-disk-'))
  const [image, folder] = [join(home, 'image'), join(home, 'disk')]
  let device
  let mounted = false
  const file = openSync(image, 'w')
  ftruncateSync(file, sizeMiB * 2 ** 20)
  closeSync(file)
  mkdirSync(folder)

  const mount = () => {
    run('mount', '-o', 'errors=remount-ro', device, folder)
    mounted = true
  }
  const unmount = () => {
    if (mounted) run('umount', folder)
    mounted = false
  }
  const release = () => {
    if (device !== undefined) run('losetup', '--detach', device)
    rmSync(home, { recursive: true, force: true })
  }
  // Whoever interrupts the suite must not find a disk left behind; who uses it then is about to be killed.
  const atExit = () => {
    if (mounted) run('umount', '--lazy', folder)
    release()
  }
  process.once('exit', atExit)
  const close = () => {
    unmount()
    process.off('exit', atExit)
    release()
  }
  const ballast = join(folder, 'ballast')
  try {
    run('mkfs.ext4', '-q', '-F', image)
    device = run('losetup', '--find', '--show', image)
    mount()
  } catch (error) {
    close()
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
    fail: () => writeFileSync(`/sys/fs/ext4/${basename(device)}/trigger_fs_error`, 'trouble'),
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
        run('e2fsck', '-y', device)
      } catch (error) {
        // 1: mended.
        if (error.status !== 1) throw error
      }
      mount()
    },
    close,
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
