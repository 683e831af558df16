import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'

interface Found {
  points: number
  struck: number
  names: Record<string, number>
  [figure: string]: number | Record<string, number>
}
type Sweep = (how: { modules: string; most?: number; syncs?: number; slowMs?: number }) => Promise<Found>

const load = async <T>(name: string): Promise<T> => (await import(new URL(`./log/${name}.js`, import.meta.url).href)) as T
const { crashSweep } = await load<{ crashSweep: Sweep }>('crash-sweep')
const { failingWrites, slowSyncs, syncFailures } = await load<Record<'failingWrites' | 'slowSyncs' | 'syncFailures', Sweep>>('failing-calls')
const { tornTails } = await load<{ tornTails: (how: { modules: string; step: number }) => Promise<Record<string, number>> }>('torn-tails')
const { lostFiles } = await load<{ lostFiles: (how: { modules: string }) => Promise<Record<string, number>> }>('lost-files')
const { whyNoStrace } = await load<{ whyNoStrace: () => string | undefined }>('strace')
const { window } = await load<{ window: number }>('workshop')

/** How many calls of each sweep; `all` takes some minutes. */
const asked = process.env.BACKHAUL_TEST_CALLS
const most = (few: number): number => (asked === 'all' ? Infinity : Number(asked ?? few))
const modules = pathToFileURL(resolve('dist/connections')).href
const judged = { lost: 0, reordered: 0, corrupt: 0, failedStarts: 0 }
const missing = whyNoStrace()

describe.skipIf(!existsSync('dist'))('the embedded queue, built, on a real file system', () => {
  it('keeps every whole record when a tail is torn at any byte, and tells what it drops', async () => {
    const found = await tornTails({ modules, step: asked === 'all' ? 1 : 7 })
    expect(found).toMatchObject({ ...judged, uncounted: 0 })
    expect(found.dropped).toBeGreaterThan(0)
  }, 600_000)
})

describe.skipIf(!existsSync('dist'))('the embedded queue whose files somebody takes away or empties', () => {
  it('starts, tells what is missing, and gives out all the rest', async () => {
    const found = await lostFiles({ modules })
    expect(found).toMatchObject({ lost: 0, failedStarts: 0, stalled: 0, unreported: 0, wrong: 0 })
    expect(found.missing).toBeGreaterThan(0)
  }, 600_000)
})

describe.skipIf(!existsSync('dist'))('the embedded queue over system calls that kill, fail or dawdle', () => {
  beforeAll(() => {
    if (missing !== undefined && process.env.BACKHAUL_TEST_REQUIRE_BROKERS === '1') throw new Error(missing)
    if (missing !== undefined) console.log(`system calls are not tested: ${missing}`)
  })
  const withStrace = it.skipIf(missing !== undefined && process.env.BACKHAUL_TEST_REQUIRE_BROKERS !== '1')

  withStrace('keeps all that it accepted, whichever call is the last one', async () => {
    const found = await crashSweep({ modules, most: most(24) })
    expect(found).toMatchObject({ ...judged, falseAlarms: 0 })
    expect(found.mostRepeated).toBeLessThanOrEqual(window)
    // Each point is a call that was really reached.
    expect(found.struck).toBe(found.points)
    expect(found.points).toBeGreaterThan(20)
  }, 600_000)

  withStrace('gives no yes for what a failed sync should have kept, and never trusts that file again', async () => {
    const found = await syncFailures({ modules, most: most(9) })
    expect(found).toMatchObject({ ...judged, trustedAgain: 0, struck: found.points })
    expect(found.refused).toBeGreaterThan(0)
  }, 600_000)

  withStrace('refuses while writes fail, and takes messages again without a restart', async () => {
    const found = await failingWrites({ modules, most: most(8) })
    expect(found).toMatchObject({ ...judged, notHealed: 0, falseAlarms: 0, struck: found.points })
    expect(found.refused).toBeGreaterThan(0)
  }, 600_000)

  withStrace('lets the event loop run while a sync takes a second', async () => {
    const found = await slowSyncs({ modules, syncs: 1, slowMs: 1000 })
    expect(found).toMatchObject({ ...judged, struck: 1 })
    // Room for a machine that is busy with something else.
    expect(found.stallMs).toBeLessThan(500)
  }, 600_000)
})
