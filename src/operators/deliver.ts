import { asyncScheduler, Observable, Subscription, timer } from 'rxjs'
import { accepted, rejectedBy, Rejection } from '../delivery.js'
import type { Connection, Delivery, Outcome, Receipt, Sink, Writer } from '../delivery.js'

export interface DeliverOptions<T> {
  /** The name on the receipts, and the stage of a rejection. */
  readonly sink: string
  /** The most values written and unconfirmed. @default 1000 */
  readonly window?: number
  /** The most bytes written and unconfirmed, as `sizeOf` counts them; one value always goes. @default no limit */
  readonly windowBytes?: number
  readonly sizeOf?: (value: T) => number
  /** Rest after a failed write, in milliseconds, unless a new writer comes sooner. @default 200 */
  readonly retryMs?: number
  /** What completion of a write means. @default 'confirmed' */
  readonly state?: Receipt['state']
}

interface Entry<T> {
  readonly delivery: Delivery<T>
  readonly bytes: number
  readonly since: number
  attempts: number
  write: Subscription
}

/**
 * Writes each value with the connection's present writer and settles it when the write
 * completes. At each change of writer, and `retryMs` after a failed write, it writes
 * everything unconfirmed again, in order, before anything new.
 *
 * **Settles**: accepted when the write completes; rejected when it errors with a `Rejection`.
 * No other failure settles anything: it is the connection's, and the value is written again.
 * **Orders**: values reach each writer in order of arrival.
 * **Holds**: everything unsettled; the source's window is the limit.
 * **Fails**: never by itself. Completes after its source and the last settlement; unsubscribing
 * settles nothing, for the source releases.
 */
export const deliver =
  <T>(
    connection: Connection<T>,
    {
      sink,
      window = 1000,
      windowBytes = Number.POSITIVE_INFINITY,
      sizeOf = () => 0,
      retryMs = 200,
      state = 'confirmed',
    }: DeliverOptions<T>,
  ): Sink<T> =>
  (source) =>
    new Observable<Receipt<T>>((subscriber) => {
      let waiting: Entry<T>[] = [] // not with the writer, in order
      const written = new Set<Entry<T>>() // with the writer and unconfirmed, in order
      let bytesOut = 0 // of those written
      let writer: Writer<T> | undefined
      let resting: Subscription | undefined // since a write failed
      let pumping = false
      let ended = false

      const settle = (entry: Entry<T>, outcome: Outcome): void => {
        written.delete(entry)
        bytesOut -= entry.bytes
        const { delivery, attempts, since } = entry
        const durationMs = asyncScheduler.now() - since
        // The receipt first: the last settlement may complete the source, and us with it.
        subscriber.next({ sink, value: delivery.value, outcome, attempts, durationMs, state })
        delivery.settle(outcome)
        pump()
      }
      /** Takes everything unconfirmed back, in front of what was never written. */
      const takeBack = (): void => {
        const unconfirmed = [...written]
        written.clear()
        bytesOut = 0
        waiting = [...unconfirmed, ...waiting]
        for (const entry of unconfirmed) entry.write.unsubscribe()
      }
      const rest = (): void => {
        takeBack()
        resting?.unsubscribe()
        resting = timer(retryMs).subscribe(() => {
          resting = undefined
          pump()
        })
      }
      const write = (entry: Entry<T>, send: Writer<T>): void => {
        const current = new Subscription() // closed once this write was taken back: what it says then is late
        entry.attempts += 1
        entry.write = current
        written.add(entry)
        bytesOut += entry.bytes
        const confirmed = (): void => {
          if (!current.closed) settle(entry, accepted)
        }
        const failed = (error: unknown): void => {
          if (current.closed) return
          if (error instanceof Rejection) settle(entry, rejectedBy(error, sink, entry.attempts))
          else rest()
        }
        try {
          current.add(send(entry.delivery.value).subscribe({ error: failed, complete: confirmed }))
        } catch (error) {
          failed(error)
        }
      }
      const pump = (): void => {
        if (pumping) return
        pumping = true
        while (!subscriber.closed && writer !== undefined && resting === undefined && written.size < window) {
          const entry = waiting[0]
          if (entry === undefined || (written.size > 0 && bytesOut + entry.bytes > windowBytes)) break
          waiting.shift()
          write(entry, writer)
        }
        pumping = false
        if (ended && written.size + waiting.length === 0) subscriber.complete()
      }
      subscriber.add(() => {
        resting?.unsubscribe()
        for (const entry of written) entry.write.unsubscribe()
      })
      subscriber.add(
        connection.subscribe({
          next: (current) => {
            takeBack()
            resting?.unsubscribe()
            resting = undefined
            writer = current
            pump()
          },
          error: (error: unknown) => subscriber.error(error),
        }),
      )
      subscriber.add(
        source.subscribe({
          next: (delivery) => {
            const since = asyncScheduler.now()
            waiting.push({ delivery, bytes: sizeOf(delivery.value), since, attempts: 0, write: Subscription.EMPTY })
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
