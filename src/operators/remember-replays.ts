import { mergeMap, Observable, pipe } from 'rxjs'
import { accepted } from '../delivery.js'
import type { Delivery, Operator, Outcome } from '../delivery.js'
import type { Message } from '../message.js'
import { each } from './each.js'
import { once } from './join.js'

/** The dead letters that were put back and are dealt with, across restarts. */
export interface ReplayMemory {
  /** Emits once; never errors. */
  readonly has: (letter: string) => Observable<boolean>
  /** Completes when it will be known after a crash, too; errors when that cannot be had now. */
  readonly add: (letter: string) => Observable<unknown>
}

/** The second copy waits for what becomes of the first. */
const settleTogether =
  (memory: ReplayMemory, repeated: (message: Message) => void): Operator<Message, Message> =>
  (source) =>
    new Observable<Delivery<Message>>((subscriber) => {
      const out = new Map<string, Delivery<Message>[]>() // by letter: the copies that wait for the one outside
      const answer = (letter: string, { settle }: Delivery<Message>, outcome: Outcome): void => {
        const copies = out.get(letter) ?? []
        out.delete(letter)
        settle(outcome)
        for (const copy of copies) {
          if (outcome.kind === 'accepted') repeated(copy.value)
          copy.settle(outcome)
        }
      }
      const guarded = (letter: string, delivery: Delivery<Message>): Delivery<Message> => ({
        value: delivery.value,
        settle: once((outcome) => {
          if (outcome.kind !== 'accepted') return answer(letter, delivery, outcome)
          const kept = (): void => answer(letter, delivery, accepted)
          // A disk that fails is no reason to hold up the road: then a crash may bring it twice.
          subscriber.add(memory.add(letter).subscribe({ complete: kept, error: kept }))
        }),
      })
      subscriber.add(
        source.subscribe({
          next: (delivery) => {
            const { replayed } = delivery.value
            if (replayed === undefined) return subscriber.next(delivery)
            const first = out.get(replayed)
            if (first !== undefined) return void first.push(delivery)
            out.set(replayed, [])
            subscriber.next(guarded(replayed, delivery))
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => subscriber.complete(),
        }),
      )
    })

/**
 * Lets each dead letter that was put back through once, however often a crash in the middle of
 * a replay has put it there. Wraps everything after the source, dead letters too.
 *
 * **Settles**: accepted only once the memory has it. A repeat is accepted and counted; while its
 * first copy is outside it waits, and gets that one's answer.
 * **Orders**: first in, first out. Messages that are no replays pass untouched.
 * **Holds**: repeats that wait, within the window of the source.
 */
export const rememberReplays = (memory: ReplayMemory, repeated: (message: Message) => void): Operator<Message, Message> =>
  pipe(
    each<Message, Message>(
      (message) => {
        const { replayed } = message
        if (replayed === undefined) return [message]
        return memory.has(replayed).pipe(mergeMap((known) => (known ? [] : [message])))
      },
      { filtered: repeated },
    ),
    settleTogether(memory, repeated),
  )
