/**
 * Power cuts: the log lies on an ext4 image behind a loop device; while its process is
 * stopped the image is copied, as the disk would be found, and everything that was promised
 * is looked for in the copy. The kernel lives on during the copy, and a drive that lies about
 * flushes is not modelled.
 *
 *   npm run build && node test/faults/power-cut/driver.js [--cuts 200] [--control]
 *
 * `--control` switches syncing off, and must lose. Needs root, losetup and mount: exits 77
 * without. Prints one JSON line; exits 1 when something was lost (with `--control`: when nothing was).
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { firstValueFrom } from 'rxjs'
import { openSegmentLog } from '../../../dist/connections/segment-log.js'
import { allPending } from '../pending.js'
import { copyImage, freshImage, mounted } from './image.js'

const { values } = parseArgs({ options: { cuts: { type: 'string', default: '3' }, control: { type: 'boolean', default: false } } })
const cuts = Number(values.cuts)
const window = 256
/** Waits for what the kernel does next; there is nothing to subscribe to. */
const until = async (holds, what) => {
  for (const end = Date.now() + 20_000; !holds(); ) {
    if (Date.now() > end) throw new Error(`waited in vain: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
const threadsStopped = (pid) =>
  readdirSync(`/proc/${pid}/task`).every((thread) => /^T/.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8').replace(/^.*\) /, '')))

const cut = async (root, round) => {
  const [image, copy, ledger] = ['image', 'copy', 'ledger'].map((name) => join(root, `${name}-${round}`))
  freshImage(image)
  const { unmount: release } = mounted(image, join(root, `disk-${round}`))
  const task = {
    modules: new URL('../../../dist/connections', import.meta.url).href,
    folder: join(root, `disk-${round}`, 'queue'),
    ledger,
    round,
    window,
    syncs: !values.control,
  }
  const worker = spawn(process.execPath, [new URL('../log-worker.js', import.meta.url).pathname, JSON.stringify(task)], { stdio: ['ignore', 'ignore', 'inherit'] })
  const gone = once(worker, 'exit')
  let lines
  let before
  try {
    await until(() => existsSync(ledger) && statSync(ledger).size > 0, 'the log opens')
    await new Promise((resolve) => setTimeout(resolve, 300 + Math.random() * 1200))
    worker.kill('SIGSTOP')
    await until(() => threadsStopped(worker.pid), 'the process stops')
    lines = readFileSync(ledger, 'utf8').split('\n').slice(0, -1)
    before = listing(task.folder)
    copyImage(image, copy)
  } finally {
    worker.kill('SIGKILL')
    await gone
    release()
  }

  const [accepted, settled] = ['a', 's'].map((kind) => new Set(lines.filter((line) => line.startsWith(kind)).map((line) => line.slice(1))))
  const { unmount: releaseCopy } = mounted(copy, join(root, `copy-disk-${round}`))
  try {
    const log = await firstValueFrom(openSegmentLog(join(root, `copy-disk-${round}`, 'queue'), { maxBytes: 2 ** 26 }))
    const pending = (await allPending(log)).map(({ body }) => body.toString().trim())
    const { damagedRecords, tornBytes } = log.stats()
    await firstValueFrom(log.close(), { defaultValue: undefined })
    const left = new Set(pending)
    const lost = [...accepted].filter((id) => !settled.has(id) && !left.has(id))
    if (lost.length > 0 && !values.control) console.error(evidence({ lost, pending, accepted: [...accepted], stats: log.stats(), copy: join(root, `copy-disk-${round}`, 'queue'), before }))
    return {
      accepted: accepted.size,
      due: [...accepted].filter((id) => !settled.has(id)).length,
      lost: lost.length,
      repeated: pending.filter((id) => settled.has(id)).length,
      damagedRecords,
      tornBytes,
    }
  } finally {
    releaseCopy()
    rmSync(image)
    rmSync(copy)
  }
}

const listing = (folder) => readdirSync(folder).map((name) => `${name} ${statSync(join(folder, name)).size}`)
/** What a loss looks like, for whoever must find out why. */
const evidence = ({ lost, accepted, pending, stats, copy, before }) =>
  JSON.stringify({ lost: [lost[0], lost.at(-1), lost.length], accepted: [accepted.at(-1), accepted.length], pending: [pending[0], pending.at(-1), pending.length], stats, before: before.slice(-6), after: listing(copy).slice(-6) })

const root = mkdtempSync(join(tmpdir(), 'backhaul-power-cut-'))
try {
  try {
    freshImage(join(root, 'probe'))
    mounted(join(root, 'probe'), join(root, 'probe-disk')).unmount()
  } catch (error) {
    console.log(`power cuts skipped: no loop-mounted ext4 here (${String(error.stderr || error.message).trim().split('\n')[0]})`)
    process.exitCode = 77
  }
  if (process.exitCode === undefined) {
    const rounds = []
    for (let round = 0; round < cuts; round += 1) rounds.push(await cut(root, round))
    const sum = (name) => rounds.reduce((total, one) => total + one[name], 0)
    const report = {
      cuts,
      syncs: !values.control,
      accepted: sum('accepted'),
      due: sum('due'),
      lost: sum('lost'),
      mostRepeated: Math.max(...rounds.map(({ repeated }) => repeated)),
      window,
      damagedRecords: sum('damagedRecords'),
      tornBytes: sum('tornBytes'),
    }
    console.log(JSON.stringify(report))
    const held = report.lost === 0 && report.mostRepeated <= window
    process.exitCode = held === values.control ? 1 : 0
  }
} finally {
  rmSync(root, { recursive: true, force: true })
}
