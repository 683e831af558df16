import { NEVER, pipe, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Connection, Receipt, Sink, Source } from '../delivery.js'
import { topLevelFields } from '../json.js'
import type { Message } from '../message.js'
import { bestEffort } from '../operators/best-effort.js'
import { underWay } from '../operators/drop-repeats.js'
import type { Recent, UnderWay } from '../operators/drop-repeats.js'
import { each } from '../operators/each.js'
import { fanOut } from '../operators/fan-out.js'
import { rememberReplays } from '../operators/remember-replays.js'
import type { ReplayMemory } from '../operators/remember-replays.js'
import { rescue } from '../operators/rescue.js'
import type { DeadLetter } from '../operators/rescue.js'
import { whileOpen } from '../operators/while-open.js'
import type { Scope } from '../operators/while-open.js'

/** Somewhere else a message goes, without a say. */
export interface Copy {
  readonly name: string
  readonly sink: Sink<Message>
}

export interface ForwardParts {
  /** The queue, oldest first. */
  readonly read: (options: { window: number; stop: Observable<unknown> }) => Source<Message>
  readonly far: Connection<Message>
  /** Makes the sink that must confirm. */
  readonly sink: (connection: Connection<Message>) => Sink<Message>
  readonly copies: readonly Copy[]
  readonly deadLetters: Sink<DeadLetter<Message>>
  readonly recent: Recent
  /** Which dead letters that were put back are dealt with. */
  readonly replays: ReplayMemory
  readonly counted: {
    readonly delivered: (message: Message) => void
    readonly deadLettered: (message: Message) => void
    readonly repeatDropped: (message: Message) => void
    readonly copiesDropped: (name: string, count: number) => void
  }
  readonly window?: number
  readonly patienceMs?: number
  readonly stop?: Observable<unknown>
}

/** Throws the reason when the bytes are not one JSON object. */
const check = topLevelFields([])

const alike = (one: Message, other: Message): boolean => one.id === other.id && one.body.equals(other.body)

/** What our own door accepted was checked there; anyone may write to the queue. */
const checked = (message: Message): readonly Message[] => {
  if (message.digest === undefined) check(message.body)
  return [message]
}

/**
 * Queue → Pulsar, which must confirm; copies on the side; dead letters for the rejected.
 * A copy is made when a message leaves the queue for the first time, not for repeats. What
 * Pulsar was tried with after a silence counts as delivered then, and is a repeat when the
 * queue gives it again.
 */
export const forward = ({
  read,
  far,
  sink,
  copies,
  deadLetters,
  recent,
  replays,
  counted,
  window = 1000,
  patienceMs = 60_000,
  stop = NEVER,
}: ForwardParts): Observable<Receipt> => {
  const fresh = ({ enter }: UnderWay) =>
    each<Message, Message>((message) => (recent.has(message) || !enter(message) ? [] : [message]), { filtered: counted.repeatDropped })
  const firstOnly = each<Message, Message>((message) => (message.redelivered === true ? [] : [message]))
  const arrived = (message: Message): void => {
    recent.add(message)
    counted.delivered(message)
  }
  const answered = ({ leave }: UnderWay) =>
    tap<Receipt<Message>>(({ outcome, value }) => {
      leave(value)
      if (outcome.kind === 'accepted') arrived(value)
    })
  const buried = tap<Receipt<DeadLetter<Message>>>(({ outcome, value }) => {
    if (outcome.kind === 'accepted') counted.deadLettered(value.value)
  })
  const run = (scope: Scope<Message>, out: UnderWay): Observable<Receipt> =>
    read({ window, stop: scope.stop }).pipe(
      rememberReplays(replays, counted.repeatDropped),
      rescue(
        pipe(
          each(checked, { stage: 'check' }),
          fresh(out),
          fanOut<Message>(
            pipe(sink(scope.connection), answered(out)),
            ...copies.map((copy) =>
              bestEffort<Message>(pipe(firstOnly, copy.sink), {
                dropped: (count) => counted.copiesDropped(copy.name, count),
              }),
            ),
          ),
        ),
        pipe(deadLetters, buried),
      ),
    )
  return whileOpen(far, (scope) => run(scope, underWay()), { patienceMs, stop, proved: arrived, same: alike })
}
