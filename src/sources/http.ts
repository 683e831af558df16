import { defer, map, Observable, of, timer } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Outcome } from '../delivery.js'
import { BadMessage, firstByteKind, splitArray, splitLines } from '../json.js'
import { defaultMaxMessageBytes, digestOf, maxPostedPropertiesBytes, newId as uuid, uncarriable } from '../message.js'
import type { Message } from '../message.js'
import type { Intake } from './intake.js'

export interface IngestRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

export interface IngestReply {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: object
}

export interface HttpSourceSettings {
  /** Checks and enriches the bytes of one record; throws a `Rejection` for what is no message. */
  readonly prepare: (body: Buffer) => Buffer
  /** @default 700 KiB, after enrichment */
  readonly maxMessageBytes?: number
  /** Until a request has its answer, in milliseconds. @default 10000 */
  readonly deadlineMs?: number
  /** All bodies that wait for their answers, together; more is 429. @default 64 MiB */
  readonly maxWaitingBytes?: number
  /** Says why nothing can be kept now; such a request is refused at once. */
  readonly unavailable?: () => string | undefined
  readonly newId?: () => string
}

/** What became of one record of a request. */
type Verdict =
  | { readonly status: 'accepted' | 'released' | 'unknown'; readonly id: string }
  | { readonly status: 'rejected'; readonly reason: string; readonly http: number }

type Item = Message | (Verdict & { readonly status: 'rejected' })

const problem = (status: number, code: string, reason: string, headers: Record<string, string> = {}): IngestReply => ({
  status,
  headers,
  body: { error: { code, reason } },
})
const again = { 'retry-after': '1' }

const codes = { notJson: [400, 'not-json'], notMessage: [422, 'not-a-message'], tooLarge: [413, 'too-large'] } as const
const statusOf = (error: unknown): readonly [number, string] => (error instanceof BadMessage ? codes[error.code] : [422, 'not-a-message'])
const codeOf = (status: number): string => Object.values(codes).find(([known]) => known === status)?.[1] ?? 'not-a-message'
const reasonOf = (error: unknown): string => (error instanceof Rejection ? error.reason : 'not a message')

const header = ({ headers }: IngestRequest, name: string): string | undefined => {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}

const prefix = 'backhaul-property-'
const maxProperties = 50
const propertiesOf = ({ headers }: IngestRequest): Record<string, string> => {
  const found = Object.entries(headers).filter(([name]) => name.startsWith(prefix) && name.length > prefix.length)
  const properties = found.map(([name, value]) => [name.slice(prefix.length), Array.isArray(value) ? value.join(', ') : (value ?? '')] as const)
  const bytes = properties.reduce((sum, [name, value]) => sum + name.length + value.length, 0)
  if (properties.length > maxProperties || bytes > maxPostedPropertiesBytes) throw new BadMessage('notMessage', 'too many properties')
  return Object.fromEntries(properties)
}

/** The last requests that came with a key: the same key must mean the same bytes. */
const knownKeys = (size = 10_000) => {
  const digests = new Map<string, string>()
  return (key: string, digest: string): boolean => {
    const known = digests.get(key)
    if (known !== undefined) return known === digest
    digests.set(key, digest)
    if (digests.size > size) digests.delete(digests.keys().next().value as string)
    return true
  }
}

const verdictOf = (outcome: Outcome, id: string): Verdict => {
  if (outcome.kind === 'accepted') return { status: 'accepted', id }
  if (outcome.kind === 'rejected') return { status: 'rejected', reason: outcome.reason, http: 422 }
  return { status: outcome.maybeSent ? 'unknown' : 'released', id }
}

const isMessage = (item: Item): item is Message => 'body' in item

/** The same verdict for all has a status of its own; else each is told. */
const replyFor = (verdicts: readonly Verdict[], single: boolean): IngestReply => {
  const results = verdicts.map((verdict, index) =>
    verdict.status === 'rejected' ? { index, status: verdict.status, reason: verdict.reason } : { index, ...verdict },
  )
  const kinds = new Set(verdicts.map(({ status }) => status))
  if (kinds.size > 1) return { status: 207, body: { results } }
  const [first] = verdicts
  const ids = verdicts.map((verdict) => (verdict.status === 'rejected' ? '' : verdict.id))
  const named = single ? { id: ids[0] } : { ids }
  switch (first?.status) {
    case 'accepted':
      return { status: 202, body: named }
    case 'released':
      return problem(503, 'released', 'it could not be kept in time; nothing was', again)
    case 'unknown':
      return { status: 504, body: { error: { code: 'unknown', reason: 'no answer in time: send it again under the same ids' }, ...named } }
    default:
      return single && first !== undefined ? problem(first.http, codeOf(first.http), first.reason) : { status: 422, body: { error: { code: 'not-a-message', reason: 'no record is a message' }, results } }
  }
}

/**
 * What `POST /v1/messages` means, without the HTTP: records go through the door in order, and
 * the reply says what became of each.
 *
 * **Settles**: accepted is 202; a batch whose verdicts differ is 207. At the deadline, what has not entered
 * the window is withdrawn (`released`: nothing was kept), the rest is `unknown`.
 * **Orders**: the records of a request in their order, requests in the order of arrival.
 * **Holds**: the bodies of requests that wait, at most `maxWaitingBytes` in all.
 */
export const httpSource = (
  {
    prepare,
    maxMessageBytes = defaultMaxMessageBytes,
    deadlineMs = 10_000,
    maxWaitingBytes = 64 * 1024 * 1024,
    unavailable = () => undefined,
    newId = uuid,
  }: HttpSourceSettings,
  door: Intake<Message>,
): { ingest: (request: IngestRequest) => Observable<IngestReply> } => {
  const known = knownKeys()
  let waitingBytes = 0

  const item = (raw: Buffer, id: string, properties: Record<string, string>): Item => {
    try {
      const tooLarge = `larger than ${maxMessageBytes} bytes`
      if (raw.length > maxMessageBytes) throw new BadMessage('tooLarge', tooLarge)
      const body = prepare(raw)
      if (body.length > maxMessageBytes) throw new BadMessage('tooLarge', tooLarge)
      const reason = uncarriable({ id, properties })
      if (reason !== undefined) throw new BadMessage('notMessage', reason)
      return { id, body, properties, digest: digestOf(raw) }
    } catch (error) {
      return { status: 'rejected', reason: reasonOf(error), http: statusOf(error)[0] }
    }
  }
  const split = (request: IngestRequest): { bodies: readonly Buffer[]; single: boolean } => {
    const type = header(request, 'content-type') ?? ''
    if (/^application\/x-ndjson\b/i.test(type)) return { bodies: splitLines(request.body).map(({ bytes }) => bytes), single: false }
    if (firstByteKind(request.body) === 'array') return { bodies: splitArray(request.body), single: false }
    return { bodies: [request.body], single: true }
  }
  const itemsOf = (request: IngestRequest): { items: readonly Item[]; single: boolean } => {
    const { bodies, single } = split(request)
    if (bodies.length === 0) throw new BadMessage('notMessage', 'no records')
    const key = header(request, 'idempotency-key')
    if (key !== undefined && !/^[!-~]{1,200}$/.test(key)) throw new BadMessage('notMessage', 'Idempotency-Key: expected 1 to 200 visible characters')
    const properties = propertiesOf(request)
    const idOf = (index: number): string => (key === undefined ? newId() : single ? key : `${key}-${index}`)
    const items = bodies.map((body, index) => item(body, idOf(index), properties))
    if (key !== undefined && items.some(isMessage) && !known(key, digestOf(request.body))) throw new BadMessage('notMessage', 'Idempotency-Key: used before with other bytes')
    return { items, single }
  }
  /** Offers all in order, and emits the verdicts when the last is in, or the time is up. */
  const offerAll = (items: readonly Item[]): Observable<readonly Verdict[]> =>
    new Observable((subscriber) => {
      const verdicts: (Verdict | undefined)[] = items.map((one) => (isMessage(one) ? undefined : one))
      const taken = new Set<number>()
      let open = verdicts.filter((verdict) => verdict === undefined).length
      const finish = (): void => {
        if (open > 0) return
        subscriber.next(verdicts as readonly Verdict[])
        subscriber.complete()
      }
      const judge = (index: number, verdict: Verdict): void => {
        if (verdicts[index] !== undefined) return
        verdicts[index] = verdict
        open -= 1
        finish()
      }
      subscriber.add(
        timer(deadlineMs).subscribe(() =>
          items.forEach((one, index) => isMessage(one) && judge(index, { status: taken.has(index) ? 'unknown' : 'released', id: one.id })),
        ),
      )
      items.forEach((one, index) => {
        if (!isMessage(one)) return
        const answered = (outcome: Outcome): void => judge(index, verdictOf(outcome, one.id))
        subscriber.add(door.offer(one, () => taken.add(index)).subscribe(answered))
      })
      finish()
    })
  const ingest = (request: IngestRequest): Observable<IngestReply> =>
    defer(() => {
      const reason = unavailable()
      if (reason !== undefined) return of(problem(503, 'unavailable', reason, again))
      if (door.full() || waitingBytes + request.body.length > maxWaitingBytes) return of(problem(429, 'window-full', 'too much is on its way', again))
      try {
        const { items, single } = itemsOf(request)
        const bytes = request.body.length
        waitingBytes += bytes
        return offerAll(items).pipe(
          map((verdicts) => {
            waitingBytes -= bytes
            return replyFor(verdicts, single)
          }),
        )
      } catch (error) {
        const [status, code] = statusOf(error)
        return of(problem(status, code, reasonOf(error)))
      }
    })
  return { ingest }
}
