import { map, Observable } from 'rxjs'
import { describe, expect } from 'vitest'
import type { Receipt, Sink } from '../../src/delivery.js'
import { bestEffort } from '../../src/operators/best-effort.js'
import { deliver } from '../../src/operators/deliver.js'
import { fanOut } from '../../src/operators/fan-out.js'
import { marbles } from './kit.js'

const letters = map(({ sink, value, outcome }: Receipt<string>) => (outcome.kind === 'accepted' ? `${sink}${value}` : `${sink}${value.toUpperCase()}`))
const names = Object.fromEntries(['1a', '1b', '1c', '1A', '1B', '2a', '2b', '2c', '2A', '2B'].map((name, i) => ['klmnopqrst'[i] as string, name]))

describe('fanOut', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '-(kp|)'], ['a#', '-#']] as const)
    marbles(`ends as its source does: ${row}`, ({ queue, far, expectObservable }) => {
      const sinks = fanOut<string>(deliver(far('w').connection, { sink: '1' }), deliver(far('w').connection, { sink: '2' }))
      expectObservable(queue(row).deliveries.pipe(sinks, letters)).toBe(expected, names)
    })
  marbles('settles once, when all its sinks have answered', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('ab')
    expectRow(settled, '                    ---ab')
    const [one, two] = [far('w', { a: 1, b: 1 }), far('w', { a: 3, b: 3 })]
    expectObservable(deliveries.pipe(fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' })), letters)).toBe('-klpq', names)
  })
  marbles('rejects when one sink rejects, after the other has it', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('a---')
    expectRow(settled, '                    ---A')
    const [one, two] = [far('w', { a: 'refused' }), far('w', { a: 3 })]
    expectObservable(deliveries.pipe(fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' })), letters)).toBe('n--p', names)
  })
  marbles('waits for a sink that is away: one slow branch holds the source’s window', ({ queue, far, expectObservable, expectRow, flush }) => {
    const { deliveries, settled, most } = queue('abc', { window: 2 })
    expectRow(settled, '                                   -----ab----c')
    const [one, two] = [far('w'), far('----w', { b: 2, c: 6 })]
    expectObservable(deliveries.pipe(fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' })), letters)).toBe('-kl--p(qm)-r', names)
    flush()
    expect(most()).toBe(2)
  })
  marbles('releases everything when it is unsubscribed, and ends every branch', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('ab')
    expectRow(settled, '                    ---(**)')
    const silent = { a: 'silent', b: 'silent' } as const
    expectObservable(deliveries.pipe(fanOut<string>(deliver(far('w', silent).connection, { sink: '1' }), deliver(far('w').connection, { sink: '2' })), letters), '---!').toBe('-pq', names)
  })
})

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
})
