import { concat, concatMap, delay, from, map, merge, mergeMap, of, Subject, tap } from 'rxjs'
import { describe, expect, it } from 'vitest'
import type { Outcome } from '../../src/delivery.js'
import { accepted, rejected, released } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import { intake } from '../../src/sources/intake.js'
import { marbles, settleAfter } from './kit.js'

/** What a caller is told: its own letter for accepted, in capitals for rejected, `-` for released unsent, `?` for released after it left. */
const told = (value: string) =>
  map((outcome: Outcome) => (outcome.kind === 'accepted' ? value : outcome.kind === 'rejected' ? value.toUpperCase() : outcome.maybeSent ? '?' : '0'))

describe('intake', () => {
  marbles('gives a value out when it is offered, and tells its caller once, when it is settled', ({ hot, expectObservable }) => {
    const { deliveries, offer } = intake<string>({ window: 9 })
    expectObservable(deliveries.pipe(settleAfter(3))).toBe('a-b')
    expectObservable(hot('                              a-b').pipe(mergeMap((value) => offer(value).pipe(told(value))))).toBe('---a-b')
  })
  marbles('passes every answer on to the caller whose it is', ({ hot, expectObservable }) => {
    const { deliveries, offer } = intake<string>({ window: 9 })
    const answers: Record<string, Outcome> = { a: accepted, b: rejected('no', 'test'), c: released(true), d: released(false) }
    expectObservable(deliveries.pipe(tap(({ value, settle }) => settle(answers[value] as Outcome)), map(({ value }) => value))).toBe('abcd')
    expectObservable(hot('abcd').pipe(mergeMap((value) => offer(value).pipe(told(value))))).toBe('aB?0')
  })
  marbles('keeps those who come before it is open in line, in order', ({ hot, expectObservable }) => {
    const { deliveries, offer } = intake<string>({ window: 9 })
    expectObservable(deliveries.pipe(settleAfter(0)), '---^').toBe('---(abc)')
    expectObservable(hot('abc').pipe(mergeMap((value) => offer(value).pipe(told(value))))).toBe('---(abc)')
  })
  marbles('takes from the line only when there is room: demand follows settlement', ({ hot, expectObservable, flush }) => {
    const { deliveries, offer, full } = intake<string>({ window: 2 })
    const taken: string[] = []
    const wasFull: boolean[] = []
    expectObservable(deliveries.pipe(settleAfter(3))).toBe('ab-cd')
    expectObservable(hot('abcd').pipe(tap(() => wasFull.push(full())), mergeMap((value) => offer(value, () => taken.push(value)).pipe(told(value))))).toBe('---ab-cd')
    flush()
    expect(taken).toEqual(['a', 'b', 'c', 'd'])
    expect(wasFull).toEqual([false, false, true, false])
    expect(full()).toBe(false)
  })
  marbles('lets a caller go who leaves the line: its value never goes out, and the next keeps its place', ({ cold, expectObservable, flush }) => {
    const counts = newCounts()
    const { deliveries, offer } = intake<string>({ window: 1, counts })
    expectObservable(deliveries.pipe(settleAfter(4))).toBe('a---c')
    expectObservable(offer('a').pipe(told('a'))).toBe('    ----a'.trim().replace('a', '(a|)'))
    expectObservable(offer('b').pipe(told('b')), '--!').toBe('')
    expectObservable(offer('c').pipe(told('c'))).toBe('--------(c|)')
    void cold
    flush()
    expect(counts).toMatchObject({ taken: 2, accepted: 2, unsettled: 0 })
  })
  marbles('changes nothing for a caller who leaves after its value went out', ({ expectObservable, flush }) => {
    const counts = newCounts()
    const { deliveries, offer } = intake<string>({ window: 1, counts })
    expectObservable(deliveries.pipe(settleAfter(4))).toBe('a')
    expectObservable(offer('a').pipe(told('a')), '--!').toBe('')
    flush()
    expect(counts).toMatchObject({ taken: 1, accepted: 1, unsettled: 0, stale: 0 })
  })
  marbles('turns those in line away unsent when it is stopped, and completes with the last answer', ({ hot, expectObservable }) => {
    const { deliveries, offer } = intake<string>({ window: 1, stop: hot('--s') })
    expectObservable(deliveries.pipe(settleAfter(4))).toBe('a---|')
    expectObservable(hot('                                  ab-c').pipe(mergeMap((value) => offer(value).pipe(told(value))))).toBe('--00a'.replace('00', '00'))
  })
  marbles('tells all callers when it is cancelled: unsent for those in line, unknown for those outside', ({ hot, expectObservable, flush }) => {
    const counts = newCounts()
    const { deliveries, offer } = intake<string>({ window: 2, counts })
    expectObservable(deliveries.pipe(settleAfter(90)), '---!').toBe('ab')
    expectObservable(hot('abc-d').pipe(mergeMap((value) => offer(value).pipe(told(value))))).toBe('---(0??)0'.replace('(0??)0', '(0??)').concat(''))
    flush()
    expect(counts).toMatchObject({ taken: 2, released: 2, unsettled: 0 })
  })
  marbles('turns everyone away when it was stopped before it opened', ({ expectObservable }) => {
    const { deliveries, offer } = intake<string>({ window: 2, stop: of('now') })
    expectObservable(concat(offer('a').pipe(told('a')))).toBe('--(0|)')
    expectObservable(deliveries, '--^').toBe('--|')
  })
  marbles('answers an offer at a closed door at once', ({ hot, expectObservable }) => {
    const { deliveries, offer } = intake<string>({ window: 2, stop: hot('s') })
    expectObservable(deliveries).toBe('|')
    expectObservable(hot('-a').pipe(mergeMap((value) => offer(value).pipe(told(value))))).toBe('-0')
  })
  marbles('merges with others: each keeps its own order', ({ hot, expectObservable }) => {
    const [one, two] = [intake<string>({ window: 1 }), intake<string>({ window: 1 })]
    expectObservable(merge(one.deliveries, two.deliveries).pipe(settleAfter(3))).toBe('ax-by')
    expectObservable(hot('ab').pipe(mergeMap((value) => one.offer(value).pipe(told(value))))).toBe('---a--b')
    expectObservable(hot('-x-y').pipe(mergeMap((value) => two.offer(value).pipe(told(value))))).toBe('----x--y')
  })
  marbles('serves a caller that waits for each answer before the next', ({ expectObservable }) => {
    const { deliveries, offer } = intake<string>({ window: 9 })
    expectObservable(deliveries.pipe(settleAfter(2))).toBe('a--b--c')
    expectObservable(from(['a', 'b', 'c']).pipe(concatMap((value) => offer(value).pipe(told(value), delay(1))))).toBe('---a--b--(c|)')
  })

  it('serves 100,000 callers in line in order, without nesting', () => {
    for (const window of [1, 100]) {
      const open = new Subject<void>()
      const { deliveries, offer } = intake<number>({ window })
      const seen: number[] = []
      const answered: number[] = []
      let depth = 0
      let deepest = 0
      for (let n = 0; n < 100_000; n += 1) offer(n).subscribe(() => answered.push(n))
      deliveries.subscribe(({ value, settle }) => {
        depth += 1
        deepest = Math.max(deepest, depth)
        seen.push(value)
        settle(accepted)
        depth -= 1
      })
      open.complete()
      expect(deepest).toBe(1)
      expect([seen.length, answered.length]).toEqual([100_000, 100_000])
      expect(seen.every((value, i) => value === i) && answered.every((value, i) => value === i)).toBe(true)
    }
  })
})
