import { Observable } from 'rxjs'
import { Pool } from 'undici'

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer | string
}

export interface HttpReply {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

export interface HttpClient {
  /** Cold: one request for each subscription; unsubscribing aborts it. Errors when there was no whole reply. */
  readonly request: (request: HttpRequest) => Observable<HttpReply>
  readonly close: () => Observable<never>
}

export interface HttpClientSettings {
  readonly url: string
  readonly token?: string
  /** @default 1 */
  readonly connections?: number
  /** Until the reply has begun, in milliseconds. @default 15000 */
  readonly timeoutMs?: number
}

/** Talks to a running daemon, over a pool of its own. */
export const httpClient = ({ url, token, connections = 1, timeoutMs = 15_000 }: HttpClientSettings): HttpClient => {
  const { origin, pathname } = new URL(url)
  const base = pathname.replace(/\/$/, '')
  const pool = new Pool(origin, {
    connections,
    pipelining: 1,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    connect: { timeout: Math.min(timeoutMs, 5000) },
  })
  const authorization: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` }
  return {
    request: ({ method, path, headers = {}, body }) =>
      new Observable((subscriber) => {
        const abort = new AbortController()
        const ask = async (): Promise<void> => {
          const reply = await pool.request({
            method,
            path: `${base}${path}`,
            headers: { ...authorization, ...headers },
            signal: abort.signal,
            ...(body === undefined ? {} : { body }),
          })
          subscriber.next({ status: reply.statusCode, headers: reply.headers, text: await reply.body.text() })
          subscriber.complete()
        }
        ask().catch((error: unknown) => subscriber.error(error))
        return () => abort.abort()
      }),
    close: () =>
      new Observable<never>((subscriber) => {
        pool.destroy().then(
          () => subscriber.complete(),
          (error: unknown) => subscriber.error(error),
        )
      }),
  }
}
