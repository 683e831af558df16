/** One leg of `bench/queue.js`, in a process of its own, so that its CPU and its memory are its own. */
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { nodeFileSystem } from '../dist/connections/log-files.js'
import { openSegmentLog } from '../dist/connections/segment-log.js'
import { record } from './record.js'

const { leg, folder, messages, appenders = 256, window = 1000 } = JSON.parse(process.argv[2])
const body = Buffer.from(record(1))

const openLog = (fs = nodeFileSystem) => firstValueFrom(openSegmentLog(folder, { maxBytes: 2 ** 33, fs }))
const close = (log) => lastValueFrom(log.close(), { defaultValue: undefined })
const timed = async (work) => {
  const start = performance.now()
  const value = await work()
  return { value, seconds: (performance.now() - start) / 1000 }
}
const peakMiB = () => process.resourceUsage().maxRSS / 1024

/** Each appender waits for its own answer before it appends again. */
const appendAll = (log, count, latencies) =>
  new Promise((resolve, reject) => {
    let begun = 0
    let done = 0
    const appender = () => {
      let start = 0
      const observer = {
        error: reject,
        complete: () => {
          latencies?.push(performance.now() - start)
          done += 1
          if (done === count) resolve()
          else put()
        },
      }
      const put = () => {
        if (begun === count) return
        begun += 1
        start = performance.now()
        log.append(body).subscribe(observer)
      }
      return put
    }
    for (let i = 0; i < appenders; i += 1) appender()()
  })

/** Settles everything it gets, one turn later, and asks for what then fits into its window. */
const drain = (log, count) =>
  new Promise((resolve, reject) => {
    let settled = 0
    const pull = () =>
      log.next(window).subscribe({
        error: reject,
        next: (entries) =>
          setImmediate(() => {
            for (const { seq } of entries) log.settle(seq)
            settled += entries.length
            if (settled === count) resolve()
            else pull()
          }),
      })
    pull()
  })

const legs = {
  /** Messages through the queue: appended, read and settled at the same time. */
  through: async () => {
    const log = await openLog()
    const cpu = process.cpuUsage()
    const { seconds } = await timed(() => Promise.all([appendAll(log, messages), drain(log, messages)]))
    const { user, system } = process.cpuUsage(cpu)
    await close(log)
    return { rate: messages / seconds, cpuS: (user + system) / 1e6, peakMiB: peakMiB() }
  },

  /** Slices of appends, and after each a bare loop that writes and syncs the very groups that the log made of them. */
  append: async () => {
    let groups = []
    const fs = {
      ...nodeFileSystem,
      open: async (path, how) => {
        const file = await nodeFileSystem.open(path, how)
        return { ...file, write: (bytes, at) => (groups.push(bytes.length), file.write(bytes, at)) }
      },
    }
    const log = await openLog(fs)
    const file = await open(join(folder, 'bare'), 'w+', 0o600)
    const bytes = Buffer.alloc(2 ** 21, 'x')
    const latencies = []
    const spent = { log: 0, bare: 0, syncs: 0 }
    const slices = 20
    for (let slice = 0, at = 0; slice < slices; slice += 1) {
      groups = []
      spent.log += (await timed(() => appendAll(log, messages / slices, latencies))).seconds
      const bare = await timed(async () => {
        for (const size of groups.slice()) {
          await file.write(bytes, 0, size, at)
          await file.datasync()
          at += size
        }
      })
      spent.bare += bare.seconds
      spent.syncs += groups.length
    }
    await file.close()
    await close(log)
    latencies.sort((a, b) => a - b)
    return {
      rate: messages / spent.log,
      bareRate: messages / spent.bare,
      ratio: spent.bare / spent.log,
      syncs: spent.syncs,
      p99: latencies[Math.floor(latencies.length * 0.99)],
    }
  },

  fill: async () => {
    const log = await openLog()
    const { seconds } = await timed(() => appendAll(log, messages))
    await close(log)
    return { rate: messages / seconds, peakMiB: peakMiB() }
  },

  /** Opens a full folder, reads it to the end, and counts what is left of it on the disk. */
  drain: async () => {
    const delay = monitorEventLoopDelay({ resolution: 1 })
    delay.enable()
    const opened = await timed(openLog)
    const log = opened.value
    const { seconds } = await timed(() => drain(log, messages))
    await close(log)
    delay.disable()
    const sizes = await Promise.all((await readdir(folder)).filter((name) => name.endsWith('.log')).map(async (name) => (await stat(join(folder, name))).size))
    return {
      openMs: opened.seconds * 1000,
      rate: messages / seconds,
      stallMs: delay.max / 1e6,
      peakMiB: peakMiB(),
      leftMiB: sizes.reduce((sum, size) => sum + size, 0) / 2 ** 20,
      leftFiles: sizes.length,
    }
  },
}

console.log(JSON.stringify(await legs[leg]()))
