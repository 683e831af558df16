import { from, Observable, Subscription } from 'rxjs'
import type { ObservableInput } from 'rxjs'
import { rejectedBy } from '../delivery.js'
import type { Delivery, Operator } from '../delivery.js'
import { join } from './join.js'

/**
 * Runs `step` on each value, one after the other, and gives out what it emits.
 *
 * **Settles**: a step that emits nothing accepts its delivery (and calls `filtered`); what it
 * emits settles as one, after the last part; an error rejects it, and the stream goes on.
 * A step that may be tried again retries by itself. Arrays are the fast way: `each((x) => [x])`.
 * **Orders**: first in, first out, also when steps take time: the next begins when this one has completed.
 * **Holds**: what arrives meanwhile, at most the window of the source.
 */
export const each =
  <A, B>(
    step: (value: A) => ObservableInput<B>,
    { stage = 'each', filtered = () => {} }: { stage?: string; filtered?: (value: A) => void } = {},
  ): Operator<A, B> =>
  (source) =>
    new Observable<Delivery<B>>((subscriber) => {
      const waiting: Delivery<A>[] = []
      let pumping = false // the loop below is running: whoever arrives now waits for it
      let busy = false // a step that takes time is running
      let ended = false

      const attempt = (delivery: Delivery<A>): readonly B[] | Observable<B> | undefined => {
        try {
          const values = step(delivery.value)
          return Array.isArray(values) ? (values as readonly B[]) : from(values)
        } catch (error) {
          delivery.settle(rejectedBy(error, stage))
          return undefined
        }
      }
      const giveAll = ({ value, settle }: Delivery<A>, values: readonly B[]): void => {
        if (values.length === 1) return subscriber.next({ value: values[0] as B, settle })
        if (values.length === 0) filtered(value)
        const parts = join(settle)
        for (const part of values) subscriber.next({ value: part, settle: parts.part() })
        parts.end()
      }
      const follow = ({ value, settle }: Delivery<A>, values: Observable<B>): void => {
        const parts = join(settle)
        let given = false
        busy = true
        const running = new Subscription()
        const over = (end: () => void): void => {
          subscriber.remove(running)
          busy = false
          end()
          pump()
        }
        subscriber.add(running)
        running.add(
          values.subscribe({
            next: (part) => {
              given = true
              subscriber.next({ value: part, settle: parts.part() })
            },
            error: (error: unknown) => over(() => parts.end(rejectedBy(error, stage))),
            complete: () =>
              over(() => {
                if (!given) filtered(value)
                parts.end()
              }),
          }),
        )
      }
      const pump = (): void => {
        if (pumping) return
        pumping = true
        while (!busy && !subscriber.closed) {
          const delivery = waiting.shift()
          if (delivery === undefined) break
          const values = attempt(delivery)
          if (values === undefined) continue
          if (values instanceof Observable) follow(delivery, values)
          else giveAll(delivery, values)
        }
        pumping = false
        if (ended && !busy) subscriber.complete()
      }
      subscriber.add(
        source.subscribe({
          next: (delivery) => {
            waiting.push(delivery)
            pump()
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            ended = true
            pump()
          },
        }),
      )
    })
