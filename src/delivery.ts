/**
 * The core type: a value, and the one way to answer for it. Everything else in this
 * project gives deliveries (sources), changes them (operators) or settles them (sinks).
 */
import type { Observable, OperatorFunction } from 'rxjs'

/** Done: the far end has it. */
export interface Accepted {
  readonly kind: 'accepted'
}

/** Not now: it comes again. `maybeSent` is false only when nothing left this process. */
export interface Released {
  readonly kind: 'released'
  readonly maybeSent: boolean
}

/** Never: it goes to the dead letters, with the reason and the stage that gave it. */
export interface Rejected {
  readonly kind: 'rejected'
  readonly reason: string
  readonly stage: string
  /** How often it was tried before the answer was never. */
  readonly attempts: number
}

/** The three answers to a delivery, as in AMQP 1.0. */
export type Outcome = Accepted | Released | Rejected

export const accepted: Accepted = { kind: 'accepted' }
export const released = (maybeSent: boolean): Released => ({ kind: 'released', maybeSent })
export const rejected = (reason: string, stage: string, attempts = 1): Rejected => ({
  kind: 'rejected',
  reason,
  stage,
  attempts,
})

/**
 * A value and the one way to answer for it.
 *
 * `settle` never throws. Its first call counts; later ones, and those after the source has
 * lost its far end, are counted as stale and change nothing.
 */
export interface Delivery<T> {
  readonly value: T
  readonly settle: (outcome: Outcome) => void
}

/** Cold: subscribing connects. Never has more unsettled outside than its window. */
export type Source<T> = Observable<Delivery<T>>

export type Operator<A, B> = OperatorFunction<Delivery<A>, Delivery<B>>

/** Settles every delivery it is given, and tells of each in a receipt. */
export type Sink<T> = OperatorFunction<Delivery<T>, Receipt<T>>

/**
 * What a pipeline may emit when it is run: anything but deliveries, for nobody is left to
 * answer those. A parameter `Observable<R & Answered<R>>` makes a missing sink a compile error.
 */
export type Answered<R> = [Extract<R, Pick<Delivery<never>, 'settle'>>] extends [never]
  ? unknown
  : 'this pipeline leaves its deliveries unsettled: a sink is missing'

/**
 * What a sink tells about one delivery.
 *
 * `state` is `confirmed` only when the far end said so; `sent` means that it left, and that
 * nobody will ever say more (a datagram).
 */
export interface Receipt<T = unknown> {
  readonly sink: string
  readonly value: T
  readonly outcome: Outcome
  /** How often it was written; 1 when nothing went wrong. */
  readonly attempts: number
  /** From arrival at the sink to its settlement. */
  readonly durationMs: number
  readonly state: 'confirmed' | 'sent'
}

/**
 * Writes one value: completes when it is safe at the far end, and errors with a `Rejection`
 * when it never can be. Any other error means that the connection is of no more use.
 *
 * **Orders**: writers are first in, first out. Unless a write is rejected, nothing written
 * after it takes effect without it. A far end that cannot promise that is used with window 1.
 */
export type Writer<T> = (value: T) => Observable<unknown>

/**
 * A writer at each connect, `undefined` at each loss. Shared by all its subscribers; the
 * last value is replayed. Neither errors nor completes: it reconnects for ever.
 */
export type Connection<T> = Observable<Writer<T> | undefined>

/** Thrown by a step or a writer to say *never*: the delivery goes to the dead letters. */
export class Rejection extends Error {
  override readonly name = 'Rejection'
  constructor(
    readonly reason: string,
    /** Who said so; filled by the operator that catches it when left out. */
    readonly stage?: string,
  ) {
    super(reason)
  }
}

/** What an error thrown by a step or a writer means for the delivery: never, and why. */
export const rejectedBy = (error: unknown, stage: string, attempts = 1): Rejected =>
  error instanceof Rejection
    ? rejected(error.reason, error.stage ?? stage, attempts)
    : rejected(error instanceof Error ? `${error.name}: ${error.message}` : String(error), stage, attempts)

/** The answer for a delivery that went several ways: released, else rejected, else accepted. */
export const worst = (a: Outcome, b: Outcome): Outcome => {
  if (a.kind === 'released') return b.kind === 'released' && b.maybeSent ? b : a
  if (b.kind === 'released') return b
  return a.kind === 'rejected' ? a : b
}
