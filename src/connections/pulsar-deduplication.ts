import { defer, finalize, map } from 'rxjs'
import type { Observable } from 'rxjs'
import { httpClient } from './http-client.js'
import { PulsarUnavailable, slowProbeMs } from './pulsar-answers.js'
import { authorization, topicPath } from './pulsar-endpoint.js'
import type { PulsarSettings } from './pulsar-endpoint.js'

const advice = "switch it on with 'pulsar-admin namespaces set-deduplication --enable', or set BACKHAUL_DEDUPLICATION=false"

/** What a topic's statistics say; a token that may produce may read them. */
const judge = (topic: string, status: number, text: string): true => {
  if (status === 401 || status === 403)
    throw new PulsarUnavailable('unauthorised', `whether ${topic} drops repeats cannot be seen: its statistics answered ${status}`, slowProbeMs)
  if (status >= 500) throw new PulsarUnavailable('away', `the statistics of ${topic} answered ${status}`, 0)
  const found = /"deduplicationStatus"\s*:\s*"(\w+)"/.exec(text)?.[1]
  if (status !== 200 || found === undefined)
    throw new PulsarUnavailable('misconfigured', `whether ${topic} drops repeats cannot be seen: its statistics answered ${status}; ${advice}`, slowProbeMs)
  if (found === 'Enabled') return true
  const changing = found === 'Initialized' || found === 'Recovering'
  throw new PulsarUnavailable(changing ? 'away' : 'misconfigured', `${topic} does not drop repeats (deduplication is ${found}): ${advice}`, changing ? 0 : slowProbeMs)
}

/**
 * Asks Pulsar's REST API, on the address of its WebSocket API, whether a topic drops repeats.
 * The topic must be there: ask once a producer is open.
 *
 * **Fails** with `PulsarUnavailable` when it does not, or when nobody can say.
 */
export const deduplicationIsOn = ({ url, topic, token }: Pick<PulsarSettings, 'url' | 'topic' | 'token'>): Observable<true> =>
  defer(() => {
    const client = httpClient({ url: url.replace(/^ws/, 'http').replace(/\/$/, ''), timeoutMs: 10_000 })
    const path = `/admin/v2/${topicPath(topic)}/stats`
    return client.request({ method: 'GET', path, headers: authorization(token) }).pipe(
      map(({ status, text }) => judge(topic, status, text)),
      finalize(() => client.close().subscribe()),
    )
  })
