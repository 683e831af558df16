/**
 * The case list: every delivery operator against the same sixteen cases, one row of answers and one
 * of what comes out each. The type demands all of them; a text says why a case does not apply.
 */
import { readFileSync } from 'node:fs'
import { EMPTY, map, Observable, of, throwError, timer } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, rejected, Rejection, released } from '../../src/delivery.js'
import type { Connection, Delivery, Outcome, Sink, Writer } from '../../src/delivery.js'
import { batch } from '../../src/operators/batch.js'
import { bestEffort } from '../../src/operators/best-effort.js'
import { deliver } from '../../src/operators/deliver.js'
import { each } from '../../src/operators/each.js'
import { fanOut } from '../../src/operators/fan-out.js'
import { rescue } from '../../src/operators/rescue.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { whileOpen } from '../../src/operators/while-open.js'
import type { Marbles, Plan, Plans } from '../../src/testing.js'
import { marbles, settleAfter } from './marbles.js'

const cases = [
  'empty',
  'never',
  'one',
  'several',
  'source errors',
  'step throws',
  'step rejects',
  'step emits nothing',
  'step emits several',
  'downstream releases',
  'downstream rejects',
  'unsubscribed half-way',
  'stopped half-way',
  'synchronous source',
  'concurrency bound',
  'order',
] as const

type Pipeline = (source: Observable<Delivery<string>>) => Observable<unknown>

interface Cell {
  readonly source: string
  /** `a` accepted, `A` rejected, `*` released. */
  readonly settled: string
  readonly out: string
  /** In place of the operator's usual pipeline. */
  readonly through?: (m: Marbles) => Pipeline
  readonly names?: Readonly<Record<string, string>>
  readonly window?: number
  readonly stop?: string
  readonly cancel?: string
}

interface Operator {
  readonly usual: (m: Marbles) => Pipeline
  readonly cases: Readonly<Record<(typeof cases)[number], Cell | string>>
}

const no = rejected('no', 'test')
const bad = (): never => {
  throw new Rejection('bad')
}
const only = <T>(letter: string, odd: () => T, usual: (value: string) => T) => (value: string): T => (value === letter ? odd() : usual(value))
const one = (value: string): string[] => [value]

const main = (m: Marbles, plans: Plans<Plan> = {}, options: { window?: number; row?: string } = {}): Sink<string> =>
  deliver(m.far(options.row ?? 'w', plans).connection, { sink: 'main', retryMs: 2, ...(options.window === undefined ? {} : { window: options.window }) })
const to = (writer: Writer<string>): Sink<string> => deliver(of(writer) as Connection<string>, { sink: 'main', retryMs: 2 })
const throwing = (): Writer<string> => {
  let times = 0
  return () => {
    times += 1
    if (times === 1) throw new Error('broken')
    return timer(1)
  }
}
/** A sink that answers each delivery so, a frame later. */
const answering = (outcome: Outcome): Sink<string> => (source) =>
  source.pipe(
    settleAfter(1, outcome),
    map((value) => ({ sink: 'answering', value, outcome, attempts: 1, durationMs: 1, state: 'confirmed' as const })),
  )
const failing: Sink<string> = (source) => new Observable((subscriber) => source.subscribe(() => subscriber.error(new Error('broken'))))
const dead = (m: Marbles): Sink<DeadLetter<string>> => deliver(m.far<DeadLetter<string>>('w').connection, { sink: 'dead' })
const loosely = (sink: Sink<string>) => bestEffort(sink, { lingerMs: 2, dropped: () => undefined })

const operators: Readonly<Record<string, Operator>> = {
  each: {
    usual: () => (source) => source.pipe(each(one), settleAfter(1)),
    cases: {
      empty: { source: '|', settled: '-', out: '|' },
      never: { source: '-', settled: '-', out: '-' },
      one: { source: 'a|', settled: '-a', out: 'a|' },
      several: { source: 'abc|', settled: '-abc', out: 'abc|' },
      'source errors': { source: 'a-#', settled: '-a', out: 'a-#' },
      'step throws': { source: 'a--b--c', settled: '-a-B---c', out: 'a-----c', through: () => (source) => source.pipe(each(only('b', bad, one)), settleAfter(1)) },
      'step rejects': { source: 'a--b', settled: '-a-B', out: 'a', through: () => (source) => source.pipe(each(only<Observable<string>>('b', () => throwError(() => new Rejection('bad')), of)), settleAfter(1)) },
      'step emits nothing': { source: 'abc', settled: 'abc', out: '-', through: () => (source) => source.pipe(each(() => EMPTY), settleAfter(1)) },
      'step emits several': { source: 'a', settled: '-a', out: '(12)', through: () => (source) => source.pipe(each(() => ['1', '2']), settleAfter(1)) },
      'downstream releases': { source: 'ab', settled: '-**', out: 'ab', through: () => (source) => source.pipe(each(one), settleAfter(1, released(false))) },
      'downstream rejects': { source: 'ab', settled: '-AB', out: 'ab', through: () => (source) => source.pipe(each(one), settleAfter(1, no)) },
      'unsubscribed half-way': { source: 'ab', settled: '---(**)', out: 'ab', cancel: '---!', through: () => (source) => source.pipe(each(one), settleAfter(9)) },
      'stopped half-way': { source: 'a--b', settled: '----a', out: 'a---|', stop: '-s', through: () => (source) => source.pipe(each(one), settleAfter(4)) },
      'synchronous source': { source: '(abc)|', settled: '-(abc)', out: '(abc)|' },
      'concurrency bound': { source: '(abc)', settled: '---a-b-c', out: '--a-b-c', through: () => (source) => source.pipe(each((value) => timer(2).pipe(map(() => value))), settleAfter(1)) },
      order: { source: 'abc', settled: '----(abc)', out: '---(abc)', through: () => (source) => source.pipe(each((value) => timer(value === 'a' ? 3 : 0).pipe(map(() => value))), settleAfter(1)) },
    },
  },
  batch: {
    usual: () => (source) => source.pipe(batch(2, 3), settleAfter(1)),
    cases: {
      empty: { source: '|', settled: '-', out: '|' },
      never: { source: '-', settled: '-', out: '-' },
      one: { source: 'a|', settled: '----a', out: '---a|' },
      several: { source: 'abc|', settled: '--(ab)c', out: '-p---c|', names: { p: 'ab' } },
      'source errors': { source: 'a-#', settled: '--*', out: '--#' },
      'step throws': 'batch runs no step',
      'step rejects': 'batch runs no step',
      'step emits nothing': 'batch runs no step',
      'step emits several': 'batch runs no step',
      'downstream releases': { source: 'ab', settled: '--(**)', out: '-p', names: { p: 'ab' }, through: () => (source) => source.pipe(batch(2, 3), settleAfter(1, released(false))) },
      'downstream rejects': { source: 'ab', settled: '--(AB)', out: '-p', names: { p: 'ab' }, through: () => (source) => source.pipe(batch(2, 3), settleAfter(1, no)) },
      'unsubscribed half-way': { source: 'abc', settled: '---(***)', out: '-p', names: { p: 'ab' }, cancel: '---!', through: () => (source) => source.pipe(batch(2, 3), settleAfter(9)) },
      'stopped half-way': { source: 'a--b', settled: '----a', out: '---a|', stop: '-s' },
      'synchronous source': { source: '(abcd)|', settled: '-(abcd)', out: '(pq)--|', names: { p: 'ab', q: 'cd' } },
      'concurrency bound': { source: 'abc', settled: '----(ab)c', out: '---p---c', names: { p: 'ab' }, window: 2, through: () => (source) => source.pipe(batch(3, 3), settleAfter(1)) },
      order: { source: 'ab---cd', settled: '--(ab)-(cd)', out: '-p----q', names: { p: 'ab', q: 'cd' } },
    },
  },
  deliver: {
    usual: (m) => main(m),
    cases: {
      empty: { source: '|', settled: '-', out: '|' },
      never: { source: '-', settled: '-', out: '-' },
      one: { source: 'a|', settled: '-a', out: '-(a|)' },
      several: { source: 'abc|', settled: '-abc', out: '-ab(c|)' },
      'source errors': { source: 'a--#', settled: '-a', out: '-a-#' },
      'step throws': { source: 'a', settled: '---a', out: '---a', through: () => to(throwing()) },
      'step rejects': { source: 'a--b--c', settled: '-a-B---c', out: '-a-B---c', through: (m) => main(m, { b: 'refused' }) },
      'step emits nothing': { source: 'a', settled: 'a', out: 'a', through: () => to(() => EMPTY) },
      'step emits several': { source: 'a', settled: 'a', out: 'a', through: () => to(() => of(1, 2, 3)) },
      'downstream releases': 'a sink is the end: nothing is downstream',
      'downstream rejects': 'a sink is the end: nothing is downstream',
      'unsubscribed half-way': { source: 'ab', settled: '---(**)', out: '-', cancel: '---!', through: (m) => main(m, { a: 'silent', b: 'silent' }) },
      'stopped half-way': { source: 'a--b', settled: '----a', out: '----(a|)', stop: '-s', through: (m) => main(m, { a: 4 }) },
      'synchronous source': { source: '(abc)-|', settled: '-(abc)', out: '-(abc)|' },
      'concurrency bound': { source: '(abc)', settled: '---a-c-b', out: '---a-c-b', through: (m) => main(m, { a: 3, b: 7, c: 2 }, { window: 2 }) },
      order: { source: 'abc', settled: '------(abc)', out: '------(abc)', through: (m) => main(m, { a: ['silent', 1], b: ['silent', 1], c: ['silent', 1] }, { row: 'w--x-v' }) },
    },
  },
  fanOut: {
    usual: (m) => fanOut(main(m), main(m)),
    cases: {
      empty: { source: '|', settled: '-', out: '|' },
      never: { source: '-', settled: '-', out: '-' },
      one: { source: 'a|', settled: '-a', out: '-(aa|)' },
      several: { source: 'a---b|', settled: '-a---b', out: '-(aa)(bb|)' },
      'source errors': { source: 'a----#', settled: '-a', out: '-(aa)#' },
      'step throws': { source: 'a', settled: '*', out: '#', through: (m) => fanOut(main(m, { a: 3 }), failing) },
      'step rejects': { source: 'a', settled: '---A', out: 'A--a', through: (m) => fanOut(main(m, { a: 3 }), main(m, { a: 'refused' })) },
      'step emits nothing': 'fanOut runs no step: what a sink emits has no part in the answer',
      'step emits several': 'fanOut runs no step: what a sink emits has no part in the answer',
      'downstream releases': { source: 'a', settled: '---*', out: '*--a', through: (m) => fanOut(main(m, { a: 3 }), answering(released(true))) },
      'downstream rejects': { source: 'a', settled: '---A', out: 'A--a', through: (m) => fanOut(main(m, { a: 3 }), answering(no)) },
      'unsubscribed half-way': { source: 'ab', settled: '---(**)', out: '-ab', cancel: '---!', through: (m) => fanOut(main(m), main(m, { a: 'silent', b: 'silent' })) },
      'stopped half-way': { source: 'a--b', settled: '----a', out: '-a--(a|)', stop: '-s', through: (m) => fanOut(main(m), main(m, { a: 4 })) },
      'synchronous source': { source: '(abc)-----|', settled: '-(abc)', out: '-(aabbcc)-|' },
      'concurrency bound': { source: 'abc', settled: '----ab---c', out: '-ab-a(bc)c', window: 2, through: (m) => fanOut(main(m), main(m, { a: 4, b: 4, c: 5 })) },
      order: { source: 'abc', settled: '-a--(bc)', out: '-a--(bc)', through: (m) => (source) => source.pipe(fanOut(main(m, { b: ['silent', 1], c: ['silent', 1] }, { row: 'w-xv' }), bestEffort(failing, { dropped: () => undefined }))) },
    },
  },
  bestEffort: {
    usual: (m) => loosely(main(m)),
    cases: {
      empty: { source: '|', settled: '-', out: '|' },
      never: { source: '-', settled: '-', out: '-' },
      one: { source: 'a|', settled: 'a', out: '-(a|)' },
      several: { source: 'abc|', settled: 'abc', out: '-ab(c|)' },
      'source errors': { source: 'a--#', settled: 'a', out: '-a-#' },
      'step throws': { source: 'ab|', settled: 'ab', out: '--|', through: () => loosely(failing) },
      'step rejects': { source: 'ab|', settled: 'ab', out: 'A-(b|)', through: (m) => loosely(main(m, { a: 'refused' })) },
      'step emits nothing': 'bestEffort runs no step',
      'step emits several': 'bestEffort runs no step',
      'downstream releases': { source: 'ab', settled: 'ab', out: '**', through: () => loosely(answering(released(true))) },
      'downstream rejects': { source: 'ab', settled: 'ab', out: 'AB', through: () => loosely(answering(no)) },
      'unsubscribed half-way': { source: 'ab', settled: 'ab', out: '-', cancel: '---!', through: (m) => loosely(main(m, { a: 'silent', b: 'silent' })) },
      'stopped half-way': { source: 'a--b', settled: 'a', out: '---|', stop: '-s', through: (m) => loosely(main(m, { a: 'silent' })) },
      'synchronous source': { source: '(abc)-|', settled: '(abc)', out: '-(abc)|' },
      'concurrency bound': { source: '(abc)', settled: '(abc)', out: '---(ab)', through: (m) => bestEffort(main(m, { a: 3, b: 3 }), { buffer: 2, dropped: () => undefined }) },
      order: { source: 'abc', settled: 'abc', out: '----(abc)', through: (m) => loosely(main(m, {}, { row: '---w' })) },
    },
  },
  rescue: {
    usual: (m) => rescue(main(m), dead(m)),
    cases: {
      empty: { source: '|', settled: '-', out: '|' },
      never: { source: '-', settled: '-', out: '-' },
      one: { source: 'a|', settled: '-a', out: '-(a|)' },
      several: { source: 'abc|', settled: '-abc', out: '-ab(c|)' },
      'source errors': { source: 'a--#', settled: '-a', out: '-a-#' },
      'step throws': { source: 'a', settled: '*', out: '#', through: (m) => rescue(failing, dead(m)) },
      'step rejects': { source: 'a|', settled: '-a', out: '-(a|)', through: (m) => rescue((source) => source.pipe(each(bad), main(m)), dead(m)) },
      'step emits nothing': 'rescue runs no step',
      'step emits several': 'rescue runs no step',
      'downstream releases': { source: 'ab', settled: '-**', out: '**', through: (m) => rescue(answering(released(true)), dead(m)) },
      'downstream rejects': { source: 'ab', settled: '--ab', out: 'ABab', through: (m) => rescue(answering(no), dead(m)) },
      'unsubscribed half-way': { source: 'ab', settled: '---(**)', out: '-', cancel: '---!', through: (m) => rescue(main(m, { a: 'silent', b: 'silent' }), dead(m)) },
      'stopped half-way': { source: 'a--b', settled: '----a', out: '----(a|)', stop: '-s', through: (m) => rescue(main(m, { a: 4 }), dead(m)) },
      'synchronous source': { source: '(abc)-|', settled: '-(abc)', out: '-(abc)|' },
      'concurrency bound': { source: '(abc)', settled: '---a-c-b', out: '---a-c-b', through: (m) => rescue(main(m, { a: 3, b: 7, c: 2 }, { window: 2 }), dead(m)) },
      order: { source: 'abc', settled: '-abc', out: '-abc' },
    },
  },
  whileOpen: {
    usual: (m) => open(m),
    cases: {
      empty: { source: '|', settled: '-', out: '|' },
      never: { source: '-', settled: '-', out: '-' },
      one: { source: 'a|', settled: '-a', out: '-(a|)' },
      several: { source: 'abc|', settled: '-abc', out: '-ab(c|)' },
      'source errors': { source: 'a--#', settled: '-a', out: '-a-#' },
      'step throws': { source: 'a', settled: '---a', out: '---a', through: (m) => open(m, { a: ['failed', 1] }) },
      'step rejects': { source: 'a--b--c', settled: '-a-B---c', out: '-a-B---c', through: (m) => open(m, { b: 'refused' }) },
      'step emits nothing': { source: 'a', settled: 'a', out: 'a', through: (m) => open(m, { a: 0 }) },
      'step emits several': 'the same as in deliver: only the completion of a write counts',
      'downstream releases': 'a sink is the end: nothing is downstream',
      'downstream rejects': 'a sink is the end: nothing is downstream',
      'unsubscribed half-way': { source: 'ab', settled: '---(**)', out: '-', cancel: '---!', through: (m) => open(m, { a: 'silent', b: 'silent' }) },
      'stopped half-way': { source: 'a--b', settled: '----a', out: '----(a|)', stop: '-s', through: (m) => open(m, { a: 4 }) },
      'synchronous source': { source: '(abc)-|', settled: '-(abc)', out: '-(abc)|' },
      'concurrency bound': { source: '(abc)', settled: '---a*', out: '---a', window: 1, cancel: '----!', through: (m) => open(m, { a: 3, b: 'silent' }) },
      order: { source: 'abc', settled: '------(abc)', out: '------(abc)', through: (m) => open(m, { a: ['silent', 1], b: ['silent', 1], c: ['silent', 1] }, 'w--x-v') },
    },
  },
}

const open = (m: Marbles, plans: Plans<Plan> = {}, row = 'w'): Pipeline => {
  const { connection } = m.far(row, plans)
  return (source) => whileOpen(connection, (scope) => source.pipe(deliver(scope.connection, { sink: 'main', retryMs: 2 })), { patienceMs: 99 })
}

for (const [name, operator] of Object.entries(operators))
  describe(name, () => {
    for (const one of cases) {
      const cell = operator.cases[one]
      if (typeof cell !== 'string')
        marbles(one, (m) => {
          const { source: row, settled, out, names = {}, window = 1000, stop, cancel } = cell
          const pipeline = (cell.through ?? operator.usual)(m)
          const source = m.source(row, { window, ...(stop === undefined ? {} : { stop: m.hot(stop) }) })
          m.rows([source.settled, settled], [m.run(pipeline(source.deliveries), cancel), out, names])
        })
    }
  })

describe('each', () => {
  it('step rejects: a promise that is rejected rejects its delivery, and the next goes on', async () => {
    const answers: string[] = []
    const given = ['a', 'b'].map((value): Delivery<string> => ({ value, settle: ({ kind }) => answers.push(`${value} ${kind}`) }))
    await new Promise<void>((complete) => {
      new Observable<Delivery<string>>((subscriber) => (given.forEach((one) => subscriber.next(one)), subscriber.complete()))
        .pipe(each((value) => (value === 'a' ? Promise.reject(new Rejection('bad')) : Promise.resolve(value))))
        .subscribe({ next: ({ settle }) => settle(accepted), complete })
    })
    expect(answers).toEqual(['a rejected', 'b accepted'])
  })
})

describe('the case list', () => {
  it('is the table in docs/delivery-semantics.md', () => {
    const names = Object.keys(operators)
    const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
    const rows = cases.map((one) => line([one, ...names.map((name) => (typeof operators[name]?.cases[one] === 'string' ? '–' : '✓'))]))
    const table = [line(['case', ...names.map((name) => `\`${name}\``)]), line(['case', ...names].map(() => '---')), ...rows].join('\n')
    expect(readFileSync(new URL('../../docs/delivery-semantics.md', import.meta.url), 'utf8')).toContain(table)
  })
})
