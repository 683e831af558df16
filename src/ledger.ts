import { NEVER, Observable } from 'rxjs'
import type { Delivery, Outcome, Source } from './delivery.js'

/** What a source has done since it was made: taken = accepted + rejected + released + unsettled. */
export interface Counts {
  taken: number
  accepted: number
  rejected: number
  released: number
  unsettled: number
  /** Answers that came too late or twice; never sent to the far end. */
  stale: number
}

export const newCounts = (): Counts => ({ taken: 0, accepted: 0, rejected: 0, released: 0, unsettled: 0, stale: 0 })

/** What a source does with its far end when the ledger says so. None of these may emit synchronously what they take. */
export interface FarEnd<Tag> {
  /** One delivery was answered, and the far end still waits for it. There is room for another. */
  readonly settled: (tag: Tag, outcome: Outcome) => void
  /** Nothing is outside any more. */
  readonly idle?: () => void
  /** Take no more from the far end. What it has sent already and `take` refused stays with it. */
  readonly stop?: () => void
  /** Release everything unsettled, together, and let go. Called once, after `stop`. */
  readonly close: () => void
}

/** The source's side of the book. */
export interface Ledger<T, Tag> {
  /** Gives a value out, in order. False, and nothing happens, when there is no room. */
  readonly take: (value: T, tag: Tag) => boolean
  /** How many more may go out now; 0 once stopped, and while disowned deliveries are outside. */
  readonly room: () => number
  /** The far end has lost, and will give again, all that is outside: count it released, and ignore its answers. */
  readonly disown: () => void
  /** The far end has no more to give. */
  readonly end: () => void
  readonly fail: (error: unknown) => void
}

/**
 * The bookkeeping of every source: `open` begins intake and gives values to `take`; the
 * ledger emits them as deliveries and hands each answer back, once.
 *
 * **Settles**: the first answer counts; after a loss (`disown`) or cancel it is counted as
 * stale and goes nowhere. Settling never throws.
 * **Orders**: emits in the order of `take`, never inside another emission.
 * **Holds**: at most `window` unsettled. After a loss nothing new is taken until everything
 * that is outside has been answered, so what comes again cannot overtake it.
 * **Fails**: only through `fail`. Completes after `stop` (or `end`) and the last settlement;
 * unsubscribing stops intake and releases everything unsettled.
 */
export const ledger = <T, Tag = undefined>(
  open: (book: Ledger<T, Tag>) => FarEnd<Tag>,
  { window, stop = NEVER, counts = newCounts() }: { window: number; stop?: Observable<unknown>; counts?: Counts },
): Source<T> =>
  new Observable<Delivery<T>>((subscriber) => {
    const waiting: Delivery<T>[] = [] // taken, not yet emitted
    let far: FarEnd<Tag> | undefined = undefined
    let outside = 0 // given out or waiting, and not answered by anyone
    let owned = 0 // those of them that the far end still waits for
    let generation = 0 // grows with each loss
    let emitting = false
    let stopped = false
    let closed = false

    const finish = (): void => {
      if (stopped && outside === 0 && far !== undefined) subscriber.complete()
    }
    const delivery = (value: T, tag: Tag): Delivery<T> => {
      const born = generation
      let answered = false
      const settle = (outcome: Outcome): void => {
        if (answered || closed) {
          counts.stale += 1
          return
        }
        answered = true
        outside -= 1
        if (born === generation) {
          owned -= 1
          counts.unsettled -= 1
          counts[outcome.kind] += 1
          tell(() => far?.settled(tag, outcome))
        } else counts.stale += 1
        if (outside === 0) tell(() => far?.idle?.())
        finish()
      }
      return { value, settle }
    }
    // A far end that fails while it is told fails its own way, later; the pipeline does not hear of it here.
    const tell = (say: () => void): void => {
      try {
        say()
      } catch {
        counts.stale += 1
      }
    }
    const emit = (): void => {
      if (emitting || far === undefined) return
      emitting = true
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) subscriber.next(next)
      emitting = false
    }
    const forget = (): void => {
      counts.released += owned
      counts.unsettled -= owned
      owned = 0
      generation += 1
    }
    const halt = (): void => {
      if (stopped) return
      stopped = true
      tell(() => far?.stop?.())
      finish()
    }
    const room = (): number => (stopped || outside > owned ? 0 : window - outside)

    subscriber.add(stop.subscribe({ next: halt, error: halt }))
    if (stopped) return subscriber.complete()
    const opened = open({
      take: (value, tag) => {
        if (closed || room() <= 0) return false
        outside += 1
        owned += 1
        counts.taken += 1
        counts.unsettled += 1
        waiting.push(delivery(value, tag))
        emit()
        return true
      },
      room,
      disown: () => {
        forget()
        waiting.splice(0).forEach((unseen) => unseen.settle({ kind: 'released', maybeSent: false }))
      },
      end: halt,
      fail: (error) => subscriber.error(error),
    })
    far = opened
    if (stopped) tell(() => opened.stop?.()) // it was stopped while it opened
    subscriber.add(() => {
      closed = true
      if (!stopped) tell(() => opened.stop?.())
      stopped = true
      forget()
      tell(opened.close)
    })
    emit()
    finish()
  })
