import { map, NEVER } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Delivery, Source } from '../delivery.js'
import { ledger, newCounts } from '../ledger.js'
import type { Counts, Ledger } from '../ledger.js'
import { answerLetter } from './letters.js'
import type { Row } from './rows.js'
import type { Stage } from './stage.js'

export interface ScriptedSourceOptions<T> {
  /** What each letter stands for. @default the letter itself */
  readonly values?: Readonly<Record<string, T>> | ((letter: string) => T)
  /** The most unsettled deliveries outside. @default 1000 */
  readonly window?: number
  readonly stop?: Observable<unknown>
  readonly counts?: Counts
  /** The letters of the deliveries that this run leaves unsettled, and of no others. @default '' */
  readonly unsettled?: string
}

/** A source by script. */
export interface ScriptedSource<T> {
  /** What has come and found no room, or nobody, waits and goes first. What is released does not come again. */
  readonly deliveries: Source<T>
  /** `a` accepted, `A` rejected, `*` released, at the frame of the answer. */
  readonly settled: Row
  readonly counts: Counts
  /** How many were outside, at most. */
  readonly most: () => number
}

interface Tag<T> {
  readonly letter: string
  readonly value: T
  readonly atMs: number
}

/** Gives values as its marbles say, through the ledger that every source of Backhaul uses. */
export const scriptedSource =
  (stage: Stage) =>
  <T = string>(row: string, { values, window = 1000, stop = NEVER, counts = newCounts(), unsettled = '' }: ScriptedSourceOptions<T> = {}): ScriptedSource<T> => {
    const name = stage.name('source')
    const { row: settled, say } = stage.open(`${name}.settled`)
    stage.given(name, row)
    const waiting: Tag<T>[] = []
    const outside = new Set<Tag<T>>()
    let most = 0
    let book: Ledger<T, Tag<T>> | undefined
    let end: ((book: Ledger<T, Tag<T>>) => void) | undefined

    const valueOf = (letter: string): T => {
      const value = typeof values === 'function' ? values(letter) : values?.[letter]
      return value === undefined ? (letter as T) : value
    }
    const give = (): void => {
      while (book !== undefined && waiting.length > 0 && book.room() > 0) {
        const tag = waiting.shift() as Tag<T>
        const given = { ...tag, atMs: stage.scheduler.now() }
        outside.add(given)
        most = Math.max(most, outside.size)
        stage.say(name, `gives ${tag.letter}`, tag.letter)
        book.take(tag.value, given)
      }
    }
    const answer = (tag: Tag<T>, outcome: Parameters<Delivery<T>['settle']>[0]): void => {
      outside.delete(tag)
      const why = outcome.kind === 'rejected' ? `: ${outcome.reason} (${outcome.stage})` : ''
      stage.say(name, `${tag.letter} is ${outcome.kind}${why}`, tag.letter)
      say(answerLetter(tag.letter, outcome))
    }
    const over = (how: string, tell: (book: Ledger<T, Tag<T>>) => void) => (): void => {
      stage.say(name, how)
      end = tell
      if (book !== undefined) tell(book)
    }
    stage.helpers.hot(row).subscribe({
      next: (letter) => {
        const value = valueOf(letter)
        if (value !== letter) stage.know(value, letter)
        waiting.push({ letter, value, atMs: stage.scheduler.now() })
        give()
      },
      complete: over('has no more', (opened) => opened.end()),
      error: (error: unknown) => over('fails', (opened) => opened.fail(error))(),
    })
    const deliveries = ledger<T, Tag<T>>(
      (opened) => {
        book = opened
        give()
        end?.(opened)
        return {
          settled: (tag, outcome) => {
            answer(tag, outcome)
            give()
          },
          stop: () => stage.say(name, 'stops'),
          close: () => {
            book = undefined
            for (const tag of outside) answer(tag, { kind: 'released', maybeSent: true })
          },
        }
      },
      { window, stop, counts },
    )
    stage.owes(unsettled, () => [...outside].map(({ letter, atMs }) => ({ letter, given: `given by ${name} at ${atMs} ms` })))
    return { deliveries: deliveries.pipe(map(noticed(stage, name))), settled, counts, most: () => most }
  }

/** A second answer goes nowhere; the timeline tells of it. */
const noticed =
  (stage: Stage, name: string) =>
  <T>({ value, settle }: Delivery<T>): Delivery<T> => {
    let answered = false
    return {
      value,
      settle: (outcome) => {
        if (answered) stage.say(name, `${stage.of(value)} is answered again (${outcome.kind}), which changes nothing`, stage.of(value))
        answered = true
        settle(outcome)
      },
    }
  }
