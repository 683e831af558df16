import { describe, expect, it } from 'vitest'
import { crashes } from './crashes.js'

const seeds = Number(process.env.BACKHAUL_TEST_CRASHES ?? 150)
const window = 16

describe('an embedded queue that ends in the middle of any file call', () => {
  for (const kind of ['kill', 'cut'] as const) {
    it(`keeps all that was accepted after a ${kind}, in order, and repeats no more than the window`, async () => {
      const report = await crashes({ seeds, kind, window })
      expect(report).toMatchObject({ lost: 0, outOfOrder: 0, numbersReused: 0, failedStarts: 0 })
      // In a power cut pages of a batch that nobody was promised may be missing: that may look like damage.
      if (kind === 'kill') expect(report.falseAlarms).toBe(0)
      expect(report.mostRepeated).toBeLessThanOrEqual(window)
      expect(report.accepted).toBeGreaterThan(seeds * 20)
      expect(report.repeated).toBeGreaterThan(0)
    }, 600_000)
  }

  it('loses messages in a power cut when the disk does not sync', async () => {
    expect((await crashes({ seeds: 20, kind: 'cut', window, syncs: false })).lost).toBeGreaterThan(0)
  })
})
