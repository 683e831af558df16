import { EMPTY, NEVER } from 'rxjs'
import type { Observable, Subscription } from 'rxjs'
import type { Source } from '../delivery.js'
import { ledger } from '../ledger.js'
import type { Message } from '../message.js'
import type { QueueChannel, QueueConsumer } from './rabbitmq.js'

export interface DeadLetterOptions {
  readonly wanted: (message: Message) => boolean
  /** Only so many of the oldest are looked at: what is kept meanwhile is not for this run. */
  readonly within: number
  /** The most that are given. */
  readonly most: number
  /** All are wanted: no more need be outside than the window. */
  readonly all: boolean
  readonly window: number
  readonly stop?: Observable<unknown>
}

/** The most bytes that wait to be given, beside those in the window. */
const maxWaitingBytes = 32 * 1024 * 1024

/**
 * Some of the dead letters, oldest first, once: completes after the last of them.
 *
 * **Settles**: accepted removes the letter. Released and rejected leave it; and so is left, at its
 * place, all that was not wanted, once the channel is closed.
 * **Orders**: as they were kept.
 * **Holds**: the wanted ones that wait for room in the window, up to 32 MiB of them; then it ends early.
 * **Fails**: when the channel is lost. What was not removed is still there.
 */
export const deadLetterSource = (
  channel: Observable<QueueChannel>,
  { wanted, within, most, all, window, stop = NEVER }: DeadLetterOptions,
): Source<Message> =>
  ledger<Message, number>(
    (book) => {
      const waiting: { readonly message: Message; readonly tag: number }[] = []
      let consumer: QueueConsumer | undefined
      let scanned = 0
      let taken = 0
      let waitingBytes = 0
      let over = within <= 0 || most <= 0

      const give = (): void => {
        while (book.room() > 0) {
          const next = waiting.shift()
          if (next === undefined) break
          waitingBytes -= next.message.body.length
          book.take(next.message, next.tag)
        }
        if (over && waiting.length === 0) book.end()
      }
      const receive = (message: Message, tag: number): void => {
        if (over) return
        scanned += 1
        if (wanted(message)) {
          taken += 1
          waitingBytes += message.body.length
          waiting.push({ message, tag })
        }
        over = scanned >= within || taken >= most || waitingBytes > maxWaitingBytes
        give()
      }
      const prefetch = all ? Math.min(window, within) : 0
      let consuming: Subscription | undefined
      const fail = (error: unknown): void => book.fail(error)
      // Not cancelled at the end: what a cancelled consumer had does not go back to its place everywhere.
      const watching = (over ? EMPTY : channel).subscribe({
        next: ({ consume }) => {
          consuming = consume(prefetch, receive).subscribe({ next: (opened) => (consumer = opened), error: fail })
        },
        error: fail,
      })
      if (over) book.end()
      return {
        settled: (tag, outcome) => {
          if (outcome.kind === 'accepted') consumer?.accept(tag, false)
          give()
        },
        stop: () => {
          over = true
          waiting.length = 0
        },
        close: () => {
          // The channel before its connection, whose close would overtake the last removals.
          consuming?.unsubscribe()
          watching.unsubscribe()
        },
      }
    },
    { window, stop },
  )
