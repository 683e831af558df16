import { EMPTY, map, NEVER, Observable, ReplaySubject, tap, throwError, timer } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'
import type { Demand, Row } from './rows.js'
import { planner } from './stage.js'
import type { Plans, Stage } from './stage.js'
import { ordinal } from './timeline.js'

/** What becomes of one write: confirmed after so many frames, refused for good, failed, or never answered. */
export type Plan = number | 'refused' | 'failed' | 'silent'

/** A far end by script. */
export interface ScriptedFar<T> {
  readonly connection: Connection<T>
  /** The letter of each value, at the frame in which it is written. */
  readonly writes: Row
  /** When each write of a value was begun, and ended by an answer or taken back. */
  readonly demand: (letter: string) => readonly Demand[]
  /** Values in the order in which they were first written. */
  readonly first: readonly T[]
  /** Values that the far end has, in the order of their confirms. */
  readonly confirmed: readonly T[]
  /** Values that it has refused, in that order. */
  readonly refused: readonly T[]
  /** What is written and unanswered now. */
  readonly underWay: ReadonlySet<T>
  /** How many were under way, at most. */
  readonly most: () => number
  /** How many listen to the connection now. */
  readonly held: () => number
}

const answer = (plan: Plan): Observable<unknown> => {
  if (plan === 'silent') return NEVER
  if (plan === 'refused') return throwError(() => new Rejection('refused'))
  if (plan === 'failed') return throwError(() => new Error('failed'))
  return plan === 0 ? EMPTY : timer(plan)
}

/** A connection whose writers come and go as its marbles say: any letter is a writer that connects, `x` its loss. */
export const scriptedFar =
  (stage: Stage) =>
  <T = string>(row: string, plans: Plans<Plan> = {}): ScriptedFar<T> => {
    const name = stage.name('far')
    const { row: writes, say } = stage.open(`${name}.writes`)
    stage.given(name, row)
    const planFor = planner(plans, 1)
    const first: T[] = []
    const confirmed: T[] = []
    const refused: T[] = []
    const demands = new Map<string, { subscribedFrame: number; unsubscribedFrame: number }[]>()
    const underWay = new Set<T>()
    let out = 0
    let most = 0
    let held = 0

    const demand = (letter: string): { subscribedFrame: number; unsubscribedFrame: number }[] => {
      const known = demands.get(letter) ?? stage.openDemand(`${name}.demand(${letter})`)
      demands.set(letter, known)
      return known
    }
    const write: Writer<T> = (value) =>
      new Observable((subscriber) => {
        const letter = stage.of(value)
        const { plan, tries } = planFor(letter)
        if (tries === 1) first.push(value)
        stage.say(name, `${letter} is written${tries === 1 ? '' : `, for the ${ordinal(tries)} time`}`, letter)
        say(letter)
        const asked = { subscribedFrame: stage.scheduler.frame, unsubscribedFrame: Number.POSITIVE_INFINITY }
        demand(letter).push(asked)
        out += 1
        most = Math.max(most, out)
        underWay.add(value)
        let open = true
        const over = (what?: string): void => {
          if (!open) return
          open = false
          out -= 1
          underWay.delete(value)
          asked.unsubscribedFrame = stage.scheduler.frame
          stage.say(name, `${letter} ${what ?? 'is taken back unconfirmed'}`, letter)
        }
        const safe = (): void => {
          confirmed.push(value)
          over('is confirmed')
        }
        const bad = (error: unknown): void => {
          const never = error instanceof Rejection
          if (never) refused.push(value)
          over(never ? 'is refused' : 'fails')
        }
        subscriber.add(() => over())
        subscriber.add(answer(plan).pipe(tap({ error: bad, complete: safe })).subscribe(subscriber))
      })
    const present = new ReplaySubject<Writer<T> | undefined>(1)
    stage.helpers
      .hot(row)
      .pipe(
        tap((letter) => stage.say(name, letter === 'x' ? 'is lost' : 'is connected')),
        map((letter) => (letter === 'x' ? undefined : (value: T) => write(value))),
      )
      .subscribe(present)
    const connection: Connection<T> = new Observable((subscriber) => {
      held += 1
      subscriber.add(() => (held -= 1))
      return present.subscribe(subscriber)
    })
    return { connection, writes, demand, first, confirmed, refused, underWay, most: () => most, held: () => held }
  }
