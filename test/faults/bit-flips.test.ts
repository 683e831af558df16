import { expect, it } from 'vitest'
import { bitFlips } from './bit-flips.js'

const flips = Number(process.env.BACKHAUL_TEST_FLIPS ?? 400)

it('a flipped bit anywhere costs at most the message it hits, is counted once, and changes no other', async () => {
  const report = await bitFlips(flips)
  if (process.env.BACKHAUL_TEST_FLIPS !== undefined) console.log(report)
  expect(report).toMatchObject({ flips, failedStarts: 0, uncounted: 0, countedTwice: 0, wrong: 0 })
  expect(report.mostLost).toBe(1)
}, 3_600_000)
