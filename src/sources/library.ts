import { defer, filter, firstValueFrom, map, merge, of, switchMap, take, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import { rejectedBy, Rejection } from '../delivery.js'
import type { Outcome, Source } from '../delivery.js'
import type { Counts } from '../ledger.js'
import { defaultMaxMessageBytes, digestOf, newId, uncarriable } from '../message.js'
import type { Message } from '../message.js'
import { intake } from './intake.js'

/** Why a `publish` failed. `maybeSent` is false only when nothing was kept: publishing again cannot double it. */
export class PublishError extends Error {
  override readonly name = 'PublishError'
  constructor(
    readonly code: 'BACKHAUL_REJECTED' | 'BACKHAUL_TIMEOUT' | 'BACKHAUL_CLOSED',
    message: string,
    readonly maybeSent: boolean,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** An object, or its JSON text: text and bytes travel exactly as they are. */
export type PublishRecord = object | string | Uint8Array

export interface PublishOptions {
  /** Stable id, for a record that may be published again; 1 to 255 bytes. @default a new UUID, version 7 */
  readonly id?: string
  /** Names of up to 255 bytes, 60 KiB in all. */
  readonly properties?: Readonly<Record<string, string>>
}

/** Resolves with the id when the record is durable; else rejects with a `PublishError`. */
export type Publish = (record: PublishRecord, options?: PublishOptions) => Promise<string>

export interface LibrarySettings<T> {
  /** @default 1000 */
  readonly window?: number
  /** How long a publish may wait, in milliseconds. @default 10000 */
  readonly timeoutMs?: number
  /** Emits true while what is taken can be written; a publish waits outside the window until then. @default always */
  readonly open?: Observable<boolean>
  /** Makes the value that travels; a `Rejection` refuses the record. */
  readonly prepare: (body: Buffer, options: PublishOptions) => T
  readonly idOf: (value: T) => string
  readonly stop?: Observable<unknown>
  readonly counts?: Counts
}

const unrepresentable = (_key: string, value: unknown): unknown => {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new Rejection(`${value} has no form in JSON`)
  if (typeof value === 'bigint') throw new Rejection('a BigInt has no form in JSON: publish it as text')
  if (typeof value === 'function' || typeof value === 'symbol') throw new Rejection(`a ${typeof value} has no form in JSON`)
  return value
}

/** Never a silent null: what JSON cannot say is refused. */
export const toBody = (record: PublishRecord): Buffer => {
  if (typeof record === 'string') return Buffer.from(record)
  if (record instanceof Uint8Array) return Buffer.from(record)
  return Buffer.from(JSON.stringify(record, unrepresentable))
}

const verdict = (outcome: Outcome, id: string): string => {
  if (outcome.kind === 'accepted') return id
  if (outcome.kind === 'rejected') throw new PublishError('BACKHAUL_REJECTED', outcome.reason, false)
  throw new PublishError('BACKHAUL_CLOSED', 'the publisher was closed', outcome.maybeSent)
}

/** Runs what a record must pass before it may wait in line. */
const admitted = <T>(prepare: () => T): T => {
  try {
    return prepare()
  } catch (error) {
    throw new PublishError('BACKHAUL_REJECTED', rejectedBy(error, 'publish').reason, false, { cause: error })
  }
}

/**
 * A door for records from this process: `publish` offers, `deliveries` is the source to build a pipeline on.
 *
 * **Settles**: accepted resolves the promise, rejected and released reject it.
 * **Orders**: the order of the calls.
 * **Holds**: `window` unsettled; a call that finds it full waits, up to `timeoutMs`.
 */
export const librarySource = <T>({
  window = 1000,
  timeoutMs = 10_000,
  open = of(true),
  prepare,
  idOf,
  ...options
}: LibrarySettings<T>): { publish: Publish; deliveries: Source<T> } => {
  const door = intake<T>({ window, ...options })
  const publish: Publish = (record, given = {}) => {
    let taken = false
    const offer = defer(() => {
      const value = admitted(() => prepare(toBody(record), given))
      return open.pipe(
        filter((isOpen) => isOpen),
        take(1),
        switchMap(() => door.offer(value, () => (taken = true))),
        map((outcome) => verdict(outcome, idOf(value))),
      )
    })
    const late = timer(timeoutMs).pipe(
      map(() => {
        throw new PublishError('BACKHAUL_TIMEOUT', `not durable within ${timeoutMs} ms`, taken)
      }),
    )
    return firstValueFrom(merge(offer, late))
  }
  return { publish, deliveries: door.deliveries }
}

/**
 * A record as a message: its own id or a new one, and the digest of the bytes as given. Refuses what no queue could
 * carry, and what is larger than `maxMessageBytes`, before or after `enrich`.
 */
export const toMessage =
  (enrich: (body: Buffer) => Buffer, maxMessageBytes = defaultMaxMessageBytes) =>
  (given: Buffer, { id = newId(), properties = {} }: PublishOptions): Message => {
    const fitting = (bytes: Buffer): Buffer => {
      if (bytes.length > maxMessageBytes) throw new Rejection(`larger than ${maxMessageBytes} bytes`)
      return bytes
    }
    const reason = uncarriable({ id, properties })
    if (reason !== undefined) throw new Rejection(reason)
    return { id, body: fitting(enrich(fitting(given))), properties, digest: digestOf(given) }
  }
