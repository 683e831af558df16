/** Delivery semantics as rows of marbles: source, writes, settlements, in virtual time. */
import { EMPTY, map, NEVER, Observable, ReplaySubject, share, Subject, tap, throwError, timer } from 'rxjs'
import type { OperatorFunction } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { expect, it } from 'vitest'
import { Rejection } from '../../src/delivery.js'
import type { Connection, Delivery, Outcome, Writer } from '../../src/delivery.js'
import { ledger, newCounts } from '../../src/ledger.js'
import type { Counts, Ledger } from '../../src/ledger.js'

type Run = Parameters<Parameters<TestScheduler['run']>[0]>[0]

/** What became of one write: confirmed after so many frames, refused for good, failed, or never answered. */
export type Plan = number | 'refused' | 'failed' | 'silent'

export interface Marbles extends Run {
  /** A queue that gives these values as its marbles say, through a real ledger; `settled` is the row of answers. */
  readonly queue: (row: string, options?: { window?: number; stop?: Observable<unknown>; counts?: Counts }) => Queue
  /** A connection: a letter is a writer that connects, `x` a loss. Values are written by the plan for them, else confirmed after 1 frame. */
  readonly far: (row: string, plans?: Readonly<Record<string, Plan | readonly Plan[]>>) => Far
  /** Expects the letters of a log at these frames; a log never completes. */
  readonly expectRow: (log: Observable<string>, row: string) => void
}

export interface Queue {
  readonly deliveries: Observable<Delivery<string>>
  /** `a` accepted, `A` rejected, `*` released, at the frame of the answer. */
  readonly settled: Observable<string>
  readonly counts: Counts
  /** How many were outside, at most. */
  readonly most: () => number
  readonly book: () => Ledger<string, string>
}

export interface Far {
  readonly connection: Connection<string>
  /** The letter of each value, at the frame in which it is written. */
  readonly writes: Observable<string>
  /** Values in the order in which they were first written. */
  readonly first: string[]
  /** Values that the far end has, in the order of their confirms. */
  readonly confirmed: string[]
  /** Values that it has refused. */
  readonly refused: string[]
  /** How many writes are under way now, and were at most. */
  readonly open: () => number
  readonly underWay: ReadonlySet<string>
  readonly most: () => number
  /** Who listens to the connection now. */
  readonly held: () => number
  /** When each write of a value was begun and ended: demand, for `expectSubscriptions`. */
  readonly demand: (value: string) => SubscriptionLog[]
}

interface SubscriptionLog {
  subscribedFrame: number
  unsubscribedFrame: number
}

const symbol = (value: string, outcome: Outcome): string =>
  outcome.kind === 'accepted' ? value : outcome.kind === 'rejected' ? value.toUpperCase() : '*'

const once = (act: () => void): (() => void) => {
  let done = false
  return () => {
    if (!done) act()
    done = true
  }
}

/** One test, one run. */
export const marbles = (title: string, body: (m: Marbles) => void): void => {
  it(title, () => play(body))
}

/** Runs one row of marbles in a virtual time of its own; a test that judges many schedules plays it many times. */
export const play = (body: (m: Marbles) => void): void => {
  const scheduler = new TestScheduler((actual, expected) => expect(actual).toEqual(expected))
  scheduler.run((run) => {
    scheduler.maxFrames = 100_000 // what retries for ever ends here, and is judged
    const record = () => {
      const log = new Subject<string>()
      return { log, said: (letter: string) => log.next(letter) }
    }
    body({
      ...run,
      queue: (row, { window = 1000, stop = NEVER, counts = newCounts() } = {}) => {
        const { log, said } = record()
        const arrivals = run.hot(row)
        let outside = 0
        let most = 0
        let book: Ledger<string, string> | undefined
        const deliveries = ledger<string, string>(
          (opened) => {
            book = opened
            const held: string[] = []
            const give = (): void => {
              while (held.length > 0 && opened.room() > 0) {
                outside += 1
                most = Math.max(most, outside)
                const value = held.shift() as string
                opened.take(value, value)
              }
            }
            const feed = arrivals.subscribe({
              next: (value) => {
                held.push(value)
                give()
              },
              complete: () => opened.end(),
              error: (error) => opened.fail(error),
            })
            return {
              settled: (value, outcome) => {
                outside -= 1
                said(symbol(value, outcome))
                give()
              },
              close: () => {
                feed.unsubscribe()
                for (let i = 0; i < outside; i += 1) said('*')
                outside = 0
              },
            }
          },
          { window, stop, counts },
        )
        return { deliveries, settled: log, counts, most: () => most, book: () => book as Ledger<string, string> }
      },
      far: (row, plans = {}) => {
        const { log, said } = record()
        const first: string[] = []
        const confirmed: string[] = []
        const refused: string[] = []
        const logs = new Map<string, SubscriptionLog[]>()
        const demand = (value: string): SubscriptionLog[] => {
          const log = logs.get(value) ?? []
          logs.set(value, log)
          return log
        }
        const attempts = new Map<string, number>()
        const underWay = new Set<string>()
        let out = 0
        let most = 0
        const answer = (plan: Plan): Observable<unknown> => {
          if (plan === 'silent') return NEVER
          if (plan === 'refused') return throwError(() => new Rejection('refused'))
          if (plan === 'failed') return throwError(() => new Error('failed'))
          return plan === 0 ? EMPTY : timer(plan)
        }
        const writer: Writer<string> = (value) =>
          new Observable((subscriber) => {
            const tries = attempts.get(value) ?? 0
            attempts.set(value, tries + 1)
            if (tries === 0) first.push(value)
            const plan = plans[value] ?? 1
            said(value)
            out += 1
            underWay.add(value)
            most = Math.max(most, out)
            const asked = { subscribedFrame: scheduler.frame, unsubscribedFrame: Number.POSITIVE_INFINITY }
            demand(value).push(asked)
            const over = once(() => {
              out -= 1
              underWay.delete(value)
              asked.unsubscribedFrame = scheduler.frame
            })
            const safe = (): void => {
              confirmed.push(value)
              over()
            }
            subscriber.add(over)
            const answered = answer(Array.isArray(plan) ? ((plan[tries] ?? 1) as Plan) : (plan as Plan))
            const bad = (error: unknown): void => {
              if (error instanceof Rejection) refused.push(value)
              over()
            }
            subscriber.add(answered.pipe(tap({ error: bad, complete: safe })).subscribe(subscriber))
          })
        let held = 0
        const shared: Connection<string> = run.hot(row).pipe(
          map((letter) => (letter === 'x' ? undefined : (value: string) => writer(value))),
          share({ connector: () => new ReplaySubject(1), resetOnRefCountZero: false }),
        )
        const connection: Connection<string> = new Observable((subscriber) => {
          held += 1
          subscriber.add(() => (held -= 1))
          return shared.subscribe(subscriber)
        })
        return { connection, held: () => held, writes: log, underWay, refused, first, confirmed, open: () => out, most: () => most, demand }
      },
      expectRow: (log, row) => run.expectObservable(log).toBe(row),
    })
  })
}

/** Accepts (or answers otherwise) each delivery, so many frames after it came. */
export const settleAfter =
  <T>(frames: number, outcome: Outcome = { kind: 'accepted' }): OperatorFunction<Delivery<T>, T> =>
  (source) =>
    new Observable<T>((subscriber) =>
      source.subscribe({
        next: ({ value, settle }) => {
          subscriber.next(value)
          if (frames === 0) settle(outcome)
          else subscriber.add(timer(frames).subscribe(() => settle(outcome)))
        },
        error: (error) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    )
