import { asapScheduler, NEVER, Subscription } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Source } from '../delivery.js'
import { ledger } from '../ledger.js'
import type { Counts } from '../ledger.js'
import type { Message } from '../message.js'
import { backoff } from '../operators/backoff.js'

/** A channel of RabbitMQ, as this source needs it. */
export interface QueueChannel {
  /** Emits the consumer, then gives messages; errors when it is lost; unsubscribing closes the channel. */
  readonly consume: (prefetch: number, give: (message: Message, tag: number) => void) => Observable<QueueConsumer>
}

export interface QueueConsumer {
  readonly accept: (tag: number, upTo: boolean) => void
  readonly cancel: () => void
}

/** Which tags are accepted: everything up to one, and some beyond it. Tags count from 1 on each channel. */
const acceptedTags = () => {
  const beyond = new Set<number>()
  let upTo = 0
  let told = 0
  return {
    add: (tag: number): void => {
      beyond.add(tag)
      while (beyond.delete(upTo + 1)) upTo += 1
    },
    /** Tells the contiguous prefix, with one acknowledgement for all of it. */
    tell: ({ accept }: QueueConsumer): void => {
      if (upTo === told) return
      told = upTo
      accept(upTo, true)
    },
    /** Before the channel is closed: what lies beyond a gap, one by one. */
    tellAll: ({ accept }: QueueConsumer): void => {
      if (upTo !== told) accept(upTo, true)
      told = upTo
      for (const tag of beyond) accept(tag, false)
      beyond.clear()
    },
  }
}

export interface RabbitmqSourceOptions {
  /** @default 1000 */
  readonly window?: number
  readonly stop?: Observable<unknown>
  readonly counts?: Counts
  /** Told why, when the broker has ended the consumer or its channel: it is made anew. */
  readonly onLost?: (reason: string) => void
}

/**
 * Consumes a queue of RabbitMQ.
 *
 * **Settles**: accepted acknowledges, the contiguous prefix together, once a turn. Released and
 * rejected close the channel, after acknowledging what is accepted: the broker requeues the
 * rest in order, and it comes again once nothing is outside. A queue source never destroys
 * what was only refused.
 * **Orders**: the queue's order; what comes again comes before what is new.
 * **Holds**: at most `window` messages, by prefetch.
 * **Fails**: never; a lost connection, a channel closed by the broker and a cancelled consumer
 * are healed, the queue is made anew if it is gone.
 */
export const rabbitmqSource = (
  channels: Observable<QueueChannel | undefined>,
  { window = 1000, stop = NEVER, counts, onLost = () => {} }: RabbitmqSourceOptions = {},
): Source<Message> =>
  ledger<Message, number>(
    (book) => {
      let channel: QueueChannel | undefined
      let consuming: Subscription | undefined
      let consumer: QueueConsumer | undefined
      let tags = acceptedTags()
      let telling: Subscription | undefined
      let resting: Subscription | undefined
      let failures = 0 // channels lost since a message was accepted
      let ended = false

      const tell = (): void => {
        telling = undefined
        if (consumer !== undefined) tags.tell(consumer)
      }
      /** Lets the channel go; what is unacknowledged comes again. */
      const leave = (): void => {
        telling?.unsubscribe()
        telling = undefined
        const [last, open] = [consumer, consuming]
        consumer = undefined
        consuming = undefined
        try {
          if (last !== undefined) tags.tellAll(last)
        } catch {
          // The channel is gone, and with it what we wanted to say: those come again.
        }
        open?.unsubscribe()
        book.disown()
      }
      const lost = (): void => {
        leave()
        failures += 1
        resting?.unsubscribe()
        resting = backoff(failures, { firstMs: 50, maxMs: 5000 }).subscribe(() => {
          resting = undefined
          start()
        })
      }
      const gone = (its: Subscription, reason: string): void => {
        if (consuming !== its) return
        onLost(reason)
        lost()
      }
      // Nothing new before everything that was lost has been answered: it could overtake what comes again.
      const start = (): void => {
        if (ended || channel === undefined || consuming !== undefined || resting !== undefined || book.room() < window) return
        tags = acceptedTags()
        const current = new Subscription()
        consuming = current
        current.add(
          channel
            .consume(window, (message, tag) => {
              if (consuming !== current) return
              book.take(message, tag)
            })
            .subscribe({
              next: (opened) => {
                consumer = opened
                if (ended) opened.cancel()
              },
              error: (error: unknown) => gone(current, error instanceof Error ? error.message : String(error)),
              complete: () => gone(current, 'the consumer was cancelled'),
            }),
        )
      }
      const watching = channels.subscribe({
        next: (opened) => {
          channel = opened
          if (opened === undefined) leave()
          else start()
        },
        error: (error: unknown) => book.fail(error),
      })
      return {
        settled: (tag, outcome) => {
          if (outcome.kind !== 'accepted') return lost()
          failures = 0
          tags.add(tag)
          telling ??= asapScheduler.schedule(tell)
        },
        idle: start,
        stop: () => {
          ended = true
          consumer?.cancel()
        },
        close: () => {
          ended = true
          resting?.unsubscribe()
          leave()
          watching.unsubscribe()
        },
      }
    },
    { window, stop, ...(counts === undefined ? {} : { counts }) },
  )
