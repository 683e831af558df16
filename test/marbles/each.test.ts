import { concat, delay, EMPTY, from, map, of, Subject, take, throwError } from 'rxjs'
import type { Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, rejected, Rejection, released } from '../../src/delivery.js'
import type { Delivery, Outcome } from '../../src/delivery.js'
import { each } from '../../src/operators/each.js'
import { marbles, settleAfter } from './marbles.js'

describe('each', () => {
  for (const row of ['|', '-', 'a|', 'a-b-c|', 'a-#'])
    marbles(`gives what its step gives, one for one: ${row}`, ({ source, expectObservable }) => {
      expectObservable(source(row).deliveries.pipe(each((value) => [value]), settleAfter(0))).toBe(row)
    })
  marbles('passes the settlement on', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('a--b')
    rows([settled, '                    --a--b'])
    expectObservable(deliveries.pipe(each((value) => [value]), settleAfter(2))).toBe('a--b')
  })
  marbles('accepts and counts what its step filters', ({ source, expectObservable, rows, flush }) => {
    const filtered: string[] = []
    const { deliveries, settled, counts } = source('abc')
    rows([settled, '                            abc'])
    const even = each<string, string>((value) => (value === 'b' ? [value] : []), { filtered: (value) => filtered.push(value) })
    expectObservable(deliveries.pipe(even, settleAfter(0))).toBe('-b-')
    flush()
    expect(filtered).toEqual(['a', 'c'])
    expect(counts).toMatchObject({ taken: 3, accepted: 3, unsettled: 0 })
  })
  marbles('counts as filtered what its step gives nothing for, and nothing else, whether it takes time or not', ({ source, cold, expectObservable, flush }) => {
    const filtered: string[] = []
    const given: Record<string, Observable<string> | readonly string[]> = { a: [], b: ['1'], c: ['1', '2'], d: cold('-------|'), e: cold('-1|'), f: cold('-(12|)') }
    const step = each<string, string>((value) => given[value] ?? [], { filtered: (value) => filtered.push(value) })
    expectObservable(source('(abcdef)').deliveries.pipe(step, settleAfter(0))).toBe('(112)---1-(12)')
    flush()
    expect(filtered).toEqual(['a', 'd'])
  })
  marbles('settles a split once, after the last part, with the worst of its answers', ({ source, expectObservable, rows, flush }) => {
    const outcomes: Record<string, Outcome> = { 1: accepted, 2: rejected('no', 'test'), 3: accepted }
    const { deliveries, settled, counts } = source('a-----')
    rows([settled, '                              -A'])
    const parts = deliveries.pipe(
      each(() => ['1', '2', '3']),
      map(({ value, settle }) => ({ value, settle: () => settle(outcomes[value] as Outcome) })),
      settleAfter(1),
    )
    expectObservable(parts).toBe('(123)')
    flush()
    expect(counts).toMatchObject({ taken: 1, rejected: 1 })
  })
  marbles('settles a split into parts that come over time after the last of them', ({ source, expectObservable, rows, cold }) => {
    const { deliveries, settled } = source('a')
    rows([settled, '                    -------a'])
    expectObservable(deliveries.pipe(each(() => cold('1-2--3|')), settleAfter(2))).toBe('1-2--3')
  })
  marbles('rejects what its step throws at, and goes on', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc')
    rows([settled, '                    aBc'])
    const step = (value: string) => {
      if (value === 'b') throw new Rejection('bad')
      return [value]
    }
    expectObservable(deliveries.pipe(each(step), settleAfter(0))).toBe('a-c')
  })
  marbles('rejects what its step errors for, also after a part of it went on', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('a--')
    rows([settled, '                    ---A'])
    expectObservable(deliveries.pipe(each(() => concat(of('1'), throwError(() => new Error('x')).pipe(delay(0)))), settleAfter(3))).toBe('1')
  })
  marbles('rejects when its step gives what cannot be followed, and goes on', ({ source, expectObservable, rows, flush }) => {
    const wrong: Record<string, unknown> = { a: undefined, b: null, c: 5 }
    const { deliveries, settled, counts } = source('abcd')
    rows([settled, '                            ABCd'])
    expectObservable(deliveries.pipe(each((value) => (value in wrong ? (wrong[value] as never) : [value])), settleAfter(0))).toBe('---d')
    flush()
    expect(counts).toMatchObject({ taken: 4, rejected: 3, accepted: 1, unsettled: 0 })
  })
  it('tells the reason of an error, and its own name for the stage where none was given', () => {
    const outcomes: Outcome[] = []
    const step = (): string[] => {
      throw new TypeError('no')
    }
    const deliveries = from(['a', 'b']).pipe(map((value): Delivery<string> => ({ value, settle: (outcome) => outcomes.push(outcome) })))
    deliveries.pipe(each(step)).subscribe()
    deliveries.pipe(each(step, { stage: 'check' })).subscribe()
    expect(outcomes).toEqual(['each', 'each', 'check', 'check'].map((stage) => rejected('TypeError: no', stage)))
  })
  it('takes what arrives within an emission after it: nothing nests, and the order holds', () => {
    const deliveries = new Subject<Delivery<number>>()
    const give = (value: number): void => deliveries.next({ value, settle: () => undefined })
    const seen: number[] = []
    let depth = 0
    deliveries.pipe(each((n) => [n, n])).subscribe(({ value }) => {
      expect((depth += 1)).toBe(1)
      seen.push(value)
      if (value < 3) give(value + 10)
      depth -= 1
    })
    give(1)
    give(2)
    expect(seen).toEqual([1, 1, 11, 11, 11, 11, 2, 2, 12, 12, 12, 12])
  })
  marbles('lets a released part release the whole', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('a')
    rows([settled, '                    *'])
    expectObservable(deliveries.pipe(each(() => ['1']), settleAfter(0, released(false)))).toBe('1')
  })
  marbles('keeps the order while a step takes time: the next begins when this one has completed', ({ source, cold, expectObservable, expectSubscriptions }) => {
    const slow = cold('---1|')
    const quick = cold('2|')
    expectSubscriptions(slow.subscriptions).toBe(' ^---!')
    expectSubscriptions(quick.subscriptions).toBe('----^!')
    expectObservable(source('ab').deliveries.pipe(each((value) => (value === 'a' ? slow : quick)), settleAfter(0))).toBe('---12')
  })
  marbles('ends its step, and settles nothing, when it is unsubscribed', ({ source, cold, expectObservable, expectSubscriptions, rows }) => {
    const step = cold('------1|')
    const { deliveries, settled } = source('a')
    rows([settled, '                    ---*'])
    expectObservable(deliveries.pipe(each(() => step)), '---!').toBe('')
    expectSubscriptions(step.subscriptions).toBe('^--!')
  })
  marbles('runs no step after it was unsubscribed in the middle of an emission', ({ source, cold, expectObservable, rows, flush }) => {
    const ran: string[] = []
    const { deliveries, settled, counts } = source('abcd')
    rows([settled, '                            -----(a***)'])
    const step = each<string, string>((value) => (ran.push(value), value === 'a' ? cold('-----|') : [value]))
    expectObservable(deliveries.pipe(step, map(({ value }) => value), take(1))).toBe('-----(b|)')
    flush()
    expect(ran).toEqual(['a', 'b'])
    expect(counts).toMatchObject({ taken: 4, released: 3, accepted: 1 })
  })
  marbles('finishes what is out when its source is stopped half-way, and completes', ({ source, hot, cold, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab-c', { stop: hot('--s') })
    rows([settled, '                    ------a---b'])
    expectObservable(deliveries.pipe(each((value) => cold(`---${value}|`)), settleAfter(3))).toBe('---a---b--|')
  })
  marbles('completes after its last step', ({ source, cold, expectObservable }) => {
    expectObservable(source('a|').deliveries.pipe(each(() => cold('---1|')), settleAfter(0))).toBe('---1|')
  })

  it('runs 100,000 synchronous steps in order without nesting, arrays and observables alike', () => {
    for (const step of [(n: number) => [n], (n: number) => of(n), (n: number) => (n % 2 === 0 ? EMPTY : [n])]) {
      let depth = 0
      let deepest = 0
      const seen: number[] = []
      let answers = 0
      from(Array.from({ length: 100_000 }, (_, n) => n))
        .pipe(
          map((value): Delivery<number> => ({ value, settle: () => (answers += 1) })),
          each(step),
        )
        .subscribe(({ value, settle }) => {
          depth += 1
          deepest = Math.max(deepest, depth)
          seen.push(value)
          settle(accepted)
          depth -= 1
        })
      expect(deepest).toBe(1)
      expect(answers).toBe(100_000)
      expect(seen.every((value, i) => i === 0 || value > (seen[i - 1] as number))).toBe(true)
    }
  })
})
