import { concat, EMPTY, ignoreElements, map, NEVER, switchMap, take, tap, timer } from 'rxjs'
import { ledger } from '../../src/ledger.js'
import { describe, expect } from 'vitest'
import { deliver } from '../../src/operators/deliver.js'
import { whileOpen } from '../../src/operators/while-open.js'
import type { Scope } from '../../src/operators/while-open.js'
import { marbles } from './marbles.js'
import type { Marbles } from '../../src/testing.js'

const options = { window: 9, patienceMs: 10 }

describe('whileOpen', () => {
  marbles('does not run its pipeline before there is a writer', ({ far, cold, expectObservable, expectSubscriptions }) => {
    const pipeline = cold('a-b')
    expectObservable(whileOpen(far('---w').connection, () => pipeline, options), '--------!').toBe('---a-b')
    expectSubscriptions(pipeline.subscriptions).toBe('                                ---^----!')
  })
  marbles('begins with the full window, however long its first writer took', (m) => {
    const windows: number[] = []
    m.expectObservable(whileOpen(m.far('x 29ms w').connection, ({ window }) => (windows.push(window), NEVER), options), '40ms !').toBe('')
    m.flush()
    expect(windows).toEqual([9])
  })
  marbles('stays through a loss that is shorter than its patience', ({ far, cold, expectObservable, expectSubscriptions }) => {
    const pipeline = cold('a')
    expectObservable(whileOpen(far('w--x-----v').connection, () => pipeline, options), '20ms !').toBe('a')
    expectSubscriptions(pipeline.subscriptions).toBe('^ 19ms !')
  })
  marbles('cancels after its patience without a writer, and comes back with the next, with window 1', (m) => {
    const windows: number[] = []
    const pipeline = m.cold('a')
    const run = ({ window }: Scope<string>) => pipeline.pipe(tap({ subscribe: () => windows.push(window) }))
    m.expectObservable(whileOpen(m.far('w--x 16ms v').connection, run, options), '30ms !').toBe('a 19ms a')
    m.expectSubscriptions(pipeline.subscriptions).toBe(['^ 12ms !', '20ms ^ 9ms !'])
    m.flush()
    expect(windows).toEqual([9, 1])
  })
  marbles('cancels after its patience without a confirm, with a writer that opens happily', (m) => {
    const log: string[] = []
    const far = m.far('w', { a: 'silent' })
    const made = m.source('a')
    m.rows([made.settled, '10ms *'])
    const run = (scope: Scope<string>) => {
      log.push(`window ${scope.window}`)
      return log.length > 1 ? NEVER : made.deliveries.pipe(deliver(scope.connection, { sink: 'test' }))
    }
    m.expectObservable(whileOpen(far.connection, run, options), '15ms !').toBe('')
    m.flush()
    expect(log).toEqual(['window 9', 'window 1'])
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
  marbles('returns to the full window at the first confirm', (m) => {
    const windows: number[] = []
    const far = m.far('w', { a: ['silent', 3] })
    const [first, third] = [m.source('a'), m.cold('x')]
    const run = ({ window, connection, stop }: Scope<string>) => {
      windows.push(window)
      if (windows.length === 1) return first.deliveries.pipe(deliver(connection, { sink: 'test' }), map(() => 'never'))
      if (windows.length > 2) return third
      const again = ledger<string>((book) => (book.take('a', undefined), { settled: () => undefined, close: () => undefined }), { window, stop })
      return again.pipe(deliver(connection, { sink: 'test' }), map(({ value }) => value))
    }
    m.expectObservable(whileOpen(far.connection, run, options), '20ms !').toBe('13ms (ax)')
    m.flush()
    expect(windows).toEqual([9, 1, 9])
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
  // A far end is made before its queue: the writer is there when the first value comes.
  const frozen = (row: string, plan: 'silent' | readonly 'failed'[]) => (m: Marbles) => {
    const far = m.far(row, { a: plan })
    const made = m.source('a')
    const windows: number[] = []
    const run = (scope: Scope<string>) => {
      windows.push(scope.window)
      return windows.length > 1 ? NEVER : made.deliveries.pipe(deliver(scope.connection, { sink: 'test', retryMs: 3 }))
    }
    return { far, made, windows, run }
  }
  marbles('gives a far end no more time for opening happily, again and again, when it answers nothing', (m) => {
    const { far, made, windows, run } = frozen('w---x-v---x-w---x-v', 'silent')(m)
    m.rows([made.settled, '                            10ms *'])
    m.expectObservable(whileOpen(far.connection, run, options), '19ms !').toBe('')
    m.flush()
    expect(windows).toEqual([9, 1])
  })
  marbles('gives a far end no more time for failing every write', (m) => {
    const { far, made, windows, run } = frozen('w', Array.from({ length: 9 }, () => 'failed' as const))(m)
    m.rows([made.settled, '10ms *'])
    m.expectObservable(whileOpen(far.connection, run, options), '19ms !').toBe('')
    m.flush()
    expect(windows).toEqual([9, 1])
  })
  marbles('tries a far end that never answers once in each patience, with window 1', (m) => {
    const far = m.far('w', { a: 'silent' })
    const windows: number[] = []
    const run = ({ window, stop, connection }: Scope<string>) => {
      windows.push(window)
      return ledger<string>((book) => (book.take('a', undefined), { settled: () => undefined, close: () => undefined }), { window, stop }).pipe(deliver(connection, { sink: 'test' }))
    }
    m.rows([far.writes, 'a 9ms a 9ms a'])
    m.expectObservable(whileOpen(far.connection, run, options), '25ms !').toBe('')
    m.flush()
    expect(windows).toEqual([9, 1, 1])
    expect([far.underWay.size, far.held()]).toEqual([0, 0])
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
  marbles('completes when a run with window 1 ends by itself: its source had no more', ({ far, expectObservable, flush }) => {
    let runs = 0
    const run = () => ((runs += 1) === 1 ? NEVER : EMPTY)
    expectObservable(whileOpen(far('w--x 16ms v').connection, run, options)).toBe('20ms |')
    flush()
    expect(runs).toBe(2)
  })
  marbles('passes an error of a run with window 1 on', ({ far, cold, expectObservable }) => {
    let runs = 0
    expectObservable(whileOpen(far('w--x 16ms v').connection, () => ((runs += 1) === 1 ? NEVER : cold('--#')), options)).toBe('22ms #')
  })
  marbles('ends within its patience when it is stopped while its far end answers nothing', (m) => {
    const stop = m.hot('---s')
    const far = m.far('w', { a: 'silent' })
    const made = m.source('a', { stop })
    m.rows([made.settled, '10ms *'])
    m.expectObservable(whileOpen(far.connection, ({ connection }) => made.deliveries.pipe(deliver(connection, { sink: 'test' })), { ...options, stop })).toBe('10ms |')
  })
  marbles('does not begin again when it is stopped while a run with window 1 waits for its answer', (m) => {
    const windows: number[] = []
    const stop = m.hot('12ms s')
    const far = m.far('w', { a: ['silent', 5] })
    const run = ({ window, connection, stop: over }: Scope<string>) => {
      windows.push(window)
      return ledger<string>((book) => (book.take('a', undefined), { settled: () => undefined, close: () => undefined }), { window, stop: over }).pipe(
        deliver(connection, { sink: 'test' }),
        map(({ value }) => value),
      )
    }
    m.expectObservable(whileOpen(far.connection, run, { ...options, stop })).toBe('15ms (a|)')
    m.flush()
    expect(windows).toEqual([9, 1])
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
  marbles('has nothing to cancel at the end of its patience when its run has ended while the writer was away', (m) => {
    const far = m.far('w--x 16ms v-x 17ms w')
    let runs = 0
    // The second proves the far end, and ends a moment before the patience with its loss does.
    const run = ({ connection }: Scope<string>) => {
      runs += 1
      if (runs === 2) return concat(connection.pipe(take(1), switchMap((write) => write?.('a') ?? EMPTY), ignoreElements()), timer(10).pipe(ignoreElements()))
      return NEVER
    }
    m.expectObservable(whileOpen(far.connection, run, options), '60ms !').toBe('')
    m.flush()
    expect(runs).toBe(3)
  })
})
