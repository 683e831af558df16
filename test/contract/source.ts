/**
 * The invariants of a source, for any source: `sourceContract('my source', async () => ({ … }))`.
 * `feed` puts numbered messages where the source takes them from; `waiting` tells how many are
 * left there, those outside not included.
 */
import { Subject } from 'rxjs'
import type { Observable, Subscription } from 'rxjs'
import { afterEach, describe, expect, it } from 'vitest'
import { accepted, released } from '../../src/delivery.js'
import type { Delivery, Source } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import type { Counts } from '../../src/ledger.js'

export interface SourceUnderTest {
  /** Makes the source anew; the value is turned into its number by `numberOf`. */
  readonly source: (options: { window: number; stop: Observable<unknown>; counts: Counts }) => Source<{ readonly body: Buffer }>
  /** Resolves when messages numbered so, `{"n":1}`, are there to be taken. */
  readonly feed: (numbers: readonly number[]) => Promise<void>
  readonly waiting: () => Promise<number>
  readonly dispose: () => Promise<void>
}

const until = async (what: string, ask: () => boolean | Promise<boolean>): Promise<void> => {
  for (const end = Date.now() + 5000; !(await ask()); await new Promise((resolve) => setTimeout(resolve, 10))) if (Date.now() > end) throw new Error(`not in time: ${what}`)
}
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
const numberOf = ({ body }: { readonly body: Buffer }): number => (JSON.parse(body.toString()) as { n: number }).n

/** `maxWindow`: what the source never has more of outside, whatever it is asked. */
export const sourceContract = (name: string, make: () => Promise<SourceUnderTest>, { maxWindow = Number.POSITIVE_INFINITY } = {}): void => {
  const outside = (window: number): number => Math.min(window, maxWindow)

  describe(`the contract of a source: ${name}`, () => {
    let under: SourceUnderTest | undefined
    const running = new Set<Subscription>()
    afterEach(async () => {
      for (const one of running) one.unsubscribe()
      running.clear()
      await under?.dispose()
      under = undefined
    })
    const run = async (window: number) => {
      const made = (under ??= await make())
      const stop = new Subject<void>()
      const counts = newCounts()
      const out: Delivery<{ readonly body: Buffer }>[] = []
      const seen: number[] = []
      let completed = false
      const subscription = made.source({ window, stop, counts }).subscribe({
        next: (delivery) => {
          out.push(delivery)
          seen.push(numberOf(delivery.value))
        },
        complete: () => (completed = true),
      })
      running.add(subscription)
      return { made, stop, counts, out, seen, subscription, done: () => completed }
    }
    const balanced = ({ taken, accepted: yes, rejected, released: back, unsettled }: Counts): boolean => taken === yes + rejected + back + unsettled

    it('gives in order, never more than the window outside, and more only after an answer', async () => {
      const { made, out, seen, counts, subscription } = await run(3)
      await made.feed(range(0, 10))
      await until('a window full', () => seen.length === outside(3))
      expect(counts.unsettled).toBe(outside(3))
      out[0]?.settle(accepted)
      await until('one more', () => seen.length === outside(3) + 1)
      for (let i = 1; i < 10; i += 1) {
        await until('the next', () => out.length > i)
        out[i]?.settle(accepted)
      }
      expect(seen).toEqual(range(0, 10))
      await until('nothing is left', async () => (await made.waiting()) === 0)
      expect(counts).toMatchObject({ taken: 10, accepted: 10, unsettled: 0 })
      subscription.unsubscribe()
    })
    it('settles a delivery once: a second answer is counted, and goes nowhere', async () => {
      const { made, out, counts, subscription } = await run(2)
      await made.feed([1])
      await until('one', () => out.length === 1)
      out[0]?.settle(accepted)
      expect(() => out[0]?.settle(released(false))).not.toThrow()
      expect(counts).toMatchObject({ accepted: 1, released: 0, stale: 1 })
      subscription.unsubscribe()
    })
    it('after stop takes nothing more, and completes with the last settlement', async () => {
      const { made, stop, out, seen, done } = await run(2)
      await made.feed(range(0, 6))
      const taken = outside(2)
      await until('a window full', () => seen.length === taken)
      stop.next()
      expect(done()).toBe(false)
      for (let i = 0; i < taken; i += 1) out[i]?.settle(accepted)
      await until('completed', done)
      expect(seen).toEqual(range(0, taken))
      await until('the others are left', async () => (await made.waiting()) === 6 - taken)
    })
    it('after unsubscribe releases everything unsettled: it comes again, in order, to the next', async () => {
      const first = await run(4)
      await first.made.feed(range(0, 8))
      await until('a window full', () => first.seen.length === outside(4))
      first.out[0]?.settle(accepted)
      await until('one more', () => first.seen.length === outside(4) + 1)
      first.subscription.unsubscribe()
      first.out[1]?.settle(accepted) // too late
      expect(first.counts).toMatchObject({ accepted: 1, released: outside(4), unsettled: 0, stale: 1 })
      expect(balanced(first.counts)).toBe(true)
      const second = await run(100)
      await until('the rest', () => {
        if (maxWindow < 7) second.out.at(-1)?.settle(accepted)
        return second.seen.length === 7
      })
      expect(second.seen).toEqual(range(1, 8))
      second.subscription.unsubscribe()
    })
    it('destroys nothing that was rejected: it comes again', async () => {
      const { made, out, seen, counts, subscription } = await run(100)
      await made.feed([0, 1])
      const first = outside(2)
      await until('a window full', () => seen.length === first)
      out[0]?.settle({ kind: 'rejected', reason: 'no', stage: 'test', attempts: 1 })
      if (first > 1) out[1]?.settle(accepted)
      await until('again', () => seen.slice(first).includes(0))
      let next = first
      await until('nothing is left', async () => {
        for (; next < out.length; next += 1) out[next]?.settle(accepted)
        return counts.unsettled === 0 && (await made.waiting()) === 0
      })
      expect(counts.rejected).toBe(1)
      expect(balanced(counts)).toBe(true)
      subscription.unsubscribe()
    })
    if (maxWindow === 1)
      it('gives what was released again, before what is behind it', async () => {
        const { made, out, seen, counts, subscription } = await run(100)
        await made.feed(range(0, 3))
        const answers = [accepted, released(false), released(true), accepted, accepted]
        for (const [i, answer] of answers.entries()) {
          await until('the next', () => out.length > i)
          out[i]?.settle(answer)
        }
        expect(seen).toEqual([0, 1, 1, 1, 2])
        expect(counts).toMatchObject({ taken: 5, accepted: 3, released: 2, unsettled: 0 })
        subscription.unsubscribe()
      })
    else it('gives what was released again, and everything behind it, in order', async () => {
      const { made, out, seen, counts, subscription } = await run(100)
      await made.feed(range(0, 5))
      await until('five', () => seen.length === 5)
      out[0]?.settle(accepted)
      out[1]?.settle(released(false))
      out[2]?.settle({ kind: 'rejected', reason: 'no', stage: 'test', attempts: 1 })
      out[3]?.settle(accepted)
      out[4]?.settle(accepted)
      await until('again', () => seen.includes(1) && seen.slice(5).includes(1) && seen.slice(5).includes(2))
      const again = seen.slice(5)
      expect([...again].sort((x, y) => x - y), 'in order').toEqual(again)
      expect(balanced(counts)).toBe(true)
      subscription.unsubscribe()
    })
  })
}
