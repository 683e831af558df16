import { isDeepStrictEqual } from 'node:util'
import { Subject } from 'rxjs'
import type { Observable } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'

/** A row of letters, each at the frame (the millisecond) in which something happened; what it tells is said where it is given. */
export type Row = Observable<string>

/** When something was asked for, and let go: written as `^` and `!`. */
export interface Demand {
  readonly subscribedFrame: number
  readonly unsubscribedFrame: number
}

/** Row by row: what is expected, in marbles; several for demands, one each. As in RxJS, `values` says what a letter stands for. */
export type ExpectedRow = readonly [row: Row, marbles: string, values?: Readonly<Record<string, unknown>>] | readonly [demand: readonly Demand[], marbles: string | readonly string[]]

interface Mark {
  readonly frame: number
  readonly letter: string
}

/** A row while it is written. */
export interface RowLog {
  readonly row: Row
  readonly say: (letter: string) => void
  readonly marks: readonly Mark[]
}

/** One line of a failure: a row as it was given to the run, or as it was expected and came. */
export interface Judged {
  readonly title: string
  readonly expected?: readonly string[]
  readonly actual: readonly string[]
}

export interface RowBook {
  readonly open: (title: string) => RowLog
  readonly openDemand: (title: string) => { subscribedFrame: number; unsubscribedFrame: number }[]
  /** Shows a row that was given to the run, above those that came of it. */
  readonly given: (title: string, marbles: string) => void
  readonly expect: (rows: readonly ExpectedRow[]) => void
  /** True once somebody has said what the row should be. */
  readonly expected: (row: Row) => boolean
  /** What RxJS's own expectations compare. */
  readonly compare: (actual: unknown, expected: unknown) => void
  /** All rows, and whether one of them is not as expected; expectations are judged once. */
  readonly judge: () => { readonly differ: boolean; readonly lines: readonly Judged[] }
}

/** Longer gaps are written as time. */
const longGap = 24

const gap = (frames: number): string => (frames > longGap ? ` ${frames}ms ` : '-'.repeat(Math.max(0, frames)))

/** Letters at their frames as RxJS writes them; what is more than one letter long stands in brackets. */
export const drawn = (marks: readonly Mark[]): string => {
  let text = ''
  let next = 0
  for (let i = 0; i < marks.length; ) {
    const { frame } = marks[i] as Mark
    const group: string[] = []
    for (; marks[i]?.frame === frame; i += 1) group.push((marks[i] as Mark).letter)
    const letters = group.map((letter) => (letter.length === 1 ? letter : `[${letter}]`)).join('')
    text += gap(frame - next) + (group.length > 1 ? `(${letters})` : letters)
    next = frame + (group.length > 1 ? letters.length + 2 : 1)
  }
  return text === '' ? '-' : text
}

const drawnDemand = ({ subscribedFrame, unsubscribedFrame }: Demand): string =>
  Number.isFinite(unsubscribedFrame)
    ? drawn([{ frame: subscribedFrame, letter: '^' }, { frame: unsubscribedFrame, letter: '!' }])
    : drawn([{ frame: subscribedFrame, letter: '^' }])

type Message = ReturnType<typeof TestScheduler.parseMarbles>[number]

/** Reads what is RxJS's own: a test message, or a subscription. */
const drawnMessages = (messages: unknown, letterOf: (value: unknown) => string): readonly string[] => {
  if (!Array.isArray(messages)) return [String(messages)]
  if (messages.length > 0 && 'subscribedFrame' in (messages[0] as object)) return (messages as Demand[]).map(drawnDemand)
  return [drawn((messages as Message[]).map((message) => markOf(message, letterOf)))]
}

const markOf = ({ frame, notification }: Message, letterOf: (value: unknown) => string): Mark => ({
  frame,
  letter: notification.kind === 'N' ? letterOf(notification.value) : notification.kind === 'C' ? '|' : '#',
})

/** Marbles as RxJS reads them in a run, where a frame is a millisecond. */
const marksOf = (marbles: string, letterOf: (value: unknown) => string, values?: Readonly<Record<string, unknown>>): readonly Mark[] =>
  TestScheduler.parseMarbles(marbles, values, undefined, undefined, true).map((message) => markOf(message, letterOf))

export const rowBook = (now: () => number, letterOf: (value: unknown) => string): RowBook => {
  const logs = new Map<unknown, RowLog & { readonly title: string }>()
  const demands = new Map<unknown, string>()
  const given: Judged[] = []
  const spoken = new Set<Row>()
  let waiting: (() => Judged & { readonly expected: readonly string[]; readonly same: boolean })[] = []

  const expectMarks = (log: RowLog & { title: string }, marbles: string, values?: Readonly<Record<string, unknown>>) => {
    const expected = marksOf(marbles, letterOf, values)
    spoken.add(log.row)
    waiting.push(() => ({ title: log.title, expected: [drawn(expected)], actual: [drawn(log.marks)], same: isDeepStrictEqual(log.marks, expected) }))
  }
  const expectDemand = (title: string, demand: readonly Demand[], marbles: string | readonly string[]) => {
    const expected = [marbles].flat().map((one) => ({ ...TestScheduler.parseMarblesAsSubscriptions(one, true) }))
    waiting.push(() => ({ title, expected: expected.map(drawnDemand), actual: demand.map(drawnDemand), same: isDeepStrictEqual(demand, expected) }))
  }
  return {
    open: (title) => {
      const marks: Mark[] = []
      const said = new Subject<string>()
      const row = said.asObservable()
      const say = (letter: string): void => {
        marks.push({ frame: now(), letter })
        said.next(letter)
      }
      const log = { title, row, say, marks }
      logs.set(row, log)
      return log
    },
    openDemand: (title) => {
      const demand: { subscribedFrame: number; unsubscribedFrame: number }[] = []
      demands.set(demand, title)
      return demand
    },
    given: (title, marbles) => given.push({ title, actual: [drawn(marksOf(marbles, String))] }),
    expect: (rows) => {
      for (const [row, marbles, values] of rows) {
        const [log, title] = [logs.get(row), demands.get(row)]
        if (log !== undefined && typeof marbles === 'string') expectMarks(log, marbles, values)
        else if (title !== undefined) expectDemand(title, row as readonly Demand[], marbles)
        else throw new TypeError('rows: expected pairs of a row that this run gave (settled, writes, …) and its marbles')
      }
    },
    expected: (row) => spoken.has(row),
    compare: (actual, expected) => {
      const same = isDeepStrictEqual(actual, expected)
      waiting.push(() => ({ title: 'observable', expected: drawnMessages(expected, letterOf), actual: drawnMessages(actual, letterOf), same }))
    },
    judge: () => {
      const judged = waiting.map((look) => look())
      waiting = []
      const lines = judged.map(({ title, expected, actual, same }) => (same ? { title, actual } : { title, expected, actual }))
      return { differ: judged.some(({ same }) => !same), lines: [...given, ...lines] }
    },
  }
}

/** Rows one under the other, so that a frame is in one column. */
export const aligned = (lines: readonly Judged[]): string => {
  const width = Math.max(...lines.map(({ title }) => title.length))
  const show = (title: string, label: string, row: string): string => `  ${title.padEnd(width)}  ${label.padEnd(8)}  ${row}`
  return lines
    .flatMap(({ title, expected, actual }) => {
      if (expected === undefined) return actual.map((row) => show(title, '', row))
      const count = Math.max(expected.length, actual.length)
      return Array.from({ length: count }, (_, i) => {
        const [wanted, came] = [expected[i] ?? '', actual[i] ?? '']
        let at = 0
        while (at < wanted.length && wanted[at] === came[at]) at += 1
        return [show(title, 'expected', wanted), show('', 'actual', came), show('', '', `${' '.repeat(at)}▲`)]
      }).flat()
    })
    .join('\n')
}
