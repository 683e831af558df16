/**
 * One Backhaul process, started like a user would, on a port that it keeps over restarts.
 * `dist` is the built daemon, or a copy that somebody has sabotaged.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { eventually } from './wait.js'

export const freePort = async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

const alive = new Set()
process.once('exit', () => alive.forEach((child) => child.kill('SIGKILL')))

/** Not started yet: `start` does it, and again after each end. */
export const makeDaemon = async ({ dist, folder, settings }) => {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  let child
  let gone
  let starts = 0
  let said = ''

  const get = async (path) => {
    try {
      return await fetch(`${url}${path}`, { signal: AbortSignal.timeout(5000) })
    } catch {
      return undefined
    }
  }
  const start = async () => {
    starts += 1
    child = spawn(process.execPath, [join(dist, 'main.js'), 'run'], {
      env: { PATH: process.env.PATH, BACKHAUL_DEVICE_ID: 'faults', BACKHAUL_LOG_LEVEL: 'warn', BACKHAUL_HTTP_PORT: `${port}`, BACKHAUL_DATA_DIR: folder, ...settings },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const mine = child
    alive.add(mine)
    for (const stream of [mine.stdout, mine.stderr]) stream.on('data', (data) => (said = (said + data).slice(-20_000)))
    gone = once(mine, 'exit').then(([code, signal]) => {
      alive.delete(mine)
      return { code, signal }
    })
    await eventually('the daemon answers', async () => {
      if (mine.exitCode !== null) throw new Error(`the daemon ended with ${mine.exitCode}\n${said}`)
      return (await get('/healthz'))?.status === 200
    })
  }
  return {
    url,
    start,
    get,
    starts: () => starts,
    said: () => said,
    pid: () => child.pid,
    alive: () => child.exitCode === null && child.signalCode === null,
    signal: (signal) => child.kill(signal),
    /** Stopped by SIGSTOP, and not only told to. */
    frozen: () => /\) T /.test(readFileSync(`/proc/${child.pid}/stat`, 'utf8')),
    ended: () => gone,
    kill: async () => {
      child.kill('SIGKILL')
      await gone
    },
    ready: async () => (await get('/readyz'))?.status === 200,
    /** Resident memory in bytes, as the kernel counts it. */
    rss: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? 0) * 1024,
    metrics: async () => {
      const text = (await (await get('/metrics'))?.text()) ?? ''
      return (name, label = '') => {
        const line = text.split('\n').find((one) => (one.startsWith(`${name} `) || one.startsWith(`${name}{`)) && one.includes(label))
        return Number(line?.split(' ').pop() ?? NaN)
      }
    },
  }
}
