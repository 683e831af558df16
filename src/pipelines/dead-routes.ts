import * as E from 'fp-ts/lib/Either.js'
import * as t from 'io-ts'
import { catchError, map, of } from 'rxjs'
import type { Observable } from 'rxjs'
import type { DoorReply, Route } from '../connections/http-server.js'
import { sentProperties, summaryOf } from '../dead-letter.js'
import type { DeadChoice, DeadLetters, DeadProgress } from './dead.js'

/** How many a second are put back when nobody says. */
export const defaultRate = 100
export const maxRate = 10_000
const maxPage = 10_000
const page = 1000

const choice = t.intersection([
  t.union([t.type({ ids: t.array(t.string) }), t.type({ all: t.literal(true) })]),
  t.partial({ within: t.number, rate: t.number }),
])

const problem = (status: number, code: string, reason: string): DoorReply => ({ status, body: { error: { code, reason } } })
const away = (error: unknown): Observable<DoorReply> => of(problem(503, 'unavailable', error instanceof Error ? error.message : String(error)))
const wrong = of(problem(422, 'not-a-choice', 'expected {"ids": […]} or {"all": true}, a rate from 1 to 10000 and a number within'))

const isRate = (rate: number): boolean => rate >= 1 && rate <= maxRate

/** What a request asks for; undefined when it is none, both ways at once included. */
const asked = (body: Buffer): (DeadChoice & { readonly rate: number }) | undefined => {
  let raw: unknown
  try {
    raw = JSON.parse(body.toString())
  } catch {
    return undefined
  }
  const decoded = choice.decode(raw)
  if (E.isLeft(decoded)) return undefined
  const { within, rate = defaultRate, ...which } = decoded.right as { ids?: readonly string[]; all?: true; within?: number; rate?: number }
  if (!isRate(rate) || (which.ids !== undefined && which.all !== undefined) || (within !== undefined && !(within >= 0))) return undefined
  return { rate, ...(which.ids === undefined ? {} : { ids: which.ids }), ...(within === undefined ? {} : { within }) }
}

const told = (progress: Observable<DeadProgress>): Observable<DoorReply> =>
  progress.pipe(
    map(({ failed, ...done }) => (failed === undefined ? { status: 200, body: done } : { status: 503, body: { ...done, error: { code: 'unavailable', reason: failed } } })),
    catchError(away),
  )

/** `GET /v1/dead`, `GET /v1/dead/:id`, `POST /v1/dead/replay`, `POST /v1/dead/drop`. */
export const deadRoutes = ({ list, show, replay, drop }: DeadLetters): readonly Route[] => [
  {
    method: 'GET',
    path: '/v1/dead',
    handle: ({ query: { limit = String(page), after } }) => {
      const most = Number(limit)
      if (!Number.isInteger(most) || most < 1 || most > maxPage) return of(problem(422, 'wrong-limit', `expected a limit from 1 to ${maxPage}`))
      return list(most, after).pipe(
        map((page) => ({ status: 200, body: page })),
        catchError(away),
      )
    },
  },
  {
    method: 'GET',
    path: '/v1/dead/:id',
    handle: ({ params: { id = '' } }) =>
      show(id).pipe(
        map((dead) =>
          dead === undefined
            ? problem(404, 'no-dead-letter', 'no dead letter has this id')
            : { status: 200, body: { ...summaryOf(dead), properties: sentProperties(dead), body: dead.body.toString('base64') } },
        ),
        catchError(away),
      ),
  },
  {
    method: 'POST',
    path: '/v1/dead/replay',
    accepts: ['application/json'],
    handle: ({ body }) => {
      const wish = asked(body)
      return wish === undefined ? wrong : told(replay(wish, wish.rate))
    },
  },
  {
    method: 'POST',
    path: '/v1/dead/drop',
    accepts: ['application/json'],
    handle: ({ body }) => {
      const wish = asked(body)
      return wish === undefined ? wrong : told(drop(wish))
    },
  },
]
