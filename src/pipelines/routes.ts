import { catchError, from, map, of } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Books } from '../books.js'
import type { DoorReply, DoorRequest, Route } from '../connections/http-server.js'
import type { Readiness } from '../health.js'
import type { IngestReply, IngestRequest } from '../sources/http.js'
import { deadRoutes } from './dead-routes.js'
import type { DeadLetters } from './dead.js'
import type { Queue } from './queue.js'

export interface RouteParts {
  /** Left out when this process does not take messages. */
  readonly ingest?: (request: IngestRequest) => Observable<IngestReply>
  readonly readiness: () => { readonly accept: Readiness; readonly deliver: Readiness }
  readonly metrics: { readonly contentType: string; readonly text: () => Promise<string> }
  readonly configuration: (topic?: string) => Observable<Buffer | undefined>
  readonly queues: readonly Queue[]
  readonly depths: () => Promise<readonly { queue: string; messages?: number }[]>
  readonly books: Books
  readonly dead?: DeadLetters
}

const json = ['application/json', 'application/x-ndjson']
/** What programs of the old server send. */
const oldClients = [...json, '', 'application/x-www-form-urlencoded', 'text/plain']

const problem = (status: number, code: string, reason: string): DoorReply => ({ status, body: { error: { code, reason } } })

const post = (path: string, accepts: readonly string[], ingest: NonNullable<RouteParts['ingest']>): Route => ({
  method: 'POST',
  path,
  accepts,
  handle: ({ headers, body }) => ingest({ headers, body }),
})

const get = (path: string, handle: (request: DoorRequest) => Observable<DoorReply>, open = false): Route => ({ method: 'GET', path, open, handle })

/** Everything that the daemon answers over HTTP. */
export const routes = ({ ingest, readiness, metrics, configuration, queues, depths, books, dead }: RouteParts): readonly Route[] => [
  ...(ingest === undefined ? [] : [post('/v1/messages', json, ingest), post('/', oldClients, ingest)]),
  get('/healthz', () => of({ status: 200, body: { status: 'alive' } }), true),
  get(
    '/readyz',
    () => {
      const { accept, deliver } = readiness()
      return of({ status: accept.ready && deliver.ready ? 200 : 503, body: { accept, deliver } })
    },
    true,
  ),
  get('/metrics', () => from(metrics.text()).pipe(map((body) => ({ status: 200, headers: { 'content-type': metrics.contentType }, body })))),
  get('/v1/configuration', ({ query }) =>
    configuration(query['topic']).pipe(
      map((document) =>
        document === undefined
          ? problem(404, 'no-configuration', 'none has come yet')
          : { status: 200, headers: { 'content-type': 'application/json' }, body: document },
      ),
    ),
  ),
  ...(dead === undefined ? [] : deadRoutes(dead)),
  get('/v1/queues', () => from(depths()).pipe(map((list) => ({ status: 200, body: { queues: list } })))),
  {
    method: 'POST',
    path: '/v1/queues/purge',
    handle: ({ query }) => {
      const queue = queues.find(({ name }) => name === query['queue'])
      if (queue === undefined) return of(problem(404, 'no-queue', 'no such queue here'))
      return queue.purge().pipe(
        map((removed) => {
          if (queue === queues[0]) books.purged += removed
          return { status: 200, body: { removed } }
        }),
        catchError(() => of(problem(503, 'unavailable', 'the queue cannot be reached'))),
      )
    },
  },
]

