import { from, map, tap } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Delivery } from '../../src/delivery.js'
import { batch } from '../../src/operators/batch.js'
import { marbles, settleAfter } from './kit.js'

const joined = map((values: readonly string[]) => values.join(''))

describe('batch', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['(abc)|', 'x--|'], ['#', '#']] as const)
    marbles(`ends as its source does: ${row}`, ({ queue, expectObservable }) => {
      const values = queue(row).deliveries.pipe(batch(3, 9), settleAfter(0), joined)
      expectObservable(values).toBe(expected === 'x--|' ? 'x----|' : expected, { x: 'abc' })
    })
  marbles('joins as many as its size, in order, at once', ({ queue, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('abcd')
    expectRow(settled, '                    ---(ab)(cd)'.replace('---(ab)(cd)', '-(ab)(cd)'))
    expectObservable(deliveries.pipe(batch(2, 50), settleAfter(0), joined), '------!').toBe('-x-y', { x: 'ab', y: 'cd' })
  })
  marbles('gives what has come within its time of the first', ({ queue, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('a-b-----c')
    expectRow(settled, '                    ----(ab)----c'.replace('----(ab)----c', '----(ab)----c'))
    expectObservable(deliveries.pipe(batch(9, 4), settleAfter(0), joined)).toBe('----x-------y', { x: 'ab', y: 'c' })
  })
  marbles('begins its time anew with the first of the next batch', ({ queue, expectObservable }) => {
    expectObservable(queue('ab-c').deliveries.pipe(batch(2, 4), settleAfter(0), joined)).toBe('-x-----y', { x: 'ab', y: 'c' })
  })
  marbles('answers each part as the whole is answered, once', ({ queue, expectObservable, expectRow, flush }) => {
    const { deliveries, settled, counts } = queue('abcd')
    expectRow(settled, '-(AB)')
    const out: Delivery<readonly string[]>[] = []
    expectObservable(deliveries.pipe(batch(2, 9), tap((delivery) => out.push(delivery)), tap(({ settle }) => out.length === 1 && settle(rejected('no', 'test'))), map(({ value }) => value), joined)).toBe(
      '-x-y',
      { x: 'ab', y: 'cd' },
    )
    flush()
    out.forEach(({ settle }) => settle(released(false)))
    out.forEach(({ settle }) => settle(accepted))
    expect(counts).toMatchObject({ taken: 4, rejected: 2, released: 2, accepted: 0, unsettled: 0, stale: 6 })
  })
  marbles('goes on after its time with fewer than its size, when the window is smaller than that', ({ queue, expectObservable, flush }) => {
    const { deliveries, most } = queue('abcd', { window: 2 })
    expectObservable(deliveries.pipe(batch(3, 5), settleAfter(0), joined)).toBe('-----x----y', { x: 'ab', y: 'cd' })
    flush()
    expect(most()).toBe(2)
  })
  marbles('completes after the last part is answered, when its source is stopped half-way', ({ queue, hot, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('abc-d', { stop: hot('---s') })
    expectRow(settled, '                          -(ab)-c'.replace('-(ab)-c', '---(ab)c'))
    expectObservable(deliveries.pipe(batch(2, 5), settleAfter(2), joined)).toBe('-x-----y-|', { x: 'ab', y: 'c' })
  })
  marbles('gives nothing more and settles nothing when it is unsubscribed half-way: the source releases', ({ queue, expectObservable, expectRow, flush }) => {
    const { deliveries, settled, counts } = queue('abc')
    expectRow(settled, '---(***)')
    expectObservable(deliveries.pipe(batch(2, 9)).pipe(settleAfter(50), joined), '---!').toBe('-x', { x: 'ab' })
    flush()
    expect(counts).toMatchObject({ taken: 3, released: 3, unsettled: 0 })
  })
  marbles('leaves what it holds to the source when that errors', ({ queue, expectObservable, flush }) => {
    const { deliveries, counts } = queue('a-#')
    expectObservable(deliveries.pipe(batch(2, 9), settleAfter(0), joined)).toBe('--#')
    flush()
    expect(counts).toMatchObject({ taken: 1, released: 1, unsettled: 0 })
  })

  it('joins a synchronous source of 100,000 in order', () => {
    let answers = 0
    const seen: number[] = []
    from(Array.from({ length: 100_000 }, (_, n) => n))
      .pipe(
        map((value): Delivery<number> => ({ value, settle: () => (answers += 1) })),
        batch(7, 1000),
      )
      .subscribe(({ value, settle }) => {
        seen.push(...value)
        settle(accepted)
      })
    expect(answers).toBe(100_000)
    expect(seen.every((value, i) => value === i)).toBe(true)
  })
})
