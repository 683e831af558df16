import { concat, map } from 'rxjs'
import { describe } from 'vitest'
import { backoff } from '../../src/operators/backoff.js'
import { marbles } from './marbles.js'

const exact = { jitter: 0 }
const row = (attempt: number, options: Parameters<typeof backoff>[1]) => backoff(attempt, options).pipe(map(() => 'a'))

describe('backoff', () => {
  marbles('emits once after its delay, and completes', ({ expectObservable }) => {
    expectObservable(row(1, exact)).toBe('200ms (a|)')
  })
  marbles('doubles with each attempt', ({ expectObservable }) => {
    expectObservable(concat(...[1, 2, 3, 4].map((attempt) => row(attempt, { ...exact, firstMs: 10 })))).toBe('10ms a 19ms a 39ms a 79ms (a|)')
  })
  marbles('never waits longer than its longest, however many attempts there were', ({ expectObservable }) => {
    for (const attempt of [9, 100, 5000]) expectObservable(row(attempt, exact)).toBe('30s (a|)')
  })
  marbles('leaves no more than its share to chance', ({ expectObservable }) => {
    expectObservable(row(1, { firstMs: 100, jitter: 0.2, random: () => 0 })).toBe('100ms (a|)')
    expectObservable(row(1, { firstMs: 100, jitter: 0.2, random: () => 1 })).toBe('80ms (a|)')
    expectObservable(row(9, { firstMs: 100, maxMs: 1000, jitter: 0.5, random: () => 1 })).toBe('500ms (a|)')
  })
  marbles('leaves nothing behind when it is unsubscribed', ({ expectObservable }) => {
    expectObservable(row(1, exact), '100ms !').toBe('')
  })
})
