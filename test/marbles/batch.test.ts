import { from, map, Subject, tap } from 'rxjs'
import { describe, expect, it, vi } from 'vitest'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Delivery } from '../../src/delivery.js'
import { batch } from '../../src/operators/batch.js'
import { marbles, settleAfter } from './marbles.js'

const joined = map((values: readonly string[]) => values.join(''))
const names = { p: 'ab', q: 'c', r: 'abc', s: 'cd' }

describe('batch', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['(abc)|', 'r----|'], ['#', '#']] as const)
    marbles(`ends as its source does: ${row}`, ({ source, expectObservable }) => {
      expectObservable(source(row).deliveries.pipe(batch(3, 9), settleAfter(0), joined)).toBe(expected, names)
    })
  marbles('gives what it has when its source ends without waiting for answers', ({ hot, expectObservable }) => {
    const deliveries = hot('ab-c|').pipe(map((value): Delivery<string> => ({ value, settle: () => undefined })))
    expectObservable(deliveries.pipe(batch(2, 9), map(({ value }) => value), joined)).toBe('-p--(q|)', names)
  })
  marbles('joins as many as its size at once, in order', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab---cd')
    rows([settled, '                    -(ab)-(cd)'])
    expectObservable(deliveries.pipe(batch(2, 50), settleAfter(0), joined)).toBe('-p----s', names)
  })
  marbles('gives what has come within its time of the first', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('a-b-----c')
    rows([settled, '                    ----(ab)----c'])
    expectObservable(deliveries.pipe(batch(9, 4), settleAfter(0), joined)).toBe('----p-------q', names)
  })
  marbles('begins its time anew with the first of the next batch', ({ source, expectObservable }) => {
    expectObservable(source('ab-c').deliveries.pipe(batch(2, 4), settleAfter(0), joined)).toBe('-p-----q', names)
  })
  marbles('answers each part as the whole is answered, once', ({ source, expectObservable, rows, flush }) => {
    const { deliveries, settled, counts } = source('ab---cd')
    rows([settled, '                            -(AB)'])
    const out: Delivery<readonly string[]>[] = []
    const refuseFirst = tap<Delivery<readonly string[]>>((delivery) => out.push(delivery) === 1 && delivery.settle(rejected('no', 'test')))
    expectObservable(deliveries.pipe(batch(2, 9), refuseFirst, map(({ value }) => value), joined)).toBe('-p----s', names)
    flush()
    out.forEach(({ settle }) => settle(released(false)))
    out.forEach(({ settle }) => settle(accepted))
    expect(counts).toMatchObject({ taken: 4, rejected: 2, released: 2, accepted: 0, unsettled: 0, stale: 6 })
  })
  marbles('goes on after its time with fewer than its size, when the window is smaller than that', ({ source, expectObservable, flush }) => {
    const { deliveries, most } = source('abcd', { window: 2 })
    expectObservable(deliveries.pipe(batch(3, 5), settleAfter(0), joined)).toBe('-----p----s', names)
    flush()
    expect(most()).toBe(2)
  })
  marbles('goes on after its time when its source is stopped half-way, and completes after the last part is answered', ({ source, hot, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc-d', { stop: hot('---s') })
    rows([settled, '                    ---(ab)--c'])
    expectObservable(deliveries.pipe(batch(2, 5), settleAfter(2), joined)).toBe('-p-----q-|', names)
  })
  marbles('gives nothing more and settles nothing when it is unsubscribed half-way: the source releases', ({ source, expectObservable, rows, flush }) => {
    const { deliveries, settled, counts } = source('abc')
    rows([settled, '---(***)'])
    expectObservable(deliveries.pipe(batch(2, 9), settleAfter(50), joined), '---!').toBe('-p', names)
    flush()
    expect(counts).toMatchObject({ taken: 3, released: 3, unsettled: 0 })
  })
  marbles('leaves what it holds to the source when that errors', ({ source, expectObservable, flush }) => {
    const { deliveries, counts } = source('a-#')
    expectObservable(deliveries.pipe(batch(2, 9), settleAfter(0), joined)).toBe('--#')
    flush()
    expect(counts).toMatchObject({ taken: 1, released: 1, unsettled: 0 })
  })

  it('leaves no timer behind when it is unsubscribed', () => {
    vi.useFakeTimers()
    const deliveries = new Subject<Delivery<string>>()
    const running = deliveries.pipe(batch(9, 50)).subscribe()
    deliveries.next({ value: 'a', settle: () => undefined })
    expect(vi.getTimerCount()).toBe(1)
    running.unsubscribe()
    expect(vi.getTimerCount()).toBe(0)
    vi.useRealTimers()
  })
  it('joins a synchronous source of 100,000 in order', () => {
    let answers = 0
    const seen: number[] = []
    from(Array.from({ length: 100_000 }, (_, value): Delivery<number> => ({ value, settle: () => (answers += 1) })))
      .pipe(batch(7, 1000))
      .subscribe(({ value, settle }) => {
        seen.push(...value)
        settle(accepted)
      })
    expect(answers).toBe(100_000)
    expect(seen.every((value, i) => value === i)).toBe(true)
  })
})
