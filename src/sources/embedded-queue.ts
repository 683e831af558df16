import { dematerialize, materialize, NEVER, Subscription, switchMap } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Source } from '../delivery.js'
import { ledger } from '../ledger.js'
import type { Counts } from '../ledger.js'
import { decodeMessage } from '../message.js'
import type { Message } from '../message.js'
import { backoff } from '../operators/backoff.js'

/** The reader's side of an embedded queue. */
export interface QueueReader {
  /** Emits once, up to `max` entries, as soon as there is one; completes without a value when the queue closes. */
  readonly next: (max: number) => Observable<readonly { seq: number; body: Buffer; headers: Buffer }[]>
  /** What is outside comes again. */
  readonly rewind: () => void
  readonly settle: (seq: number) => void
}

/**
 * Reads an embedded queue, oldest first, and follows it.
 *
 * **Settles**: accepted removes the message. Released and rejected bring it, and everything
 * after it that is unsettled, again, in order: a queue never destroys what was only refused.
 * Not at once: after 50 ms, then up to 5 s, until something is accepted again.
 * **Orders**: as appended.
 * **Holds**: at most `window` messages.
 */
export const embeddedQueueSource = (
  queue: Observable<QueueReader>,
  { window, stop = NEVER, counts }: { window: number; stop?: Observable<unknown>; counts?: Counts },
): Source<Message> =>
  queue.pipe(
    switchMap(({ next, rewind, settle: remove }) =>
      ledger<Message, number>(
        (book) => {
          let reading: Subscription | undefined
          let closed = false
          let again = false // something was not accepted: start over once all is answered, and after a rest
          let refusals = 0 // since something was accepted
          let resting: Subscription | undefined
          const read = (): void => {
            if (closed || again || reading !== undefined || book.room() <= 0) return
            const asked = new Subscription()
            reading = asked
            asked.add(
              next(book.room()).subscribe({
                next: (entries) => {
                  for (const { seq, body, headers } of entries) book.take(decodeMessage(body, headers), seq)
                },
                error: (error: unknown) => book.fail(error),
                complete: () => {
                  reading = undefined
                  read()
                },
              }),
            )
          }
          const quit = (): void => {
            closed = true
            reading?.unsubscribe()
            resting?.unsubscribe()
          }
          const startOver = (): void => {
            again = false
            rewind()
            read()
          }
          read()
          return {
            settled: (seq, outcome) => {
              if (outcome.kind === 'accepted') {
                refusals = 0
                remove(seq)
              } else if (!again) {
                again = true
                refusals += 1
                book.disown()
              }
              read()
            },
            idle: () => {
              if (again) resting = backoff(refusals, { firstMs: 50, maxMs: 5000 }).subscribe(startOver)
            },
            stop: quit,
            close: () => {
              quit()
              rewind()
            },
          }
        },
        { window, stop, ...(counts === undefined ? {} : { counts }) },
      ).pipe(materialize()),
    ),
    // The queue stays open for others; this reader is done when its ledger is.
    dematerialize(),
  )
