import type { RunHelpers, TestScheduler } from 'rxjs/testing'
import type { Letters } from './letters.js'
import type { RowBook } from './rows.js'
import type { Timeline } from './timeline.js'

/** A delivery that nobody has answered. */
export interface Unsettled {
  readonly letter: string
  /** Where it was given, and when. */
  readonly given: string
}

/** What the parts of one run share. */
export interface Stage extends Letters, Pick<RowBook, 'open' | 'openDemand' | 'given'>, Pick<Timeline, 'say'> {
  readonly scheduler: TestScheduler
  readonly helpers: RunHelpers
  /** The name of one more of this kind: `far`, `far 2`, … */
  readonly name: (kind: string) => string
  /** Looked at when the run is over: what is unsettled, and the letters that may be. */
  readonly owes: (expected: string, unsettled: () => readonly Unsettled[]) => void
}

/** What an end does with one value, try by try; the last holds for those that follow only when it is the only one. */
export type Plans<Plan> = Readonly<Record<string, Plan | readonly Plan[]>>

/** The plan for each try of a value; `usual` where none is given. */
export const planner = <Plan extends string | number>(plans: Plans<Plan>, usual: Plan): ((letter: string) => { readonly plan: Plan; readonly tries: number }) => {
  const seen = new Map<string, number>()
  return (letter) => {
    const tries = (seen.get(letter) ?? 0) + 1
    seen.set(letter, tries)
    const plan = plans[letter] ?? usual
    return { plan: typeof plan === 'object' ? (plan[tries - 1] ?? usual) : plan, tries }
  }
}

/** Does what the letters of a row say, at their frames; a letter that means nothing is an error at once. `!` is allowed, unlike in RxJS. */
export const obey = ({ helpers, given }: Stage, who: string, row: string, signs: Readonly<Record<string, () => void>>): void => {
  const known = Object.keys(signs)
  for (const sign of row.replace(/(^| )[0-9.]+(ms|s|m) /g, '').replace(/[-() ]/g, ''))
    if (!known.includes(sign)) throw new TypeError(`${who}: '${sign}' in '${row}' is none of ${known.join(' ')}`)
  given(who, row.replaceAll('!', unsubscribed))
  helpers.hot(row.replaceAll('!', unsubscribed)).subscribe((sign) => signs[sign === unsubscribed ? '!' : sign]?.())
}

/** RxJS keeps `!` for subscriptions. */
const unsubscribed = '¡'
