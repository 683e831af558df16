import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import { defer, finalize, forkJoin, map, timeout } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Arguments, Policies } from '../queue-problems.js'
import { httpClient } from './http-client.js'
import { vhostOf } from './queue-policies.js'
import type { AskPolicies, NamedQueue } from './queue-policies.js'

const httpMs = 5_000

const policyName = t.union([t.string, t.null])
const ManagedQueue = t.intersection([
  t.type({ name: t.string }),
  t.partial({ policy: policyName, operator_policy: policyName, effective_policy_definition: t.union([t.null, t.UnknownArray, t.UnknownRecord]) }),
])

/** `None` is an empty list there. An answer about anything else than this queue says nothing of its policies. */
const managed = (queue: string, text: string): Policies => {
  const decoded = ManagedQueue.decode(JSON.parse(text))
  if (E.isLeft(decoded) || decoded.right.name !== queue) throw new Error(`what answers at the address of the management API does not speak of ${queue}`)
  const { policy, operator_policy: operator, effective_policy_definition: effective = null } = decoded.right
  const definition = effective === null || Array.isArray(effective) ? {} : (effective as Arguments)
  return { definition, names: [policy, operator].flatMap((name) => (name ? [name] : [])) }
}

/** Policies by the management plugin's HTTP API; name and password come from its address, else from RabbitMQ's. */
export const policiesByManagement =
  (managementUrl: string, amqpUrl: string): AskPolicies =>
  (queues) =>
    defer(() => {
      const address = new URL(managementUrl)
      const { username, password } = address.username === '' ? new URL(amqpUrl) : address
      const user = username === '' ? 'guest:guest' : `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
      const headers = { authorization: `Basic ${Buffer.from(user).toString('base64')}` }
      const client = httpClient({ url: `${address.origin}${address.pathname}`, timeoutMs: httpMs })
      const ask = ({ queue }: NamedQueue): Observable<Policies> =>
        client.request({ method: 'GET', path: `/api/queues/${encodeURIComponent(vhostOf(amqpUrl))}/${encodeURIComponent(queue)}`, headers }).pipe(
          map(({ status, text }) => {
            if (status === 401) throw new Error('the management API refused the user (401): it needs the tag management, and rights on the virtual host')
            if (status !== 200) throw new Error(`the management API answered ${status}`)
            return managed(queue, text)
          }),
        )
      return forkJoin(queues.map(ask)).pipe(
        timeout(httpMs),
        finalize(() => client.close().subscribe({ error: () => undefined })),
      )
    })
