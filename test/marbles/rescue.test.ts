import { filter, from, map, NEVER, Observable, pipe } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, rejected, Rejection, released } from '../../src/delivery.js'
import type { Delivery, Receipt, Sink } from '../../src/delivery.js'
import { deliver } from '../../src/operators/deliver.js'
import { each } from '../../src/operators/each.js'
import { rescue } from '../../src/operators/rescue.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { marbles } from './marbles.js'

const letters = map(({ sink, value }: Receipt) => (sink === 'dead' ? (value as DeadLetter<string>).value.toUpperCase() : (value as string)))
const check = each<string, string>(
  (value) => {
    if (value === 'b') throw new Rejection('bad')
    return [value]
  },
  { stage: 'check' },
)

describe('rescue', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '-(a|)']] as const)
    marbles(`ends as its source does: ${row}`, ({ source, far, expectObservable }) => {
      const dead = deliver<DeadLetter<string>>(far('w').connection as never, { sink: 'dead' })
      expectObservable(source(row).deliveries.pipe(rescue(deliver(far('w').connection, { sink: 'main' }), dead), letters)).toBe(expected)
    })
  marbles('accepts what was rejected when the dead letters have it, and not before', ({ source, far, expectObservable, rows, flush }) => {
    const letterbox = far('---w')
    const { deliveries, settled, counts } = source('abc')
    rows([settled, '                            -a-cb'])
    const dead = deliver<DeadLetter<string>>(letterbox.connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(pipe(check, deliver(far('w').connection, { sink: 'main' })), dead), letters)).toBe('-a-cB')
    flush()
    expect(counts).toMatchObject({ accepted: 3, rejected: 0 })
    expect(letterbox.first).toEqual([{ value: 'b', reason: 'bad', stage: 'check', attempts: 1, firstSeen: 1 }])
  })
  marbles('releases what the dead letters reject: it stays where it was', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('b')
    rows([settled, '                    *'])
    const dead = deliver<DeadLetter<string>>(far('w', { b: 'refused' }).connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(pipe(check, deliver(far('w').connection, { sink: 'main' })), dead), letters)).toBe('B')
  })
  marbles('keeps what the writer refuses with the sink as its stage, and the order of the others', ({ source, far, expectObservable, rows, flush }) => {
    const letterbox = far('w')
    const { deliveries, settled } = source('a-cd')
    rows([settled, '                    -a-cd'])
    const dead = deliver<DeadLetter<string>>(letterbox.connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(deliver(far('w', { c: 'refused' }).connection, { sink: 'main' }), dead), map(({ sink, outcome }) => (sink === 'dead' ? 'D' : outcome.kind[0] as string)))).toBe('-arDa')
    flush()
    expect(letterbox.first).toMatchObject([{ value: 'c', reason: 'refused', stage: 'main' }])
  })
  marbles('completes after the last dead letter is kept, when its source is stopped', ({ source, far, hot, expectObservable }) => {
    const dead = deliver<DeadLetter<string>>(far('-----w').connection as never, { sink: 'dead' })
    expectObservable(source('b', { stop: hot('-s') }).deliveries.pipe(rescue(pipe(check, deliver(far('w').connection, { sink: 'main' })), dead), letters)).toBe('------(B|)')
  })
  marbles('releases all when it is unsubscribed, the dead letters under way too', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab')
    rows([settled, '                    ---(**)'])
    const dead = deliver<DeadLetter<string>>(far('-').connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(pipe(check, deliver(far('-').connection, { sink: 'main' })), dead), letters), '---!').toBe('')
  })
  marbles('passes an error of its source on, and leaves what was out to it', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab-#')
    rows([settled, '                    ---(**)'])
    const dead = deliver<DeadLetter<string>>(far('-').connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(pipe(check, deliver(far('-').connection, { sink: 'main' })), dead))).toBe('---#')
  })
  marbles('keeps the dead letters in the order of rejection, through a loss of theirs, and the main road does not wait', ({ source, far, expectObservable, rows, flush }) => {
    const letterbox = far('----w-x---v', { a: ['silent', 1], c: ['silent', 1] })
    const { deliveries, settled } = source('acde')
    rows([settled, '                    ---de------(ac)'])
    const dead = deliver<DeadLetter<string>>(letterbox.connection as never, { sink: 'dead' })
    const main = deliver(far('w', { a: 'refused', c: 'refused' }).connection, { sink: 'main' })
    expectObservable(deliveries.pipe(rescue(main, dead), filter(({ sink }) => sink === 'dead'), letters)).toBe('-----------(AC)')
    flush()
    expect((letterbox.confirmed as unknown as DeadLetter<string>[]).map(({ value }) => value)).toEqual(['a', 'c'])
  })
  it('takes the first answer: a second rejection is no second dead letter, and no yes after it counts', () => {
    const answers: string[] = []
    const buried: string[] = []
    const twice: Sink<string> = (source) =>
      new Observable((subscriber) =>
        source.subscribe(({ settle }) => {
          settle(rejected('bad', 'test'))
          settle(rejected('worse', 'test'))
          settle(accepted)
          subscriber.complete()
        }),
      )
    const letterbox: Sink<DeadLetter<string>> = (source) => new Observable((subscriber) => source.subscribe(({ value }) => (buried.push(value.reason), subscriber.closed)))
    from([{ value: 'a', settle: ({ kind }) => answers.push(kind) } satisfies Delivery<string>])
      .pipe(rescue(twice, letterbox))
      .subscribe()
    expect([answers, buried]).toEqual([[], ['bad']])
  })
  it('releases what the dead letters reject as one whose fate is unknown: they may have it', () => {
    const answers: unknown[] = []
    const refusing = <T>(source: Observable<Delivery<T>>) => new Observable<Receipt<T>>((subscriber) => source.subscribe({ next: ({ settle }) => settle(rejected('no', 'test')), complete: () => subscriber.complete() }))
    from([{ value: 'a', settle: (outcome) => answers.push(outcome) } satisfies Delivery<string>])
      .pipe(rescue<string>(refusing, refusing))
      .subscribe()
    expect(answers).toEqual([released(true)])
  })
  it('passes accepted and released on as they are', () => {
    const answers: unknown[] = []
    const outcomes = [accepted, released(true), released(false)]
    let turn = 0
    const each: Sink<string> = (source) => new Observable((subscriber) => source.subscribe({ next: ({ settle }) => settle(outcomes[turn++] ?? accepted), complete: () => subscriber.complete() }))
    from(outcomes.map((): Delivery<string> => ({ value: 'a', settle: (outcome) => answers.push(outcome) })))
      .pipe(rescue(each, () => NEVER))
      .subscribe()
    expect(answers).toEqual(outcomes)
  })
  it('buries 100,000 that are refused at once in order, without nesting', () => {
    let answers = 0
    const buried: number[] = []
    const refuse: Sink<number> = (source) => new Observable((subscriber) => source.subscribe({ next: ({ settle }) => settle(rejected('bad', 'test')), complete: () => subscriber.complete() }))
    const letterbox: Sink<DeadLetter<number>> = (source) =>
      new Observable((subscriber) => source.subscribe({ next: ({ value, settle }) => (buried.push(value.value), settle(accepted)), complete: () => subscriber.complete() }))
    from(Array.from({ length: 100_000 }, (_, value): Delivery<number> => ({ value, settle: ({ kind }) => (answers += kind === 'accepted' ? 1 : 0) })))
      .pipe(rescue(refuse, letterbox))
      .subscribe()
    expect(answers).toBe(100_000)
    expect(buried.every((value, i) => value === i)).toBe(true)
  })
})
