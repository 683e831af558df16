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

/** Row by row: what is expected, in marbles; several for demands, one each. `values` says what letters of this row stand for, as in RxJS. */
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

/** A row as it was given to the run, or as it was expected, when it differs, and came; several lines for several demands. */
export interface Judged {
  readonly title: string
  readonly expected?: readonly (readonly Mark[])[]
  readonly actual: readonly (readonly Mark[])[]
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

type Message = ReturnType<typeof TestScheduler.parseMarbles>[number]
type LetterOf = (value: unknown) => string

const markOf = ({ frame, notification }: Message, letterOf: LetterOf): Mark => ({
  frame,
  letter: notification.kind === 'N' ? letterOf(notification.value) : notification.kind === 'C' ? '|' : '#',
})

/** Marbles as RxJS reads them in a run, where a frame is a millisecond. */
const marksOf = (marbles: string): readonly Mark[] =>
  TestScheduler.parseMarbles(marbles, undefined, undefined, undefined, true).map((message) => markOf(message, String))

const marksOfDemand = ({ subscribedFrame, unsubscribedFrame }: Demand): readonly Mark[] =>
  [{ frame: subscribedFrame, letter: '^' }, { frame: unsubscribedFrame, letter: '!' }].filter(({ frame }) => Number.isFinite(frame))

/** What RxJS itself compares: messages, or subscriptions. */
const marksOfMessages = (messages: unknown, letterOf: LetterOf): readonly (readonly Mark[])[] => {
  const [first] = messages as object[]
  if (first !== undefined && 'subscribedFrame' in first) return (messages as Demand[]).map(marksOfDemand)
  return [(messages as Message[]).map((message) => markOf(message, letterOf))]
}

export const rowBook = (now: () => number, letterOf: LetterOf): RowBook => {
  const logs = new Map<unknown, RowLog & { readonly title: string }>()
  const demands = new Map<unknown, string>()
  const given: Judged[] = []
  const spoken = new Set<Row>()
  let waiting: (() => Required<Judged> & { readonly same: boolean })[] = []

  const expectMarks = (log: RowLog & { title: string }, marbles: string, values: Readonly<Record<string, unknown>> = {}) => {
    const expected = marksOf(marbles)
    const named = new Map(Object.entries(values).map(([letter, value]) => [letterOf(value), letter]))
    spoken.add(log.row)
    waiting.push(() => {
      const actual = log.marks.map(({ frame, letter }) => ({ frame, letter: named.get(letter) ?? letter }))
      return { title: log.title, expected: [expected], actual: [actual], same: isDeepStrictEqual(actual, expected) }
    })
  }
  const expectDemand = (title: string, demand: readonly Demand[], marbles: string | readonly string[]) => {
    const expected = [marbles].flat().map((one) => ({ ...TestScheduler.parseMarblesAsSubscriptions(one, true) }))
    waiting.push(() => ({ title, expected: expected.map(marksOfDemand), actual: demand.map(marksOfDemand), same: isDeepStrictEqual(demand, expected) }))
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
    given: (title, marbles) => given.push({ title, actual: [marksOf(marbles)] }),
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
      waiting.push(() => ({ title: 'observable', expected: marksOfMessages(expected, letterOf), actual: marksOfMessages(actual, letterOf), same }))
    },
    judge: () => {
      const judged = waiting.map((look) => look())
      waiting = []
      const lines = judged.map(({ title, expected, actual, same }) => (same ? { title, actual } : { title, expected, actual }))
      return { differ: judged.some(({ same }) => !same), lines: [...given, ...lines] }
    },
  }
}

/** Longer gaps are written as time. */
const longGap = 24

/** What stands in one row at one frame; a group where there are several, brackets where a letter is more than one long. */
const cellOf = (marks: readonly Mark[], frame: number): string => {
  const letters = marks.filter((mark) => mark.frame === frame).map(({ letter }) => (letter.length === 1 ? letter : `[${letter}]`))
  return letters.length > 1 ? `(${letters.join('')})` : letters.join('')
}

/**
 * Draws rows one under the other, so that a frame is in the same column of all of them. Unlike
 * in marbles a group takes one frame, and spaces fill the other rows up.
 */
const drawing = (all: readonly (readonly Mark[])[]): ((marks: readonly Mark[]) => string) => {
  const frames = [...new Set(all.flat().map(({ frame }) => frame))].sort((a, b) => a - b)
  const columns = frames.map((frame, i) => {
    const gap = frame - (i === 0 ? 0 : (frames[i - 1] as number) + 1)
    const width = Math.max(...all.map((marks) => cellOf(marks, frame).length))
    return { frame, width, before: gap > longGap ? ` ${gap}ms ` : '-'.repeat(gap) }
  })
  return (marks) => columns.map(({ frame, width, before }) => before + (cellOf(marks, frame) || '-').padEnd(width)).join('')
}

/** The judged rows under one another, and a mark under the first difference of each. */
export const aligned = (lines: readonly Judged[]): string => {
  const draw = drawing(lines.flatMap(({ expected = [], actual }) => [...expected, ...actual]))
  const width = Math.max(...lines.map(({ title }) => title.length))
  const show = (title: string, label: string, row: string): string => `  ${title.padEnd(width)}  ${label.padEnd(8)}  ${row}`
  const both = (title: string, wanted: string, came: string): string[] => {
    let at = 0
    while (at < wanted.length && wanted[at] === came[at]) at += 1
    return [show(title, 'expected', wanted), show('', 'actual', came), show('', '', `${' '.repeat(at)}▲`)]
  }
  return lines
    .flatMap(({ title, expected, actual }) => {
      if (expected === undefined) return actual.map((marks) => show(title, '', draw(marks)))
      return Array.from({ length: Math.max(expected.length, actual.length) }, (_, i) => both(title, draw(expected[i] ?? []), draw(actual[i] ?? []))).flat()
    })
    .join('\n')
}
