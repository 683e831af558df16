/**
 * One life of the embedded queue, the same each time: appends that roll over several segments, reads and settlements
 * that let the oldest go, a clean end, and a start after it. Whoever traces it counts its calls.
 *
 *   node life.js '{"modules": <folder of segment-log.js, as a URL>, "folder", "ledger", "life", "rounds", "window"}'
 *
 * The ledger has a line for each step, before the next is taken: `a` accepted, `r` refused, `g` given out, `s`
 * settled, each with an id, and at last `end`. What is refused is appended again, until it is taken.
 * With `"stalls": true` it also says how long the event loop stood still, in milliseconds.
 */
import { openSync, writeSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { firstValueFrom, lastValueFrom } from 'rxjs'

const { modules, folder, ledger, life = 0, rounds = 14, window = 8, stalls = false, endless = false } = JSON.parse(process.argv[2])
const { openSegmentLog } = await import(`${modules}/segment-log.js`)
const book = openSync(ledger, 'a')
const say = (line) => writeSync(book, `${line}\n`)
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const persist = async (work, refused) => {
  for (let tries = 0; ; tries += 1) {
    try {
      return await work()
    } catch (error) {
      if (tries === 200) throw error
      refused()
      await pause(20)
    }
  }
}

// Marks come with the next append, not by a timer: then each life makes the same calls.
const open = () => persist(() => firstValueFrom(openSegmentLog(folder, { maxBytes: 2 ** 20, segmentBytes: 4096, reserveBytes: 8192, settleMs: 60_000 })), () => say('rstart'))
let number = 0
const put = (log) => {
  const id = `${life}-${number++}`
  return persist(() => firstValueFrom(log.append(Buffer.from(id.padEnd(150 + (number % 7) * 40, '.')))), () => say(`r${id}`)).then(() => say(`a${id}`))
}

const loop = monitorEventLoopDelay({ resolution: 5 })
const live = async (log, count) => {
  const outside = []
  for (let round = 0; round < count; round += 1) {
    await Promise.all([put(log), put(log), put(log)])
    // Some way behind the appends, so that there is always something to lose.
    const { depth, unsettled } = log.stats()
    if (depth - unsettled > 9)
      for (const { seq, body } of await firstValueFrom(log.next(Math.min(3, window - outside.length)))) {
        const id = body.toString().replace(/\.+$/, '')
        say(`g${id}`)
        outside.push({ seq, id })
      }
    // Not in order, and never all of it.
    for (const { seq, id } of outside.splice(0, outside.length - 1).reverse()) {
      say(`s${id}`)
      log.settle(seq)
    }
  }
}
/** That the last settlements could not be kept is an answer too: those come again. */
const shut = (log) => lastValueFrom(log.close(), { defaultValue: undefined }).catch(() => say('rclose'))

const first = await open()
loop.enable()
// It measures from its first turn on.
await pause(20)
await live(first, rounds)
if (stalls) say(`stalled ${Math.round(loop.max / 1e6)}`)
if (endless) process.kill(process.pid, 'SIGKILL')
await shut(first)
const second = await open()
await live(second, 2)
await shut(second)
say('end')
