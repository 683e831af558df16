/** Rows of the embedded queue and the system calls below it: each call the last one, or failing, or slow. */
import { crashSweep } from '../log/crash-sweep.js'
import { failingWrites, slowSyncs, syncFailures } from '../log/failing-calls.js'
import { lostFiles } from '../log/lost-files.js'
import { whyNoStrace } from '../log/strace.js'
import { tornTails } from '../log/torn-tails.js'
import { window } from '../log/workshop.js'
import { cutsTooMuch, syncsInTheLoop, trustsFailedSync, trustsFailedWrite, trustsItsName, yesBeforeTheWrite } from './sabotage.js'

/**
 * `sweep` on the built log of `dist`. The fault bit when strace struck at every point; `count` says how many points
 * there are at most.
 */
const swept = (sweep) => async (count, { dist }) => {
  const skipped = whyNoStrace()
  if (skipped !== undefined) return { skipped, bites: 0 }
  const found = await sweep({ modules: `file://${dist}/connections`, most: count })
  return { ...found, bites: found.struck === found.points ? count : 0 }
}
const all = 100_000

/** @type {readonly import('./rows.js').Row[]} */
export const syscalls = [
  {
    id: 'R06',
    fault: 'embedded queue: SIGKILL at each system call of append, roll, delete and recover (strace)',
    counts: { short: 60, long: all },
    bar: '0 lost, 0 failed starts, no false alarm, at most the window repeated',
    sabotage: yesBeforeTheWrite,
    atMost: { failedStarts: 0, falseAlarms: 0, mostRepeated: window },
    // Every point, to whoever wants to see it.
    drive: swept((how) => crashSweep({ ...how, say: (point) => console.error(point) })),
  },
  {
    id: 'R14',
    fault: 'embedded queue: the last records torn at each byte: cut off, zeros, garbage',
    counts: { short: 240, long: 954 },
    bar: 'all whole records kept, the rest dropped and counted, 0 failed starts',
    sabotage: cutsTooMuch,
    atMost: { failedStarts: 0, uncounted: 0 },
    drive: async (count, { dist }) => {
      const found = await tornTails({ modules: `file://${dist}/connections`, step: Math.max(1, Math.floor(954 / count)) })
      return { ...found, points: found.starts, struck: found.starts, bites: found.dropped > 0 ? count : 0 }
    },
  },
  {
    id: 'R16',
    fault: 'embedded queue: a file is taken away or emptied, each in turn, before the start and while it runs',
    counts: { short: 24, long: 24 },
    bar: 'starts, tells what is missing, gives out the rest, 0 stalled; of the file that grows nothing is lost',
    sabotage: trustsItsName,
    atMost: { lost: 0, failedStarts: 0, stalled: 0, unreported: 0, wrong: 0 },
    atLeast: { missing: 1 },
    drive: async (count, { dist }) => ({ ...(await lostFiles({ modules: `file://${dist}/connections` })), why: 'an answer, or messages that are there, never came', bites: count }),
  },
  {
    id: 'R17',
    fault: 'embedded queue: each sync fails once (EIO), its pages are lost, then the process dies',
    counts: { short: 26, long: all },
    bar: '0 lost, the file never trusted again, 0 failed starts',
    sabotage: trustsFailedSync,
    atMost: { failedStarts: 0, trustedAgain: 0, mostRepeated: window },
    atLeast: { refused: 1 },
    drive: swept(syncFailures),
  },
  {
    id: 'R18s',
    fault: 'embedded queue: six writes on end fail (ENOSPC, EIO), from each write on',
    counts: { short: 20, long: all },
    bar: '0 lost, refused and then taken without a restart, 0 failed starts',
    sabotage: trustsFailedWrite,
    atMost: { failedStarts: 0, notHealed: 0, falseAlarms: 0 },
    atLeast: { refused: 1 },
    drive: swept(failingWrites),
  },
  {
    id: 'R19',
    fault: 'embedded queue: syncs take 2 s',
    counts: { short: 3, long: 300 },
    bar: '0 lost, the event loop never stands still for more than 100 ms',
    sabotage: syncsInTheLoop,
    atMost: { failedStarts: 0, stallMs: 100 },
    drive: swept(({ modules, most }) => slowSyncs({ modules, syncs: most })),
  },
]
