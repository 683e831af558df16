import { catchError, concat, concatMap, defer, EMPTY, filter, ignoreElements, map, merge, NEVER, Observable, of, pipe, reduce, ReplaySubject, Subject, switchMap, take, takeUntil, tap, throwError, timer, toArray } from 'rxjs'
import type { Books } from '../books.js'
import { revived, summaryOf } from '../dead-letter.js'
import type { DeadSummary } from '../dead-letter.js'
import type { Connection, Sink } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'
import { each } from '../operators/each.js'
import { pace } from '../operators/pace.js'
import { deadLetterSource } from '../sources/dead-letters.js'
import { QueueAway } from './inside.js'
import type { Inside, Seen } from './inside.js'
import type { Queues } from './parts.js'

/** A page of the dead letters, oldest first. */
export interface DeadPage {
  readonly dead: readonly DeadSummary[]
  /** How many there are in all. */
  readonly total: number
  /** Where the next page begins; left out at the end. */
  readonly next?: string
}

/** Which letters: these ids, or all; and of those only the oldest so many of the store. */
export interface DeadChoice {
  /** Every letter with one of these ids; all letters when left out. */
  readonly ids?: readonly string[]
  readonly within?: number
}

export interface DeadProgress {
  /** Those that were put back, or dropped, in their order. */
  readonly ids: readonly string[]
  /** How many of the oldest letters are still to be looked at, in another request. */
  readonly within: number
  readonly more: boolean
  /** Why it ended early. */
  readonly failed?: string
}

/** What people do with dead letters. Every request has its turn: one at a time, in order. */
export interface DeadLetters {
  readonly list: (limit: number, after?: string) => Observable<DeadPage>
  /** The oldest with this id, as it is kept. */
  readonly show: (id: string) => Observable<Message | undefined>
  /**
   * Puts them back at the end of the queue, in their order, each removed once the queue has
   * confirmed it. Works for a few seconds, then tells how far it came.
   */
  readonly replay: (choice: DeadChoice, perSecond: number) => Observable<DeadProgress>
  readonly drop: (choice: DeadChoice) => Observable<DeadProgress>
}

const window = 100
/** A request works for so long, and gives up what has had no confirm a while later. */
const workMs = 4000
const giveUpMs = 4000
/** Letters that lie far behind others take time to be found. */
const searchMs = 15_000
const mostDropped = 1000
const spoolMs = 3000
const pollMs = 20

/** Runs what it is given to its end, one after the other, also when nobody waits for it any more. */
const inTurn = (): (<A>(job: Observable<A>) => Observable<A>) => {
  const jobs = new Subject<Observable<unknown>>()
  jobs.pipe(concatMap((job) => job.pipe(catchError(() => EMPTY)))).subscribe()
  return <A>(job: Observable<A>) =>
    new Observable<A>((subscriber) => {
      const told = new ReplaySubject<A>()
      subscriber.add(told.subscribe(subscriber))
      // Not the subject itself: `tap` would subscribe to it as well, and its error be nobody's.
      jobs.next(job.pipe(tap({ next: (value) => told.next(value), error: (error: unknown) => told.error(error), complete: () => told.complete() })))
    })
}

/** Drops what it is given. */
const nowhere: Connection<Message> = of(() => EMPTY)

export interface DeadParts {
  readonly queues: Pick<Queues, 'main' | 'dead'>
  readonly books: Pick<Books, 'replayed' | 'deadDropped'>
  /** Whether the spool of the dead letters is this process's own. */
  readonly withSpool: boolean
  /** Ends a run early, between two letters. */
  readonly stop?: Observable<unknown>
}

/** Looks at dead letters, puts them back, drops them: in RabbitMQ and its spool, or in the embedded queue. */
export const deadLetters = ({ queues: { main, dead }, books, withSpool, stop = NEVER }: DeadParts): DeadLetters => {
  const turn = inTurn()
  const slowly = pace()
  const store = dead.inside
  const spool: Inside | undefined = withSpool ? dead.spool?.inside : undefined
  // With RabbitMQ straight to it: the spool may be another process's.
  const far: Connection<Message> = main.spool?.direct ?? main.connection

  const spooled = (): Observable<number> => spool?.waiting() ?? of(0)
  /** The spool's letters follow those in RabbitMQ as soon as that is there: then all are in one place. */
  const united: Observable<number> = defer(() =>
    timer(0, pollMs).pipe(
      concatMap(spooled),
      filter((left) => left === 0),
      take(1),
      takeUntil(timer(spoolMs)),
      toArray(),
      switchMap(([empty]) =>
        empty === undefined ? throwError(() => new QueueAway('RabbitMQ is away: dead letters wait in the spool until it is back')) : store.waiting(),
      ),
    ),
  )
  const afterwards = <A>(before: number, job: Observable<A>): Observable<A> => concat(job, store.whole(before))

  const looked = (behind: number, max: number, inSpool: boolean): Observable<Seen> => (inSpool ? (spool?.look(behind, max) ?? EMPTY) : store.look(behind, max))
  const page = (limit: number, inSpool: boolean, behind: number, kept: number, waiting: number): Observable<DeadPage> =>
    afterwards(
      kept,
      looked(behind, limit, inSpool).pipe(
        map(({ at, message }) => ({ at, summary: summaryOf(message) })),
        toArray(),
        map((seen) => {
          const dead = seen.map(({ summary }) => summary)
          const total = kept + waiting
          const last = seen.at(-1)?.at
          if (seen.length === limit && last !== undefined) return { dead, total, next: `${inSpool ? 'spool' : 'queue'}-${last}` }
          return !inSpool && waiting > 0 ? { dead, total, next: 'spool-0' } : { dead, total }
        }),
      ),
    )

  const run = ({ ids, within }: DeadChoice, most: number, sink: Sink<Message>, done: () => void): Observable<DeadProgress> =>
    united.pipe(
      switchMap((waiting) => {
        const asked = ids === undefined ? undefined : new Set(ids)
        const bound = Math.min(within ?? waiting, waiting)
        const gone: string[] = []
        let scanned = 0
        let found = 0
        let failed: string | undefined
        let ended = false
        const wanted = ({ id }: Message): boolean => {
          scanned += 1
          if (asked?.has(id) === false) return false
          found += 1
          return true
        }
        const enough = merge(stop, timer(asked === undefined ? workMs : searchMs))
        const source = deadLetterSource(store.channel, { wanted, within: bound, most, all: asked === undefined, window, stop: enough })
        const work = source.pipe(
          sink,
          tap(({ outcome, value }) => {
            if (outcome.kind !== 'accepted') return
            gone.push(value.id)
            done()
          }),
          ignoreElements(),
          tap({ complete: () => (ended = true) }),
          takeUntil(timer((asked === undefined ? workMs : searchMs) + giveUpMs)),
          catchError((error: unknown) => {
            failed = error instanceof Error ? error.message : String(error)
            return EMPTY
          }),
        )
        const told = defer(() => {
          if (!ended) failed ??= 'the queue did not confirm in time'
          const left = bound - gone.length
          const more = scanned < bound || gone.length < found || failed !== undefined
          return of({ ids: gone, within: left, more, ...(failed === undefined ? {} : { failed }) })
        })
        return concat(work, defer(() => store.whole(waiting - gone.length)), told)
      }),
    )

  return {
    list: (limit, after = 'queue-0') =>
      turn(
        defer(() => {
          const [place, at] = after.split('-')
          return spooled().pipe(
            switchMap((waiting) =>
              store.waiting().pipe(
                // RabbitMQ is away: its spool can be looked at all the same.
                catchError((error: unknown) => (waiting > 0 ? of(undefined) : throwError(() => error))),
                switchMap((kept) => page(limit, place === 'spool' || kept === undefined, kept === undefined && place !== 'spool' ? 0 : Number(at) || 0, kept ?? 0, waiting)),
              ),
            ),
          )
        }),
      ),
    show: (id) =>
      turn(
        store.waiting().pipe(
          catchError(() => of(0)),
          switchMap((kept) =>
            afterwards(
              kept,
              concat(kept > 0 ? store.look(0, kept) : EMPTY, defer(() => spool?.look(0, Number.MAX_SAFE_INTEGER) ?? EMPTY)).pipe(
                reduce((found: Message | undefined, { message }) => found ?? (message.id === id ? message : undefined), undefined),
              ),
            ),
          ),
        ),
      ),
    replay: (choice, perSecond) =>
      turn(
        run(
          choice,
          Math.max(1, Math.floor((perSecond * workMs) / 1000)),
          pipe(slowly<Message>(perSecond), each<Message, Message>((message) => [revived(message)]), deliver(far, { sink: 'replay', window })),
          () => (books.replayed += 1),
        ),
      ),
    drop: (choice) => turn(run(choice, mostDropped, deliver(nowhere, { sink: 'dropped' }), () => (books.deadDropped += 1))),
  }
}

/**
 * Keeps open what a process without a daemon needs for its dead letters, while it is subscribed:
 * the folders; with RabbitMQ, the spool's letters go on to it.
 *
 * **Fails** when another process has a folder.
 */
export const deadLettersOpen = ({ main, dead }: Pick<Queues, 'main' | 'dead'>): Observable<never> =>
  (dead.spool === undefined ? merge<unknown[]>(main.connection, dead.connection) : (dead.spool.drain as Observable<unknown>)).pipe(ignoreElements())
