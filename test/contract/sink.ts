/**
 * The invariants of a sink, for any sink: `sinkContract('my sink', async () => ({ … }))`.
 * `received` tells the bodies that the far end has, in its order.
 */
import { Subject } from 'rxjs'
import type { Subscription } from 'rxjs'
import { afterEach, describe, expect, it } from 'vitest'
import type { Delivery, Outcome, Receipt, Sink } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'

export interface SinkUnderTest {
  readonly sink: Sink<Message>
  readonly received: () => Promise<readonly string[]>
  readonly state?: Receipt['state']
  /** How many at once; fewer where the far end drops what it cannot buffer. @default 300 */
  readonly size?: number
  readonly dispose: () => Promise<void>
}

const until = async (what: string, ask: () => boolean | Promise<boolean>): Promise<void> => {
  for (const end = Date.now() + 5000; !(await ask()); await new Promise((resolve) => setTimeout(resolve, 10))) if (Date.now() > end) throw new Error(`not in time: ${what}`)
}
const body = (n: number): string => `{"n":${n},"text":"ü 9007199254740993"}`

export const sinkContract = (name: string, make: () => Promise<SinkUnderTest>): void => {
  describe(`the contract of a sink: ${name}`, () => {
    let under: SinkUnderTest | undefined
    let running: Subscription | undefined
    afterEach(async () => {
      running?.unsubscribe()
      await under?.dispose()
      under = undefined
    })
    const run = async () => {
      const made = (under = await make())
      const deliveries = new Subject<Delivery<Message>>()
      const answers = new Map<number, Outcome[]>()
      const receipts: Receipt<Message>[] = []
      let completed = false
      const subscription = deliveries.pipe(made.sink).subscribe({ next: (receipt) => receipts.push(receipt), complete: () => (completed = true) })
      const give = (from: number, to: number): void => {
        for (let n = from; n < to; n += 1)
          deliveries.next({
            value: { id: `m${n}`, body: Buffer.from(body(n)), properties: {}, digest: `d${n}` },
            settle: (outcome) => answers.set(n, [...(answers.get(n) ?? []), outcome]),
          })
      }
      running = subscription
      return { made, deliveries, give, answers, receipts, subscription, done: () => completed }
    }

    it('accepts each delivery once, after the far end has it, in order and byte for byte', async () => {
      const { made, give, answers, receipts, subscription } = await run()
      const { size = 300 } = made
      give(0, size)
      await until('all answered', () => answers.size === size)
      const received = await made.received()
      expect(received).toEqual(Array.from({ length: size }, (_, n) => body(n)))
      expect([...answers.values()].every((outcomes) => outcomes.length === 1 && outcomes[0]?.kind === 'accepted')).toBe(true)
      expect(receipts.map(({ value }) => value.id)).toHaveLength(size)
      expect(receipts.every(({ state, outcome }) => state === (made.state ?? 'confirmed') && outcome.kind === 'accepted')).toBe(true)
      subscription.unsubscribe()
    })
    it('completes after its source, when everything is settled', async () => {
      const { deliveries, give, answers, receipts, done } = await run()
      give(0, 50)
      deliveries.complete()
      await until('completed', done)
      expect([answers.size, receipts.length]).toEqual([50, 50])
    })
    it('settles nothing any more once it is unsubscribed', async () => {
      const { give, answers, subscription } = await run()
      give(0, 20)
      subscription.unsubscribe()
      const before = answers.size
      await new Promise((resolve) => setTimeout(resolve, 50))
      expect(answers.size).toBe(before)
    })
  })
}
