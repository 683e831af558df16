import { catchError, concatMap, defer, from, map, of, switchMap, take, tap, throwError, timeout, toArray } from 'rxjs'
import type { Observable } from 'rxjs'
import type { ArgumentValue, Policies, QueueFacts } from '../queue-problems.js'
import { queueArguments } from './amqp-arguments.js'
import type { SeenQueue } from './amqp-arguments.js'
import type { AmqpLink, OpenAmqp } from './amqp-port.js'
import { amqpLinks } from './amqp-queue.js'
import { policiesByManagement } from './queue-management.js'
import { policiesByRabbitmqctl } from './queue-policies.js'
import type { AskPolicies } from './queue-policies.js'
import type { Host } from './rabbitmqctl.js'

/** What was found at one look. */
export interface Inspection {
  readonly serverVersion: string
  readonly queues: readonly InspectedQueue[]
  /** Why policies are not visible; left out when they are. */
  readonly policiesUnseen?: string
}

export type InspectedQueue =
  | ({ readonly kind: 'seen' } & QueueFacts)
  | { readonly kind: 'missing'; readonly queue: string }
  | { readonly kind: 'unseen'; readonly queue: string; readonly reason: string }

export interface InspectorSettings {
  readonly urls: readonly string[]
  /** The management plugin's HTTP API. */
  readonly managementUrl?: string
  /** The machine, with rabbitmqctl; left out: it is not tried. */
  readonly host?: Host
  /** @default amqplib */
  readonly open?: OpenAmqp
  /** @default 5000 */
  readonly connectTimeoutMs?: number
}

/** One look at these queues, over a connection of its own that is closed afterwards. Errors when RabbitMQ cannot be reached. */
export type InspectQueues = (queues: readonly string[]) => Observable<Inspection>

/** On a small and busy machine rabbitmqctl takes its time; it must not keep us from telling of arguments for ever. */
const policiesMs = 18_000

/** Not now, and perhaps the next time. */
class TookLong extends Error {
  override readonly name = 'TookLong'
}

const typeOf = (value: ArgumentValue | undefined): string => (value === undefined ? 'classic' : String(value))
const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/**
 * Looks at queues: their arguments over AMQP, their policies by the management API where its
 * address is given, else by rabbitmqctl where that talks to the same broker.
 *
 * Remembers what it saw, so that the next look at an unchanged queue is one question, and that
 * rabbitmqctl is of no use, until `forget`. Makes, changes and deletes nothing.
 */
export const queueInspector = ({ urls, managementUrl, host, open, connectTimeoutMs = 5_000 }: InspectorSettings): { inspect: InspectQueues; forget: () => void } => {
  const before = new Map<string, SeenQueue>()
  let useless: string | undefined // why rabbitmqctl cannot be asked
  let tool: AskPolicies | undefined
  const links = amqpLinks({ urls, connectTimeoutMs, ...(open === undefined ? {} : { open }) })

  const byTool = (link: AmqpLink): Observable<AskPolicies> => {
    if (tool !== undefined) return of(tool)
    if (host === undefined || useless !== undefined) throw new Error(useless ?? 'rabbitmqctl is not asked')
    return policiesByRabbitmqctl(host, urls[0] ?? 'amqp://localhost', link.clusterName).pipe(tap((found) => (tool = found)))
  }
  const asker = (link: AmqpLink): Observable<AskPolicies> =>
    managementUrl === undefined ? defer(() => byTool(link)) : of(policiesByManagement(managementUrl, urls[0] ?? 'amqp://localhost'))

  const look = (link: AmqpLink, queue: string): Observable<InspectedQueue> =>
    queueArguments(link, queue, before.get(queue)).pipe(
      tap((seen) => before.set(queue, seen)),
      map((seen) => {
        if (seen.kind === 'missing') return { kind: 'missing', queue }
        if (seen.kind === 'unseen') return { kind: 'unseen', queue, reason: seen.reason }
        return { kind: 'seen', queue, serverVersion: link.serverVersion, arguments: seen.arguments, flags: seen.flags }
      }),
    )
  const known = new Map<string, Policies>()
  const given = (queues: readonly InspectedQueue[]): readonly InspectedQueue[] =>
    queues.map((each) => {
      const policies = known.get(each.queue)
      return each.kind !== 'seen' || policies === undefined ? each : { ...each, policies }
    })
  const withPolicies = (link: AmqpLink, queues: readonly InspectedQueue[]): Observable<Inspection> => {
    const { serverVersion } = link
    const asked = queues.flatMap((each) => (each.kind === 'seen' ? [{ queue: each.queue, type: typeOf(each.arguments['x-queue-type']) }] : []))
    if (asked.length === 0) return of({ serverVersion, queues })
    return asker(link).pipe(
      switchMap((ask) => ask(asked)),
      timeout({ first: policiesMs, with: () => throwError(() => new TookLong(`no answer within ${policiesMs / 1000} s`)) }),
      map((policies): Inspection => {
        asked.forEach(({ queue }, index) => known.set(queue, policies[index] as Policies))
        return { serverVersion, queues: given(queues) }
      }),
      catchError((error: unknown) => {
        // What worked before is tried again the next time, and what it told stays true until then.
        if (tool === undefined && managementUrl === undefined && !(error instanceof TookLong)) useless ??= reasonOf(error)
        if (!(error instanceof TookLong)) tool = undefined
        return of({ serverVersion, queues: given(queues), policiesUnseen: reasonOf(error) })
      }),
    )
  }
  return {
    inspect: (queues) =>
      links.pipe(
        switchMap((link) =>
          from(queues).pipe(
            concatMap((queue) => look(link, queue)),
            toArray(),
            switchMap((seen) => withPolicies(link, seen)),
          ),
        ),
        take(1),
      ),
    forget: () => {
      useless = undefined
      tool = undefined
    },
  }
}
