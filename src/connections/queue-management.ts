import { defer, finalize, forkJoin, map, timeout } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Arguments, Policies } from '../queue-problems.js'
import { httpClient } from './http-client.js'
import { vhostOf } from './queue-policies.js'
import type { AskPolicies, NamedQueue } from './queue-policies.js'

const httpMs = 5_000

interface ManagedQueue {
  readonly policy?: string | null
  readonly operator_policy?: string | null
  readonly effective_policy_definition?: Arguments | readonly unknown[] | null
}

/** `None` is an empty list there. */
const managed = (text: string): Policies => {
  const { policy, operator_policy: operator, effective_policy_definition: effective } = JSON.parse(text) as ManagedQueue
  const definition = effective === undefined || effective === null || Array.isArray(effective) ? {} : (effective as Arguments)
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
            return managed(text)
          }),
        )
      return forkJoin(queues.map(ask)).pipe(
        timeout(httpMs),
        finalize(() => client.close().subscribe({ error: () => undefined })),
      )
    })
