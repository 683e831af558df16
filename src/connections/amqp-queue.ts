import { catchError, defer, ignoreElements, switchMap, take, tap, throwError } from 'rxjs'
import type { Observable } from 'rxjs'
import { openAmqp } from './amqp-client.js'
import type { AmqpLink, OpenAmqp } from './amqp-port.js'
import type { LinkState } from './reconnect.js'

export type AmqpQueueType = 'auto' | 'classic' | 'quorum'
export type AmqpState = LinkState | { readonly kind: 'blocked'; readonly reason: string } | { readonly kind: 'unblocked' }

export interface AmqpSettings {
  /** Tried in turn: the nodes of a cluster. */
  readonly urls: readonly string[]
  /** A peer that is silent for three of these is gone. @default 10 */
  readonly heartbeatS?: number
  /** @default 10000 */
  readonly connectTimeoutMs?: number
  readonly onState?: (state: AmqpState) => void
  /** The client. @default amqplib */
  readonly open?: OpenAmqp
}

/** A queue that exists is used as it is; a missing one is made like this. */
export interface DeclaredQueue {
  readonly queue: string
  /**
   * `auto`: plain and durable on RabbitMQ 3, where a classic queue syncs before it confirms;
   * a quorum queue without a delivery limit on RabbitMQ 4, where a classic one does not. @default 'auto'
   */
  readonly queueType?: AmqpQueueType
  readonly queueArguments?: Readonly<Record<string, unknown>>
  /** Told each time the queue was missing, and has been made. */
  readonly onMade?: () => void
}

/** Connections to the settings' addresses, one after the other. */
export const amqpLinks = ({ urls, heartbeatS = 10, connectTimeoutMs = 10_000, open = openAmqp }: AmqpSettings): Observable<AmqpLink> => {
  let turn = 0
  return defer(() => open(urls[turn++ % urls.length] ?? 'amqp://localhost', { heartbeatS, connectTimeoutMs }))
}

export const isMissing = (error: unknown): boolean => (error as { code?: number }).code === 404

const isFour = ({ serverVersion }: AmqpLink): boolean => Number.parseInt(serverVersion, 10) >= 4
/** Whether it is a quorum queue, if it was made as declared. */
export const isQuorum = (link: AmqpLink, { queueType = 'auto' }: DeclaredQueue): boolean => queueType === 'quorum' || (queueType === 'auto' && isFour(link))

const argumentsFor = (link: AmqpLink, declared: DeclaredQueue): Record<string, unknown> => {
  const { queueArguments = {} } = declared
  // RabbitMQ 3 has no limit unless told, and -1 there is a limit: it drops a message at its first return.
  const unlimited = isFour(link) ? { 'x-delivery-limit': -1 } : {}
  return isQuorum(link, declared) ? { 'x-queue-type': 'quorum', ...unlimited, ...queueArguments } : queueArguments
}

/** Completes when the queue is there. A check that fails costs its channel, so it gets one of its own. */
export const ensureQueue = (link: AmqpLink, declared: DeclaredQueue): Observable<never> => {
  const { queue, onMade = () => {} } = declared
  const check = link.channel({ confirms: false }).pipe(switchMap((channel) => channel.check(queue)), take(1))
  const make = link.channel({ confirms: false }).pipe(switchMap((channel) => channel.declare(queue, argumentsFor(link, declared))), take(1), tap(onMade))
  return check.pipe(
    catchError((error: unknown) => (isMissing(error) ? make : throwError(() => error))),
    ignoreElements(),
  )
}
