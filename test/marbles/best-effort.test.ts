import { from, map, Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted } from '../../src/delivery.js'
import type { Delivery, Receipt, Sink } from '../../src/delivery.js'
import { bestEffort } from '../../src/operators/best-effort.js'
import { deliver } from '../../src/operators/deliver.js'
import { fanOut } from '../../src/operators/fan-out.js'
import { marbles } from './kit.js'

const letters = map(({ sink, value, outcome }: Receipt<string>) => (outcome.kind === 'accepted' ? `${sink}${value}` : `${sink}${value.toUpperCase()}`))
const names = { k: '1a', l: '1b', m: '1c', n: '1A' }
const ignore = { dropped: () => undefined }

describe('bestEffort', () => {
  const dropped = () => {
    let count = 0
    return { count: () => count, drop: (more: number) => (count += more) }
  }
  marbles('accepts at once, whatever its sink does', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('abc')
    expectRow(settled, '                    abc')
    expectObservable(deliveries.pipe(bestEffort(deliver(far('-').connection, { sink: '1' }), { dropped: () => undefined }), letters)).toBe('')
  })
  marbles('gives its sink the order of the source', ({ queue, far, expectObservable }) => {
    expectObservable(queue('abc').deliveries.pipe(bestEffort(deliver(far('--w').connection, { sink: '1' }), { dropped: () => undefined }), letters)).toBe('---(klm)', names)
  })
  marbles('holds no more than its buffer, and counts what it drops', ({ queue, far, expectObservable, expectRow, flush }) => {
    const { count, drop } = dropped()
    const { deliveries, settled } = queue('abcd')
    expectRow(settled, '                    abcd')
    expectObservable(deliveries.pipe(bestEffort(deliver(far('-').connection, { sink: '1' }), { buffer: 2, dropped: drop })), '-----!').toBe('')
    flush()
    expect(count(), 'two beyond the buffer, two lost on cancel').toBe(4)
  })
  marbles('gives its sink the oldest when it had to drop', ({ queue, far, expectObservable }) => {
    expectObservable(queue('abc').deliveries.pipe(bestEffort(deliver(far('---w').connection, { sink: '1' }), { buffer: 2, dropped: () => undefined }), letters)).toBe('----(kl)', names)
  })
  marbles('lets its sink go on for the linger after the source has ended, and counts the rest', ({ queue, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    const sink = deliver(far('w', { a: 3, b: 'silent' }).connection, { sink: '1' })
    expectObservable(queue('(ab)|').deliveries.pipe(bestEffort(sink, { lingerMs: 6, dropped: drop }), letters)).toBe('---k------|', names)
    flush()
    expect(count()).toBe(1)
  })
  marbles('completes as soon as its sink is done', ({ queue, far, expectObservable }) => {
    expectObservable(queue('a-|').deliveries.pipe(bestEffort(deliver(far('w', { a: 4 }).connection, { sink: '1' }), { dropped: () => undefined }), letters)).toBe('----(k|)', names)
  })
  marbles('counts what its sink rejects', ({ queue, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    expectObservable(queue('ab').deliveries.pipe(bestEffort(deliver(far('w', { a: 'refused' }).connection, { sink: '1' }), { dropped: drop }), letters)).toBe('n-l', names)
    flush()
    expect(count()).toBe(1)
  })
  marbles('goes on without its sink when that errors: the main road does not notice', ({ queue, expectObservable, expectRow, flush }) => {
    const { count, drop } = dropped()
    const broken: Sink<string> = (source) =>
      new Observable((subscriber) => source.subscribe(({ value }) => value === 'b' && subscriber.error(new Error('broken'))))
    const { deliveries, settled } = queue('abc|')
    expectRow(settled, '                    abc')
    expectObservable(deliveries.pipe(bestEffort(broken, { dropped: drop }))).toBe('---|')
    flush()
    expect(count()).toBe(3)
  })
  marbles('stuck beside a sink that must confirm, changes neither order nor pace', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('abc')
    expectRow(settled, '                    -abc')
    const stuck = bestEffort<string>(deliver(far('w', { a: 'silent' }).connection, { sink: '2', window: 1 }), { dropped: () => undefined })
    expectObservable(deliveries.pipe(fanOut<string>(deliver(far('w').connection, { sink: '1' }), stuck), letters)).toBe('-klm', names)
  })
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '-(k|)'], ['a--#', '-k-#']] as const)
    marbles(`ends as its source does: ${row}`, ({ queue, far, expectObservable }) => {
      expectObservable(queue(row).deliveries.pipe(bestEffort(deliver(far('w').connection, { sink: '1' }), ignore), letters)).toBe(expected, names)
    })
  marbles('takes more when its sink has answered: the buffer is what is owed, not what was seen', ({ queue, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    expectObservable(queue('a-b-c').deliveries.pipe(bestEffort(deliver(far('w').connection, { sink: '1' }), { buffer: 1, dropped: drop }), letters)).toBe('-k-l-m', names)
    flush()
    expect(count()).toBe(0)
  })
  marbles('lets its sink go, and counts what that held, when it is unsubscribed', ({ queue, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    const { connection, open, held } = far('w', { a: 'silent', b: 'silent' })
    expectObservable(queue('ab-c').deliveries.pipe(bestEffort(deliver(connection, { sink: '1' }), { dropped: drop })), '--!').toBe('')
    flush()
    expect([count(), open(), held()]).toEqual([2, 0, 0])
  })
  marbles('does not linger for a sink that owes nothing', ({ queue, far, hot, expectObservable }) => {
    const { deliveries } = queue('a---b', { stop: hot('---s') })
    expectObservable(deliveries.pipe(bestEffort(deliver(far('w').connection, { sink: '1' }), ignore), letters)).toBe('-k-|', names)
  })

  it('accepts 100,000 at once in order, and drops by the buffer while its sink says nothing', () => {
    let answers = 0
    let lost = 0
    const seen: number[] = []
    const stuck: Sink<number> = (source) => new Observable((subscriber) => source.subscribe({ next: ({ value }) => seen.push(value), complete: () => subscriber.complete() }))
    from(Array.from({ length: 100_000 }, (_, value): Delivery<number> => ({ value, settle: ({ kind }) => (answers += kind === accepted.kind ? 1 : 0) })))
      .pipe(bestEffort(stuck, { buffer: 10, dropped: (count) => (lost += count) }))
      .subscribe()
      .unsubscribe()
    expect([answers, lost], 'the ten it held are lost with it').toEqual([100_000, 100_000])
    expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })
})
