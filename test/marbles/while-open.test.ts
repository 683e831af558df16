import { asyncScheduler, EMPTY, map, NEVER } from 'rxjs'
import { ledger } from '../../src/ledger.js'
import { describe, expect } from 'vitest'
import { deliver } from '../../src/operators/deliver.js'
import { whileOpen } from '../../src/operators/while-open.js'
import type { Scope } from '../../src/operators/while-open.js'
import { marbles } from './marbles.js'
import type { Marbles } from '../../src/testing.js'
import type { Plan } from '../../src/testing/far.js'
import type { Plans } from '../../src/testing/stage.js'

const options = { patienceMs: 10 }

describe('whileOpen', () => {
  marbles('does not run its pipeline before there is a writer', ({ far, cold, expectObservable, expectSubscriptions }) => {
    const pipeline = cold('a-b')
    expectObservable(whileOpen(far('---w').connection, () => pipeline, options), '--------!').toBe('---a-b')
    expectSubscriptions(pipeline.subscriptions).toBe('                                ---^----!')
  })
  marbles('stays through a loss that is shorter than its patience', ({ far, cold, expectObservable, expectSubscriptions }) => {
    const pipeline = cold('a')
    expectObservable(whileOpen(far('w--x-----v').connection, () => pipeline, options), '20ms !').toBe('a')
    expectSubscriptions(pipeline.subscriptions).toBe('^ 19ms !')
  })
  marbles('is patient as long as confirms come', (m) => {
    const pipeline = m.source('-a 7ms b 7ms c 7ms d')
    m.expectObservable(
      whileOpen(m.far('w', { a: 8, b: 8, c: 8, d: 8 }).connection, (scope) => pipeline.deliveries.pipe(deliver(scope.connection, { sink: 'test' }), map(({ value }) => value)), options),
    ).toBe('9ms a 7ms b 7ms c 7ms d')
  })
  marbles('is patient for ever while nothing is out', ({ far, cold, expectObservable, expectSubscriptions }) => {
    const pipeline = cold('-')
    expectObservable(whileOpen(far('w').connection, () => pipeline, options), '500ms !').toBe('')
    expectSubscriptions(pipeline.subscriptions).toBe('^ 499ms !')
  })
  marbles('counts a refusal as a sign of life', (m) => {
    const pipeline = m.source('-a 7ms b')
    const far = m.far('w', { a: 'silent', b: 'refused' })
    m.rows([pipeline.settled, '9ms B 9ms *'])
    m.expectObservable(whileOpen(far.connection, (scope) => (pipeline.most() > 0 ? NEVER : pipeline.deliveries.pipe(deliver(scope.connection, { sink: 'test' }), map(() => 'r'))), options), '30ms !').toBe('9ms r')
  })
  marbles('completes at once when it is stopped while nothing runs', ({ far, hot, cold, expectObservable }) => {
    expectObservable(whileOpen(far('-').connection, () => cold('-'), { ...options, stop: hot('---s') })).toBe('---|')
  })
  marbles('stops its pipeline, and completes with it', (m) => {
    const stop = m.hot('-s')
    const log: string[] = []
    const far = m.far('w', { a: 4 })
    const pipeline = m.source('a-b', { stop })
    m.expectObservable(
      whileOpen(far.connection, (scope) => (log.push('run'), pipeline.deliveries.pipe(deliver(scope.connection, { sink: 'test' }), map(({ value }) => value))), { ...options, stop }),
    ).toBe('----(a|)')
  })
  marbles('passes an error of its pipeline on', ({ far, cold, expectObservable }) => {
    expectObservable(whileOpen(far('w').connection, () => cold('--#'), options)).toBe('--#')
  })
  marbles('cancels its pipeline when it is unsubscribed', ({ far, cold, expectObservable, expectSubscriptions }) => {
    const pipeline = cold('-')
    expectObservable(whileOpen(far('w').connection, () => pipeline, options), '---!').toBe('')
    expectSubscriptions(pipeline.subscriptions).toBe('^--!')
  })
  marbles('is patient after a short loss while nothing is out', ({ far, cold, expectObservable, expectSubscriptions }) => {
    const pipeline = cold('-')
    expectObservable(whileOpen(far('w--x--v').connection, () => pipeline, options), '99ms !').toBe('')
    expectSubscriptions(pipeline.subscriptions).toBe('^ 98ms !')
  })
  marbles('counts its patience from the last answer while more is out', (m) => {
    const far = m.far('w', { a: 6, b: 'silent' })
    const made = m.source('ab')
    const run = ({ connection }: Scope<string>) => (made.most() > 0 ? NEVER : made.deliveries.pipe(deliver(connection, { sink: 'test' }), map(({ value }) => value)))
    m.rows([made.settled, '                                        ------a 9ms *'])
    m.expectObservable(whileOpen(far.connection, run, options), '30ms !').toBe('------a')
  })
  marbles('ends within its patience when it is stopped while its far end answers nothing', (m) => {
    const stop = m.hot('---s')
    const far = m.far('w', { a: 'silent' })
    const made = m.source('a', { stop })
    m.rows([made.settled, '10ms *'])
    m.expectObservable(whileOpen(far.connection, ({ connection }) => made.deliveries.pipe(deliver(connection, { sink: 'test' })), { ...options, stop })).toBe('10ms |')
  })
  marbles('leaves nothing behind when it is unsubscribed while it waits for a writer', ({ far, cold, expectObservable, flush }) => {
    const { connection, held } = far('w--x')
    expectObservable(whileOpen(connection, () => cold('-'), options), '30ms !').toBe('')
    flush()
    expect(held()).toBe(0)
  })
  marbles('is patient for ever after the last answer', (m) => {
    const far = m.far('w', { a: 4 })
    const { deliveries } = m.source('ab')
    let runs = 0
    const run = ({ connection }: Scope<string>) => ((runs += 1), deliveries.pipe(deliver(connection, { sink: 'test' }), map(({ value }) => value)))
    m.expectObservable(whileOpen(far.connection, run, options), '99ms !').toBe('--b-a')
    m.flush()
    expect(runs).toBe(1)
  })
  marbles('tells its pipeline of a loss, and of the next writer', (m) => {
    const { connection } = m.far('w--x--v')
    const seen = (scope: Scope<string>) => scope.connection.pipe(map((writer) => (writer === undefined ? 'x' : 'w')))
    m.expectObservable(whileOpen(connection, seen, options), '9ms !').toBe('w--x--w')
  })
  marbles('passes an error of its connection on', ({ cold, expectObservable }) => {
    expectObservable(whileOpen(cold<never>('--#'), () => NEVER, options)).toBe('--#')
  })
  // From here on: after a cancel.
  marbles('comes back with the next writer when nothing was written', (m) => {
    const pipeline = m.cold('a')
    m.expectObservable(whileOpen(m.far('w--x 16ms v').connection, () => pipeline, options), '30ms !').toBe('a 19ms a')
    m.expectSubscriptions(pipeline.subscriptions).toBe(['^ 12ms !', '20ms ^ 9ms !'])
  })
  /** Each run gives `values`, as a queue does that has got them back; when each run began is noted. */
  const again = (m: Marbles, row: string, plan: Plans<Plan>, values = 'a') => {
    const far = m.far(row, plan)
    const runs: number[] = []
    const proved: string[] = []
    const run = ({ connection, stop }: Scope<string>) => {
      runs.push(asyncScheduler.now())
      const queue = ledger<string>((book) => ([...values].forEach((value) => book.take(value, undefined)), { settled: () => undefined, close: () => undefined }), { window: 9, stop })
      return queue.pipe(deliver(connection, { sink: 'test', retryMs: 3 }), map(({ value }) => value))
    }
    return { far, runs, proved, run, options: { ...options, proved: (value: string) => proved.push(value) } }
  }
  marbles('tries the far end with the oldest value that was not answered, and comes back when it is confirmed', (m) => {
    const { far, runs, proved, run, options: tried } = again(m, 'w', { a: ['silent', 3, 1], b: ['silent', 2] }, 'ab')
    m.rows([far.writes, '                                (ab) 6ms a--(ab)'])
    m.expectObservable(whileOpen(far.connection, run, tried), '20ms !').toBe('14ms ab')
    m.flush()
    expect([runs, proved]).toEqual([[0, 13], ['a']])
  })
  marbles('comes back when the far end refuses what it is tried with, which proves nothing of the value', (m) => {
    const { far, runs, proved, run, options: tried } = again(m, 'w', { a: ['silent', 'refused', 'silent'] })
    m.rows([far.writes, 'a 9ms a'])
    m.expectObservable(whileOpen(far.connection, run, tried), '20ms !').toBe('10ms a')
    m.flush()
    expect([runs, proved]).toEqual([[0, 10], []])
  })
  marbles('tries a far end that opens happily, again and again, over each of its writers, and its queue stays closed', (m) => {
    const { far, runs, run, options: tried } = again(m, 'w---x-v------x-w', { a: 'silent' })
    m.rows([far.writes, 'a-----a---a----a'])
    m.expectObservable(whileOpen(far.connection, run, tried), '30ms !').toBe('')
    m.flush()
    expect([runs, far.underWay.size, far.held()]).toEqual([[0], 0, 0])
  })
  marbles('gives a far end no more time for failing every write', (m) => {
    const { far, runs, run, options: tried } = again(m, 'w', { a: Array.from({ length: 9 }, () => 'failed' as const) })
    m.rows([far.writes, 'a--a--a--aa'])
    m.expectObservable(whileOpen(far.connection, run, tried), '19ms !').toBe('')
    m.flush()
    expect(runs).toEqual([0])
  })
  for (const [writers, row] of [['one writer', 'w'], ['a new writer every hour', 'w 3599s x'.repeat(24)]] as const)
    marbles(`costs the queue one redelivery in a day without an answer from ${writers}`, (m) => {
      const { far, runs, run, options: tried } = again(m, row, { a: 'silent' })
      m.expectObservable(whileOpen(far.connection, run, { ...tried, patienceMs: 60_000 }), '86400s !').toBe('')
      m.flush()
      expect(runs).toEqual([0])
    })
  marbles('is tried with the oldest, in whatever order the writes were taken back', (m) => {
    const { far, run, options: tried } = again(m, 'w-x 12ms v', { a: 'silent', b: 'failed' }, 'ab')
    m.rows([far.writes, '(ab) 11ms a'])
    m.expectObservable(whileOpen(far.connection, run, tried), '20ms !').toBe('')
  })
  marbles('completes with a second run too', ({ far, expectObservable }) => {
    let runs = 0
    expectObservable(whileOpen(far('w--x 16ms v').connection, () => ((runs += 1) === 1 ? NEVER : EMPTY), options)).toBe('20ms |')
  })
  marbles('passes an error of a second run on', ({ far, cold, expectObservable }) => {
    let runs = 0
    expectObservable(whileOpen(far('w--x 16ms v').connection, () => ((runs += 1) === 1 ? NEVER : cold('--#')), options)).toBe('22ms #')
  })
  marbles('completes at once when it is stopped while it tries the far end', (m) => {
    const { far, runs, run, options: tried } = again(m, 'w', { a: ['silent', 5] })
    m.expectObservable(whileOpen(far.connection, run, { ...tried, stop: m.hot('12ms s') })).toBe('12ms |')
    m.flush()
    expect([runs, far.underWay.size, far.held()]).toEqual([[0], 0, 0])
  })
})
