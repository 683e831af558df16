import { delay, filter, from, map, Observable, timer } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, released } from '../../src/delivery.js'
import type { Delivery, Receipt, Sink } from '../../src/delivery.js'
import { deliver } from '../../src/operators/deliver.js'
import { fanOut } from '../../src/operators/fan-out.js'
import { marbles } from './marbles.js'

const letters = map(({ sink, value, outcome }: Receipt<string>) => (outcome.kind === 'accepted' ? `${sink}${value}` : `${sink}${value.toUpperCase()}`))
const names = Object.fromEntries(['1a', '1b', '1c', '1A', '1B', '2a', '2b', '2c', '2A', '2B'].map((name, i) => ['klmnopqrst'[i] as string, name]))

describe('fanOut', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '-(kp|)'], ['a#', '-#']] as const)
    marbles(`ends as its source does: ${row}`, ({ source, far, expectObservable }) => {
      const sinks = fanOut<string>(deliver(far('w').connection, { sink: '1' }), deliver(far('w').connection, { sink: '2' }))
      expectObservable(source(row).deliveries.pipe(sinks, letters)).toBe(expected, names)
    })
  marbles('settles once, when all its sinks have answered', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab')
    rows([settled, '                    ---ab'])
    const [one, two] = [far('w', { a: 1, b: 1 }), far('w', { a: 3, b: 3 })]
    expectObservable(deliveries.pipe(fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' })), letters)).toBe('-klpq', names)
  })
  marbles('rejects when one sink rejects, after the other has it', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('a---')
    rows([settled, '                    ---A'])
    const [one, two] = [far('w', { a: 'refused' }), far('w', { a: 3 })]
    expectObservable(deliveries.pipe(fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' })), letters)).toBe('n--p', names)
  })
  marbles('waits for a sink that is away: one slow branch holds the source’s window', ({ source, far, expectObservable, rows, flush }) => {
    const { deliveries, settled, most } = source('abc', { window: 2 })
    rows([settled, '                                   -----ab----c'])
    const [one, two] = [far('w'), far('----w', { b: 2, c: 6 })]
    expectObservable(deliveries.pipe(fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' })), letters)).toBe('-kl--p(qm)-r', names)
    flush()
    expect(most()).toBe(2)
  })
  marbles('releases everything when it is unsubscribed, and ends every branch', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab')
    rows([settled, '                    ---(**)'])
    const silent = { a: 'silent', b: 'silent' } as const
    expectObservable(deliveries.pipe(fanOut<string>(deliver(far('w', silent).connection, { sink: '1' }), deliver(far('w').connection, { sink: '2' })), letters), '---!').toBe('-pq', names)
  })
  marbles('releases when one sink releases, whatever the others say', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab')
    rows([settled, '                    -*b'])
    const releasing: Sink<string> = (source) =>
      new Observable((subscriber) => source.subscribe({ next: ({ value, settle }) => settle(value === 'a' ? released(true) : accepted), complete: () => subscriber.complete() }))
    expectObservable(deliveries.pipe(fanOut<string>(releasing, deliver(far('w').connection, { sink: '1' })), letters)).toBe('-kl', names)
  })
  marbles('releases when one rejects and another releases, in whichever order: it comes again, and is rejected then', ({ source, far, expectObservable, rows }) => {
    const releaseAfter =
      (frames: number): Sink<string> =>
      (source) =>
        new Observable((subscriber) => source.subscribe(({ settle }) => subscriber.add(timer(frames).subscribe(() => settle(released(true))))))
    const refuse = () => deliver(far('w', { a: 'refused' }).connection, { sink: '1' })
    const [one, two] = [refuse(), refuse()]
    const [later, sooner] = [source('a'), source('a')]
    rows([later.settled, ' ---*'])
    rows([sooner.settled, '-----*'])
    expectObservable(later.deliveries.pipe(fanOut<string>(one, releaseAfter(3)), letters)).toBe('n', names)
    const slowly: Sink<string> = (source) => source.pipe(delay(5), two)
    expectObservable(sooner.deliveries.pipe(fanOut<string>(slowly, releaseAfter(1)), letters)).toBe('-----n', names)
  })
  marbles('gives each sink the order of the source, though one is ahead and the other loses its writer', ({ source, far, expectObservable, rows }) => {
    const [one, two] = [far('w'), far('w-x-v', { b: ['silent', 1] })]
    rows([one.writes, 'abc'])
    rows([two.writes, 'ab--(bc)'])
    const { deliveries, settled } = source('abc')
    rows([settled, '       -a---(bc)'])
    const both = fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' }))
    expectObservable(deliveries.pipe(both, filter(({ sink }) => sink === '2'), letters)).toBe('-p---(qr)', names)
  })
  marbles('completes when its source was stopped and every sink has answered for the last', ({ source, far, hot, expectObservable }) => {
    const { deliveries } = source('a-b', { stop: hot('-s') })
    const [one, two] = [far('w'), far('w', { a: 5 })]
    expectObservable(deliveries.pipe(fanOut<string>(deliver(one.connection, { sink: '1' }), deliver(two.connection, { sink: '2' })), letters)).toBe('-k---(p|)', names)
  })

  it('gives 100,000 to sinks that answer at once in order, without nesting', () => {
    const seen: number[][] = [[], []]
    let answers = 0
    const sinks = seen.map(
      (log): Sink<number> =>
        (source) =>
          new Observable((subscriber) => source.subscribe({ next: ({ value, settle }) => (log.push(value), settle(accepted)), complete: () => subscriber.complete() })),
    )
    from(Array.from({ length: 100_000 }, (_, value): Delivery<number> => ({ value, settle: () => (answers += 1) })))
      .pipe(fanOut(...sinks))
      .subscribe()
    expect(answers).toBe(100_000)
    for (const log of seen) expect(log.length === 100_000 && log.every((value, i) => value === i)).toBe(true)
  })
})
