/**
 * A process under strace, which counts its calls of the file system and makes one of them fail, be late, or be the last.
 * libuv has one thread here, so that the n-th call is the same one each time.
 */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'

/** A `?` in front: not there on every machine. */
const traced = ['?open', 'openat', 'pwrite64', 'fdatasync', 'fsync', '?rename', '?renameat', '?renameat2', '?unlink', '?unlinkat', 'ftruncate', '?mkdir', '?mkdirat']

/** Why it cannot be done here, or nothing. */
export const whyNoStrace = () => {
  const { status, error } = spawnSync('strace', ['-f', '-o', '/dev/null', '-e', 'inject=unlink:error=EIO', 'true'], { timeout: 10_000 })
  if (error?.code === 'ENOENT') return "strace is missing; Debian's package: strace"
  return status === 0 ? undefined : 'strace may not trace here (containers want the capability SYS_PTRACE)'
}

/** One call: its name, which of its kind in its thread, and all that strace wrote of it. */
const parse = (text) => {
  const counts = new Map()
  return text.split('\n').flatMap((line) => {
    const [, thread, name] = /^(\d+) +(\w+)\(/.exec(line) ?? []
    if (name === undefined) return []
    const key = `${thread} ${name}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
    return [{ name, index: counts.get(key), line }]
  })
}

/**
 * Runs a script of node. `inject` is what strace is told, such as `pwrite64:error=ENOSPC:when=3..7`.
 * With `path` nothing else is looked at, nor counted. In the answer, `killed` says whether the process was killed, and `calls` are those that name the folder.
 */
export const underStrace = async (args, { inject = [], folder, trace, cwd, path, mayFail = false, deadlineMs = 60_000 }) => {
  const options = ['-f', ...(path === undefined ? [] : ['-P', path]), '-y', '-s', '0', '-o', trace, '-e', `trace=${traced.join()}`, '-e', 'signal=none', ...inject.flatMap((one) => ['-e', `inject=${one}`])]
  // A group of its own, so that nothing of it outlives the deadline.
  const child = spawn('strace', [...options, process.execPath, ...args], { cwd, detached: true, env: { ...process.env, UV_THREADPOOL_SIZE: '1' }, stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.on('data', (data) => (said = (said + data).slice(-2000)))
  let late = false
  const end = () => {
    late = true
    try {
      process.kill(-child.pid, 'SIGKILL')
    } catch {
      // It has ended.
    }
  }
  process.once('exit', end)
  const limit = setTimeout(end, deadlineMs)
  const [code, signal] = await new Promise((resolve) => child.once('close', (...how) => resolve(how)))
  clearTimeout(limit)
  process.off('exit', end)
  if (late) throw new Error(`not within ${deadlineMs} ms under strace: ${inject.join(' ')}`)
  const text = existsSync(trace) ? readFileSync(trace, 'utf8') : ''
  rmSync(trace, { force: true })
  const killed = signal === 'SIGKILL' || code === 137
  if (!killed && code !== 0 && !mayFail) throw new Error(`ended with ${code ?? signal}: ${said}`)
  return { killed, calls: parse(text).filter(({ line }) => line.includes(`${folder}/`) || line.includes(`${folder}"`) || line.includes(`${folder}>`)) }
}
