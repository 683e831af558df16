import { map } from 'rxjs'
import { describe, expect } from 'vitest'
import { deliver } from '../../src/operators/deliver.js'
import { marbles } from './kit.js'

const letters = map((receipt: { value: string; outcome: { kind: string } }) => (receipt.outcome.kind === 'accepted' ? receipt.value : receipt.value.toUpperCase()))
const sink = (options: Partial<Parameters<typeof deliver<string>>[1]> = {}) => ({ sink: 'test', retryMs: 5, ...options })

describe('deliver', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '--(a|)'], ['a--#', '--a#']] as const)
    marbles(`emits a receipt for each delivery, and ends as its source does: ${row}`, ({ queue, far, expectObservable }) => {
      expectObservable(queue(row).deliveries.pipe(deliver(far('w', { a: 2 }).connection, sink()), letters)).toBe(expected)
    })
  marbles('settles when the write completes, and not before', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('ab--')
    const { connection, writes } = far('w', { a: 3, b: 5 })
    expectRow(writes, '  ab    ')
    expectRow(settled, ' ---a--b')
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('---a--b')
  })
  marbles('waits for a writer, then writes in order', ({ queue, far, expectObservable, expectRow }) => {
    const { connection, writes } = far('-----w')
    expectRow(writes, '-----(abc)')
    expectObservable(queue('abc').deliveries.pipe(deliver(connection, sink()), letters)).toBe('------(abc)')
  })
  marbles('has at most its window written: demand follows confirms', ({ queue, far, expectObservable, expectRow, flush }) => {
    const { connection, writes, most } = far('w', { a: 3, b: 3, c: 3, d: 3 })
    expectRow(writes, 'ab-cd')
    expectObservable(queue('abcd').deliveries.pipe(deliver(connection, sink({ window: 2 })), letters)).toBe('---ab-cd')
    flush()
    expect(most()).toBe(2)
  })
  marbles('counts the window in bytes as well, and lets one value always go', ({ queue, far, expectObservable, expectRow }) => {
    const { connection, writes } = far('w', { a: 3, b: 3, c: 3 })
    const sizes: Record<string, number> = { a: 6, b: 6, c: 99 }
    expectRow(writes, 'a--b--c')
    expectObservable(queue('abc').deliveries.pipe(deliver(connection, sink({ windowBytes: 10, sizeOf: (value) => sizes[value] as number })), letters)).toBe('---a--b--c')
  })
  marbles('writes everything unconfirmed again, in order, before anything new, when the writer changes', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('abc------d')
    const { connection, writes } = far('w----v', { a: 'silent', b: 2, c: ['silent', 1] })
    expectRow(writes, 'abc--(ac)d')
    expectRow(settled, '---b--c---d')
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('---b--c---d')
  })
  marbles('keeps the order through a loss with deliveries in flight, confirmed in another order', ({ queue, far, expectObservable, expectRow }) => {
    const { connection, writes } = far('w--x---v', { a: ['silent', 5], c: ['silent', 1] })
    expectRow(writes, '                        abc----(acd)')
    expectObservable(queue('abc-d').deliveries.pipe(deliver(connection, sink()), letters)).toBe('--b-----(cd)a')
  })
  marbles('writes what was written and lost before what waited for the window', ({ queue, far, expectObservable, expectRow }) => {
    const { connection, writes } = far('w---v', { a: ['silent', 9], b: ['silent', 9] })
    expectRow(writes, '                        ab--(ab)')
    expectObservable(queue('abc').deliveries.pipe(deliver(connection, sink({ window: 2 })), letters), '-------!').toBe('')
  })
  marbles('ignores a confirm for a write of a writer that is gone', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('a')
    const { connection, writes } = far('w-x--v', { a: [3, 4] })
    expectRow(writes, '  a----a')
    expectRow(settled, ' ---------a')
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('---------a')
  })
  marbles('takes a failed write for the connection’s fault: rests, then writes all of it again', ({ queue, far, expectObservable, expectRow }) => {
    const { connection, writes } = far('w', { a: 'silent', b: ['failed', 1], c: 1 })
    expectRow(writes, '                                                          ab----(abc)')
    expectObservable(queue('abc').deliveries.pipe(deliver(connection, sink()), letters)).toBe('-------(bc)')
  })
  marbles('does not rest when a new writer comes sooner', ({ queue, far, expectObservable, expectRow }) => {
    const { connection, writes } = far('w--v', { a: ['failed', 1] })
    expectRow(writes, 'a--a')
    expectObservable(queue('a').deliveries.pipe(deliver(connection, sink()), letters)).toBe('----a')
  })
  marbles('rejects what the writer refuses, and that alone', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('abc')
    const { connection, writes } = far('w', { a: 3, b: 'refused', c: 1 })
    expectRow(writes, ' abc')
    expectRow(settled, '-B-(ac)')
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('-B-(ac)')
  })
  marbles('tells attempts, duration and what completion means', ({ queue, far, expectObservable, flush }) => {
    const receipts: object[] = []
    expectObservable(
      queue('a')
        .deliveries.pipe(deliver(far('w---v', { a: ['silent', 2] }).connection, sink({ state: 'sent' })))
        .pipe(map((receipt) => (receipts.push(receipt), 'r'))),
    ).toBe('------r')
    flush()
    expect(receipts).toEqual([{ sink: 'test', value: 'a', outcome: { kind: 'accepted' }, attempts: 2, durationMs: 6, state: 'sent' }])
  })
  marbles('completes after the last settlement, when its source was stopped', ({ queue, far, hot, expectObservable }) => {
    expectObservable(queue('a-b-c', { stop: hot('---s') }).deliveries.pipe(deliver(far('w', { a: 6, b: 6 }).connection, sink()), letters)).toBe('------a-(b|)')
  })
  marbles('ends its writes and settles nothing when it is unsubscribed: the source releases', ({ queue, far, expectObservable, expectRow, flush }) => {
    const { deliveries, settled, counts } = queue('ab')
    expectRow(settled, '---(**)')
    expectObservable(deliveries.pipe(deliver(far('w', { a: 'silent', b: 'silent' }).connection, sink()), letters), '---!').toBe('')
    flush()
    expect(counts).toMatchObject({ taken: 2, released: 2, accepted: 0 })
  })
})
