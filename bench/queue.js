/**
 * The embedded queue alone: what it costs, and how far it is from a bare loop that writes
 * and syncs the same groups in the same run.
 *
 *   npm run bench:queue [-- --rounds 3 --messages 300000 --backlog 1000000 --folder /somewhere/on/the/disk]
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    messages: { type: 'string', default: '300000' },
    backlog: { type: 'string', default: '1000000' },
    folder: { type: 'string', default: tmpdir() },
  },
})
const [rounds, messages, backlog] = [values.rounds, values.messages, values.backlog].map(Number)

const leg = async (args) => {
  const child = spawn(process.execPath, [new URL('queue-leg.js', import.meta.url).pathname, JSON.stringify(args)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  if (code !== 0) throw new Error(`leg ${args.leg} ended with ${code}`)
  return JSON.parse(output)
}

const results = []
for (let round = 1; round <= rounds; round += 1) {
  const folder = mkdtempSync(join(values.folder, 'backhaul-queue-'))
  try {
    const through = await leg({ leg: 'through', folder: join(folder, 'through'), messages })
    const append = await leg({ leg: 'append', folder: join(folder, 'append'), messages })
    const fill = await leg({ leg: 'fill', folder: join(folder, 'backlog'), messages: backlog })
    const drain = await leg({ leg: 'drain', folder: join(folder, 'backlog'), messages: backlog })
    results.push({ through, append, fill, drain })
    console.error(`round ${round} of ${rounds} done`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const row = (title, of, bar, digits = 0) => {
  const shown = results.map((result) => of(result))
  const median = [...shown].sort((a, b) => a - b)[Math.floor(shown.length / 2)]
  console.log([title.padEnd(52), ...shown.map((n) => n.toFixed(digits).padStart(10)), median.toFixed(digits).padStart(10), bar.padStart(12)].join(''))
}
console.log(`\n300-byte messages; ${messages} through, ${backlog} as a backlog; ${cpus().length} cores, Node ${process.version}\n`)
console.log([''.padEnd(52), ...results.map((_, i) => `round ${i + 1}`.padStart(10)), 'median'.padStart(10), 'bar'.padStart(12)].join(''))
row('append, read, settle: CPU s per 100,000', ({ through }) => (through.cpuS / messages) * 1e5, '<= 1.5', 2)
row('append, read, settle: per s', ({ through }) => through.rate, '')
row('append, read, settle: peak MiB', ({ through }) => through.peakMiB, '<= 150')
row('256 appenders: per s', ({ append }) => append.rate, '')
row('  a bare loop with the same groups: per s', ({ append }) => append.bareRate, '')
row('  ratio', ({ append }) => append.ratio, '>= 0.7', 2)
row('  messages per sync', ({ append }) => messages / append.syncs, '')
row('  p99 of an append, ms', ({ append }) => append.p99, '', 1)
row('filling the backlog: peak MiB', ({ fill }) => fill.peakMiB, '<= 150')
row('opening the backlog, ms', ({ drain }) => drain.openMs, '<= 500')
row('draining it: per s', ({ drain }) => drain.rate, '>= 150000')
row('draining it: longest stall, ms', ({ drain }) => drain.stallMs, '<= 50', 1)
row('draining it: peak MiB', ({ drain }) => drain.peakMiB, '<= 150')
row('left on disk after it, MiB', ({ drain }) => drain.leftMiB, '<= 16', 2)
