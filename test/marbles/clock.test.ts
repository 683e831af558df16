import { asyncScheduler, Observable } from 'rxjs'
import { afterEach, describe, vi } from 'vitest'
import { patience } from '../../src/connections/patience.js'
import { deliver } from '../../src/operators/deliver.js'
import { whileOpen } from '../../src/operators/while-open.js'
import type { Scope } from '../../src/operators/while-open.js'
import { marbles } from './marbles.js'

afterEach(() => vi.restoreAllMocks())

const hourMs = 3_600_000

/** The wall clock is set back by an hour; timers go on as they were. */
const setBackAt = (ms: number): void => {
  const real = asyncScheduler.now.bind(asyncScheduler)
  vi.spyOn(asyncScheduler, 'now').mockImplementation(() => (real() >= ms ? real() - hourMs : real()))
}

describe('a clock that is set back', () => {
  marbles('costs a confirm time-out one more time-out, not the hour', (m) => {
    setBackAt(5)
    const late = new Observable<string>((subscriber) => {
      const confirms = patience(10, () => 0, () => subscriber.next('late'))
      confirms.watch()
      return confirms.stop
    })
    m.expectObservable(late, '50ms !').toBe('20ms (l)', { l: 'late' })
  })
  marbles('costs a pipeline that waits for a confirm one more patience, not the hour', (m) => {
    setBackAt(5)
    const far = m.far('w', { a: 'silent' })
    const made = m.source('a')
    m.rows([made.settled, '20ms *'])
    const run = ({ connection }: Scope<string>) => made.deliveries.pipe(deliver(connection, { sink: 'test' }))
    m.expectObservable(whileOpen(far.connection, run, { patienceMs: 10 }), '25ms !').toBe('')
  })
  marbles('costs a pipeline that waits for a writer one more patience, not the hour', (m) => {
    setBackAt(5)
    const pipeline = m.cold('-')
    m.expectObservable(whileOpen(m.far('w-x').connection, () => pipeline, { patienceMs: 10 }), '50ms !').toBe('')
    m.expectSubscriptions(pipeline.subscriptions).toBe('^ 21ms !')
  })
})
