import { NEVER } from 'rxjs'
import type { Observable, Subscription } from 'rxjs'
import type { Source } from '../delivery.js'
import { ledger } from '../ledger.js'
import type { Counts } from '../ledger.js'

interface TopicMessage {
  readonly messageId: string
  readonly payload: Buffer
}

/** A durable subscription that is connected, as this source needs it. */
export interface ConfigurationConsumer<T extends TopicMessage> {
  readonly messages: Observable<T>
  readonly permit: (count: number) => void
  readonly accept: (messageId: string) => void
  readonly reopen: () => void
}

/**
 * Follows a configuration topic, one document at a time.
 *
 * **Settles**: accepted moves the subscription on. Released and rejected reopen it, and the
 * document comes again: wrap the pipeline in `rescue`, or a bad one comes for ever.
 * **Orders**: as published.
 * **Holds**: one document.
 */
export const configurationSource = <T extends TopicMessage>(
  consumers: Observable<ConfigurationConsumer<T> | undefined>,
  { stop = NEVER, counts }: { stop?: Observable<unknown>; counts?: Counts } = {},
): Source<T> =>
  ledger<T, string>(
    (book) => {
      let consumer: ConfigurationConsumer<T> | undefined
      let reading: Subscription | undefined
      let asked = false // one message is on its way
      const ask = (): void => {
        if (consumer === undefined || asked || book.room() <= 0) return
        asked = true
        consumer.permit(1)
      }
      const take = (from: ConfigurationConsumer<T>, message: T): void => {
        asked = false
        // Compaction leaves empty messages behind.
        if (message.payload.length === 0) from.accept(message.messageId)
        else book.take(message, message.messageId)
        ask()
      }
      const leave = (): void => {
        reading?.unsubscribe()
        consumer = undefined
        asked = false
        book.disown()
      }
      const watching = consumers.subscribe({
        next: (opened) => {
          leave()
          if (opened === undefined) return
          consumer = opened
          reading = opened.messages.subscribe((message) => take(opened, message))
          ask()
        },
        error: (error: unknown) => book.fail(error),
      })
      return {
        settled: (messageId, outcome) => {
          if (outcome.kind === 'accepted') consumer?.accept(messageId)
          else consumer?.reopen()
          ask()
        },
        idle: ask,
        close: () => {
          watching.unsubscribe()
          leave()
        },
      }
    },
    { window: 1, stop, ...(counts === undefined ? {} : { counts }) },
  )
