/** A disk whose power can be cut: an ext4 in a file, behind a loop device. Needs root, losetup and mount. */
import { execFileSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, openSync } from 'node:fs'

export const run = (command, ...args) => execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 }).trim()

export const freshImage = (path, sizeMiB = 160) => {
  const file = openSync(path, 'w')
  ftruncateSync(file, sizeMiB * 2 ** 20)
  closeSync(file)
  run('mkfs.ext4', '-q', '-F', path)
}

/** An image as a mounted folder, until `unmount`. The file holds only what was synced, or is old. */
export const mounted = (image, folder, options = 'commit=60') => {
  const device = run('losetup', '--find', '--show', '--direct-io=on', image)
  try {
    mkdirSync(folder, { recursive: true })
    run('mount', '-o', options, device, folder)
  } catch (error) {
    run('losetup', '--detach', device)
    throw error
  }
  // Whoever interrupts the suite must not find a disk left behind; who uses it then is about to be killed.
  const atExit = () => {
    run('umount', '--lazy', folder)
    run('losetup', '--detach', device)
  }
  process.once('exit', atExit)
  const unmount = () => {
    run('umount', folder)
    process.off('exit', atExit)
    run('losetup', '--detach', device)
  }
  return { device, unmount }
}

/** The disk as it would be found after a power cut in this moment; whoever writes to it stands still meanwhile. */
export const copyImage = (image, copy) => run('cp', '--sparse=always', image, copy)
