/**
 * A process with a log to lose: it appends, reads and settles as fast as it can, and writes
 * each step into a ledger before it takes the next one.
 *
 *   node log-worker.js '{"modules": <folder of segment-log.js, as a URL>, "folder", "ledger", "round", "window", "syncs"}'
 */
import { openSync, writeSync } from 'node:fs'

const { modules, folder, ledger, round, window, syncs = true } = JSON.parse(process.argv[2])
const { openSegmentLog } = await import(`${modules}/segment-log.js`)
const { nodeFileSystem } = await import(`${modules}/log-files.js`)
const book = openSync(ledger, 'a')
const say = (line) => writeSync(book, `${line}\n`)

const nothing = () => Promise.resolve()
const unsynced = {
  ...nodeFileSystem,
  open: async (path, how) => ({ ...(await nodeFileSystem.open(path, how)), sync: nothing }),
  syncFolder: nothing,
}

openSegmentLog(folder, { maxBytes: 2 ** 26, segmentBytes: 2 ** 18, fs: syncs ? nodeFileSystem : unsynced }).subscribe((log) => {
  say('open')
  let n = 0
  const put = () => {
    const id = `${round}-${n++}`
    log.append(Buffer.from(id.padEnd(300))).subscribe({
      error: () => setImmediate(put),
      complete: () => {
        say(`a${id}`)
        put()
      },
    })
  }
  for (let i = 0; i < 64; i += 1) put()

  const outside = []
  const pull = () =>
    log.next(window - outside.length).subscribe((entries) => {
      outside.push(...entries)
      // The newest first, and the oldest quarter not yet.
      for (const { seq, body } of outside.splice(outside.length >> 2).reverse()) {
        say(`s${body.toString().trim()}`)
        log.settle(seq)
      }
      // Slower than the appenders, so that there is always much to lose.
      setTimeout(pull, 10)
    })
  pull()
})
