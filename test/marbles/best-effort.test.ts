import { EMPTY, from, map, Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, rejected } from '../../src/delivery.js'
import type { Delivery, Receipt, Sink } from '../../src/delivery.js'
import { bestEffort } from '../../src/operators/best-effort.js'
import { deliver } from '../../src/operators/deliver.js'
import { fanOut } from '../../src/operators/fan-out.js'
import { marbles } from './marbles.js'

const letters = map(({ sink, value, outcome }: Receipt<string>) => (outcome.kind === 'accepted' ? `${sink}${value}` : `${sink}${value.toUpperCase()}`))
const names = { k: '1a', l: '1b', m: '1c', n: '1A' }
const ignore = { dropped: () => undefined }

describe('bestEffort', () => {
  const dropped = () => {
    let count = 0
    return { count: () => count, drop: (more: number) => (count += more) }
  }
  marbles('accepts at once, whatever its sink does', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc')
    rows([settled, '                    abc'])
    expectObservable(deliveries.pipe(bestEffort(deliver(far('-').connection, { sink: '1' }), { dropped: () => undefined }), letters)).toBe('')
  })
  marbles('gives its sink the order of the source', ({ source, far, expectObservable }) => {
    expectObservable(source('abc').deliveries.pipe(bestEffort(deliver(far('--w').connection, { sink: '1' }), { dropped: () => undefined }), letters)).toBe('---(klm)', names)
  })
  marbles('holds no more than its buffer, and counts what it drops', ({ source, far, expectObservable, rows, flush }) => {
    const { count, drop } = dropped()
    const { deliveries, settled } = source('abcd')
    rows([settled, '                    abcd'])
    expectObservable(deliveries.pipe(bestEffort(deliver(far('-').connection, { sink: '1' }), { buffer: 2, dropped: drop })), '-----!').toBe('')
    flush()
    expect(count(), 'two beyond the buffer, two lost on cancel').toBe(4)
  })
  marbles('gives its sink the oldest when it had to drop', ({ source, far, expectObservable }) => {
    expectObservable(source('abc').deliveries.pipe(bestEffort(deliver(far('---w').connection, { sink: '1' }), { buffer: 2, dropped: () => undefined }), letters)).toBe('----(kl)', names)
  })
  marbles('lets its sink go on for the linger after the source has ended, and counts the rest', ({ source, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    const sink = deliver(far('w', { a: 3, b: 'silent' }).connection, { sink: '1' })
    expectObservable(source('(ab)|').deliveries.pipe(bestEffort(sink, { lingerMs: 6, dropped: drop }), letters)).toBe('---k------|', names)
    flush()
    expect(count()).toBe(1)
  })
  marbles('completes as soon as its sink is done', ({ source, far, expectObservable }) => {
    expectObservable(source('a-|').deliveries.pipe(bestEffort(deliver(far('w', { a: 4 }).connection, { sink: '1' }), { dropped: () => undefined }), letters)).toBe('----(k|)', names)
  })
  marbles('counts what its sink rejects', ({ source, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    expectObservable(source('ab').deliveries.pipe(bestEffort(deliver(far('w', { a: 'refused' }).connection, { sink: '1' }), { dropped: drop }), letters)).toBe('n-l', names)
    flush()
    expect(count()).toBe(1)
  })
  marbles('goes on without its sink when that errors: the main road does not notice', ({ source, expectObservable, rows, flush }) => {
    const { count, drop } = dropped()
    const broken: Sink<string> = (source) =>
      new Observable((subscriber) => source.subscribe(({ value }) => value === 'b' && subscriber.error(new Error('broken'))))
    const { deliveries, settled } = source('abc|')
    rows([settled, '                    abc'])
    expectObservable(deliveries.pipe(bestEffort(broken, { dropped: drop }))).toBe('---|')
    flush()
    expect(count()).toBe(3)
  })
  marbles('stuck beside a sink that must confirm, changes neither order nor pace', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc')
    rows([settled, '                    -abc'])
    const stuck = bestEffort<string>(deliver(far('w', { a: 'silent' }).connection, { sink: '2', window: 1 }), { dropped: () => undefined })
    expectObservable(deliveries.pipe(fanOut<string>(deliver(far('w').connection, { sink: '1' }), stuck), letters)).toBe('-klm', names)
  })
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '-(k|)'], ['a--#', '-k-#']] as const)
    marbles(`ends as its source does: ${row}`, ({ source, far, expectObservable }) => {
      expectObservable(source(row).deliveries.pipe(bestEffort(deliver(far('w').connection, { sink: '1' }), ignore), letters)).toBe(expected, names)
    })
  marbles('takes more when its sink has answered: the buffer is what is owed, not what was seen', ({ source, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    expectObservable(source('a-b-c').deliveries.pipe(bestEffort(deliver(far('w').connection, { sink: '1' }), { buffer: 1, dropped: drop }), letters)).toBe('-k-l-m', names)
    flush()
    expect(count()).toBe(0)
  })
  marbles('lets its sink go, and counts what that held, when it is unsubscribed', ({ source, far, expectObservable, flush }) => {
    const { count, drop } = dropped()
    const { connection, underWay, held } = far('w', { a: 'silent', b: 'silent' })
    expectObservable(source('ab-c').deliveries.pipe(bestEffort(deliver(connection, { sink: '1' }), { dropped: drop })), '--!').toBe('')
    flush()
    expect([count(), underWay.size, held()]).toEqual([2, 0, 0])
  })
  marbles('does not linger for a sink that owes nothing', ({ source, far, hot, expectObservable }) => {
    const { deliveries } = source('a---b', { stop: hot('---s') })
    expectObservable(deliveries.pipe(bestEffort(deliver(far('w').connection, { sink: '1' }), ignore), letters)).toBe('-k-|', names)
  })

  marbles('counts what its sink held when that errored, once, whatever it answers afterwards', ({ hot, expectObservable, rows, source, flush }) => {
    const { count, drop } = dropped()
    const late: Delivery<string>[] = []
    const breaks = hot('--x')
    const broken: Sink<string> = (copies) =>
      new Observable((subscriber) => {
        subscriber.add(copies.subscribe((delivery) => late.push(delivery)))
        subscriber.add(breaks.subscribe(() => subscriber.error(new Error('broken'))))
      })
    const { deliveries, settled } = source('ab')
    rows([settled, 'ab'])
    expectObservable(deliveries.pipe(bestEffort(broken, { dropped: drop })), '9ms !').toBe('')
    flush()
    late.forEach(({ settle }) => settle(rejected('no', 'test')))
    expect([late.length, count()]).toEqual([2, 2])
  })
  marbles('completes at once when its sink errors after the source has ended', ({ source, hot, expectObservable }) => {
    const breaks = hot('----x')
    const broken: Sink<string> = () => new Observable((subscriber) => breaks.subscribe(() => subscriber.error(new Error('broken'))))
    expectObservable(source('a-|').deliveries.pipe(bestEffort(broken, ignore))).toBe('----|')
  })
  marbles('goes on when its sink has had enough, and counts what that never saw', ({ source, expectObservable, rows, flush }) => {
    const { count, drop } = dropped()
    const brief: Sink<string> = () => EMPTY
    const { deliveries, settled } = source('abc')
    rows([settled, 'abc'])
    expectObservable(deliveries.pipe(bestEffort(brief, { dropped: drop })), '9ms !').toBe('')
    flush()
    expect(count()).toBe(3)
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
