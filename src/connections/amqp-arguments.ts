import { catchError, defer, map, of, switchMap, take, throwError } from 'rxjs'
import type { Observable } from 'rxjs'
import type { ArgumentValue, Arguments, QueueFacts } from '../queue-problems.js'
import type { AmqpLink } from './amqp-port.js'

/** A queue as a declaration that differs from it shows it. */
export type SeenQueue =
  | { readonly kind: 'seen'; readonly arguments: Arguments; readonly flags: QueueFacts['flags']; readonly last?: string }
  | { readonly kind: 'missing' }
  /** It is there, and we may not ask: the user has no right to configure it, or RabbitMQ speaks in other words. */
  | { readonly kind: 'unseen'; readonly reason: string }

/**
 * Values that no queue has. Those in `refused` are also such that RabbitMQ makes no queue with
 * them, of any type: each declaration carries at least one of them, so none can make a queue.
 */
const refused: Arguments = { 'x-expires': -1, 'x-message-ttl': -1, 'x-max-length': -1, 'x-max-length-bytes': -1, 'x-overflow': 'never', 'x-queue-type': 'never' }
const impossible: Arguments = { ...refused, 'x-dead-letter-exchange': -1, 'x-delivery-limit': 'never', 'x-max-priority': -1 }

/** Told without their type where both are given; an exchange may be called 17. */
const words = ['x-dead-letter-exchange', 'x-overflow', 'x-queue-type']
const flagNames: Readonly<Record<string, QueueFacts['flags'][number]>> = { durable: 'not-durable', auto_delete: 'auto-delete', exclusive: 'exclusive' }
const maxQuestions = 40

type Said =
  | { readonly kind: 'differs'; readonly name: string; readonly value?: ArgumentValue }
  | { readonly kind: 'invalid'; readonly name: string }
  | { readonly kind: 'locked' | 'made' | 'same' }
  | { readonly kind: 'other'; readonly reason: string }

/** `current is none`, `current is '5'` (asked with the same kind of value), `current is the value '5' of type 'byte'`. */
const valueIn = (text: string): ArgumentValue | undefined => {
  const found = /^the value '(.*)' of type '(\w+)'/s.exec(text) ?? /^'(.*)'/s.exec(text)
  if (found === null) return undefined
  const [, word = '', type] = found
  if (type === 'bool') return word === 'true'
  return type !== 'longstr' && /^-?\d+$/.test(word) ? Number(word) : word
}

/** What RabbitMQ 3.10 and 4 answer to a declaration that differs. */
const saidBy = (error: unknown): Said => {
  const { code, message = String(error) } = error as { code?: number; message?: string }
  const differs = /inequivalent arg '([^']+)' .* but current is (.*)$/s.exec(message)
  if (differs !== null) {
    const [, name = '', current = ''] = differs
    const value = valueIn(current)
    return value === undefined ? { kind: 'differs', name } : { kind: 'differs', name, value: words.includes(name) ? String(value) : value }
  }
  const invalid = /invalid (?:arg|type '\w+' for arg) '([^']+)'/.exec(message)
  if (invalid !== null) return { kind: 'invalid', name: invalid[1] as string }
  if (code === 405) return { kind: 'locked' }
  return { kind: 'other', reason: message }
}

/** Only what the broker says to this very question: everything else means that it is away. */
const isAnswer = (error: unknown): boolean => [403, 405, 406].includes((error as { code?: number }).code ?? 0)

/** A declaration that is refused costs its channel, so each gets one of its own. */
const declared = (link: AmqpLink, queue: string, given: Arguments): Observable<Said> =>
  link.channel({ confirms: false }).pipe(
    switchMap((channel) => channel.declare(queue, given)),
    take(1),
    map((): Said => ({ kind: 'same' })),
    catchError((error: unknown) => (isAnswer(error) ? of(saidBy(error)) : throwError(() => error))),
  )

const exists = (link: AmqpLink, queue: string): Observable<boolean> =>
  link.channel({ confirms: false }).pipe(
    switchMap((channel) => channel.check(queue)),
    take(1),
    map(() => true),
    catchError((error: unknown) => ((error as { code?: number }).code === 404 ? of(false) : throwError(() => error))),
  )

interface Asking {
  /** What is known, `undefined` for none; sent as it is, so that RabbitMQ goes on to the next. */
  readonly known: ReadonlyMap<string, ArgumentValue | undefined>
  /** What is still asked about: sent with a value that no queue has. */
  readonly asked: readonly string[]
  readonly last?: string
  readonly questions: number
  /** Whether this starts from what was known before, which may have changed. */
  readonly repeated: boolean
}

const from = (before: SeenQueue | undefined): Asking => {
  const fresh = { known: new Map(), asked: Object.keys(impossible), questions: 0, repeated: false }
  if (before?.kind !== 'seen' || before.last === undefined || before.flags.length > 0) return fresh
  const known = new Map(Object.entries(before.arguments).filter(([name]) => name !== before.last))
  return { known, asked: [before.last], last: before.last, questions: 0, repeated: true }
}

const present = (known: Asking['known']): Arguments =>
  Object.fromEntries([...known].flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])))

const ask = (link: AmqpLink, queue: string, asking: Asking): Observable<SeenQueue> =>
  defer(() => {
    const { known, asked, questions, repeated } = asking
    const question = { ...present(known), ...Object.fromEntries(asked.map((name) => [name, impossible[name] as ArgumentValue])) }
    const seen = (last?: string): Observable<SeenQueue> =>
      of({ kind: 'seen', arguments: present(known), flags: [], ...(last === undefined ? {} : { last }) })
    // Asking on without a value that is refused for certain could make a queue.
    if (!asked.some((name) => name in refused)) return seen(asking.last)
    if (questions >= maxQuestions) return of<SeenQueue>({ kind: 'unseen', reason: `no end after ${questions} questions` })
    const go = (next: Partial<Asking>): Observable<SeenQueue> => ask(link, queue, { ...asking, questions: questions + 1, ...next })
    return declared(link, queue, question).pipe(
      switchMap((said): Observable<SeenQueue> => {
        if (said.kind === 'same') return seen()
        if (said.kind === 'locked') return of({ kind: 'seen', arguments: {}, flags: ['exclusive'] })
        if (said.kind === 'invalid')
          return exists(link, queue).pipe(switchMap((there) => (there ? go({ asked: asked.filter((name) => name !== said.name) }) : of<SeenQueue>({ kind: 'missing' }))))
        if (said.kind !== 'differs') return of({ kind: 'unseen', reason: said.kind === 'other' ? said.reason : said.kind })
        const flag = flagNames[said.name]
        if (flag !== undefined) return of({ kind: 'seen', arguments: present(known), flags: [flag] })
        // It has changed since it was last seen: another queue of the same name.
        if (repeated && !asked.includes(said.name)) return ask(link, queue, from(undefined))
        if (known.has(said.name)) return of({ kind: 'unseen', reason: `${said.name} has a value that cannot be read` })
        return go({ known: new Map([...known, [said.name, said.value]]), asked: asked.filter((name) => name !== said.name), last: said.name })
      }),
    )
  })

/**
 * What a queue was declared with, by asking for what it is not: RabbitMQ refuses a declaration
 * that differs, and names the first argument that does with its present value. No privilege is
 * needed but that of declaring the queue, and no queue is made, changed or deleted.
 *
 * The first time that is about ten questions, each a channel of its own and a line in RabbitMQ's
 * log; with what was `before`, one question tells that nothing has changed.
 *
 * **Fails** when the connection is lost.
 */
export const queueArguments = (link: AmqpLink, queue: string, before?: SeenQueue): Observable<SeenQueue> => ask(link, queue, from(before))
