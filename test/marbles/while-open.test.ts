import { map, NEVER, tap } from 'rxjs'
import { ledger } from '../../src/ledger.js'
import { describe, expect } from 'vitest'
import { deliver } from '../../src/operators/deliver.js'
import { whileOpen } from '../../src/operators/while-open.js'
import type { Scope } from '../../src/operators/while-open.js'
import { marbles } from './kit.js'

const options = { window: 9, patienceMs: 10 }

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
    const made = m.queue('a')
    m.expectRow(made.settled, '10ms *')
    const run = (scope: Scope<string>) => {
      log.push(`window ${scope.window}`)
      return log.length > 1 ? NEVER : made.deliveries.pipe(deliver(scope.connection, { sink: 'test' }))
    }
    m.expectObservable(whileOpen(far.connection, run, options), '15ms !').toBe('')
    m.flush()
    expect(log).toEqual(['window 9', 'window 1'])
  })
  marbles('is patient as long as confirms come', (m) => {
    const pipeline = m.queue('-a 7ms b 7ms c 7ms d')
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
    const [first, third] = [m.queue('a'), m.cold('x')]
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
    const pipeline = m.queue('-a 7ms b')
    const far = m.far('w', { a: 'silent', b: 'refused' })
    m.expectRow(pipeline.settled, '9ms B 9ms *')
    m.expectObservable(whileOpen(far.connection, (scope) => (pipeline.most() > 0 ? NEVER : pipeline.deliveries.pipe(deliver(scope.connection, { sink: 'test' }), map(() => 'r'))), options), '30ms !').toBe('9ms r')
  })
  marbles('completes at once when it is stopped while nothing runs', ({ far, hot, cold, expectObservable }) => {
    expectObservable(whileOpen(far('-').connection, () => cold('-'), { ...options, stop: hot('---s') })).toBe('---|')
  })
  marbles('stops its pipeline, and completes with it', (m) => {
    const stop = m.hot('-s')
    const log: string[] = []
    const far = m.far('w', { a: 4 })
    const pipeline = m.queue('a-b', { stop })
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
})
