import { concatMap, delay, from, map, merge, mergeMap, of, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Outcome } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import { intake } from '../../src/sources/intake.js'
import type { Intake } from '../../src/sources/intake.js'
import { marbles, settleAfter } from './marbles.js'

/** What a caller is told: its letter for accepted, in capitals for rejected, `0` for released unsent, `?` for released with its fate unknown. */
const told = (value: string) => map((outcome: Outcome) => (outcome.kind === 'accepted' ? value : outcome.kind === 'rejected' ? value.toUpperCase() : outcome.maybeSent ? '?' : '0'))
/** Callers that come as these marbles say, and what they are told. */
const callers = (row: Observable<string>, { offer }: Intake<string>): Observable<string> => row.pipe(mergeMap((value) => offer(value).pipe(told(value))))

describe('intake', () => {
  marbles('gives a value out when it is offered, and tells its caller when it is settled', ({ hot, expectObservable }) => {
    const door = intake<string>({ window: 9 })
    expectObservable(door.deliveries.pipe(settleAfter(3))).toBe('a-b')
    expectObservable(callers(hot('                              a-b'), door)).toBe('---a-b')
  })
  marbles('tells a caller once, and that is the end', ({ expectObservable }) => {
    const door = intake<string>({ window: 9 })
    expectObservable(door.deliveries.pipe(tap(({ settle }) => settle(released(false))), settleAfter(3))).toBe('a')
    expectObservable(door.offer('a').pipe(told('a'))).toBe('(0|)')
  })
  marbles('passes every answer on to the caller whose it is', ({ hot, expectObservable }) => {
    const door = intake<string>({ window: 9 })
    const answers: Record<string, Outcome> = { a: accepted, b: rejected('no', 'test'), c: released(true), d: released(false) }
    const answering = door.deliveries.pipe(tap(({ value, settle }) => settle(answers[value] as Outcome)), map(({ value }) => value))
    expectObservable(answering).toBe('           abcd')
    expectObservable(callers(hot('abcd'), door)).toBe('aB?0')
  })
  marbles('answers in the order of the answers, not of the offers', ({ hot, expectObservable }) => {
    const door = intake<string>({ window: 9 })
    const late = door.deliveries.pipe(mergeMap((delivery) => of(delivery).pipe(delay(delivery.value === 'a' ? 5 : 1))), tap(({ settle }) => settle(accepted)), map(({ value }) => value))
    expectObservable(late).toBe('                --b--a')
    expectObservable(callers(hot('ab'), door)).toBe('--b--a')
  })
  marbles('keeps those who come before it is open in line, in order', ({ hot, expectObservable }) => {
    const door = intake<string>({ window: 9 })
    expectObservable(door.deliveries.pipe(settleAfter(0)), '---^').toBe('---(abc)')
    expectObservable(callers(hot('abc'), door)).toBe('                   ---(abc)')
  })
  marbles('takes from the line only when there is room: demand follows settlement', ({ hot, expectObservable, flush }) => {
    const door = intake<string>({ window: 2 })
    const taken: string[] = []
    const full: boolean[] = []
    const offers = hot('ab-c-d').pipe(
      tap(() => full.push(door.full())),
      mergeMap((value) => door.offer(value, () => taken.push(value)).pipe(told(value))),
    )
    expectObservable(door.deliveries.pipe(settleAfter(4))).toBe('ab--cd')
    expectObservable(offers).toBe('                             ----ab--cd')
    flush()
    expect(taken).toEqual(['a', 'b', 'c', 'd'])
    expect(full, 'a and b find room, c finds two outside, d the one that c left').toEqual([false, false, true, true])
    expect(door.full()).toBe(false)
  })
  marbles('lets a caller go who leaves the line: its value never goes out, and the next keeps its place', ({ expectObservable, flush }) => {
    const counts = newCounts()
    const door = intake<string>({ window: 1, counts })
    expectObservable(door.deliveries.pipe(settleAfter(4))).toBe('a---c')
    expectObservable(door.offer('a').pipe(told('a'))).toBe('     ----(a|)')
    expectObservable(door.offer('b').pipe(told('b')), '--!').toBe('')
    expectObservable(door.offer('c').pipe(told('c'))).toBe('     --------(c|)')
    flush()
    expect(counts).toMatchObject({ taken: 2, accepted: 2, unsettled: 0 })
  })
  marbles('changes nothing for a value that is out when its caller leaves', ({ expectObservable, flush }) => {
    const counts = newCounts()
    const door = intake<string>({ window: 1, counts })
    expectObservable(door.deliveries.pipe(settleAfter(4))).toBe('a')
    expectObservable(door.offer('a').pipe(told('a')), '--!').toBe('')
    flush()
    expect(counts).toMatchObject({ taken: 1, accepted: 1, unsettled: 0, stale: 0 })
  })
  marbles('turns those in line away unsent when it is stopped, and completes with the last answer', ({ hot, expectObservable }) => {
    const door = intake<string>({ window: 1, stop: hot('--s') })
    expectObservable(door.deliveries.pipe(settleAfter(4))).toBe('a---|')
    expectObservable(callers(hot('ab-c'), door)).toBe('             --00a')
  })
  marbles('tells all callers when it is cancelled: unsent for those in line, unknown for those outside', ({ hot, expectObservable, flush }) => {
    const counts = newCounts()
    const door = intake<string>({ window: 2, counts })
    expectObservable(door.deliveries.pipe(settleAfter(90)), '---!').toBe('ab')
    expectObservable(callers(hot('abc-----d'), door)).toBe('      ---(0??)0')
    flush()
    expect(counts).toMatchObject({ taken: 2, released: 2, unsettled: 0 })
  })
  marbles('turns everyone away when it was stopped before it opened', ({ expectObservable }) => {
    const door = intake<string>({ window: 2, stop: of('now') })
    expectObservable(door.offer('a').pipe(told('a'))).toBe('--(0|)')
    expectObservable(door.deliveries, '--^').toBe('         --|')
    expectObservable(door.offer('b').pipe(told('b')), '----^').toBe('----(0|)')
  })
  marbles('counts a late answer as stale, and tells nobody', ({ expectObservable, flush }) => {
    const counts = newCounts()
    const door = intake<string>({ window: 1, counts })
    const late: ((outcome: Outcome) => void)[] = []
    expectObservable(door.deliveries.pipe(tap(({ settle }) => late.push(settle)), map(({ value }) => value)), '--!').toBe('a')
    expectObservable(door.offer('a').pipe(told('a'))).toBe('--(?|)')
    flush()
    late.forEach((settle) => settle(accepted))
    expect(counts).toMatchObject({ taken: 1, released: 1, accepted: 0, stale: 1 })
  })
  marbles('keeps the order of each when two are merged', ({ hot, expectObservable }) => {
    const [one, two] = [intake<string>({ window: 1 }), intake<string>({ window: 1 })]
    expectObservable(merge(one.deliveries, two.deliveries).pipe(settleAfter(3))).toBe('ax-by')
    expectObservable(callers(hot('ab'), one)).toBe('  ---a--b')
    expectObservable(callers(hot('-x-y'), two)).toBe('----x--y')
  })
  marbles('serves a caller that waits for each answer before the next', ({ expectObservable }) => {
    const door = intake<string>({ window: 9 })
    expectObservable(door.deliveries.pipe(settleAfter(2))).toBe('                                                     a--b--c')
    expectObservable(from(['a', 'b', 'c']).pipe(concatMap((value) => door.offer(value).pipe(told(value), delay(1))))).toBe('---a--b--(c|)')
  })

  it('serves 100,000 callers in line in order, without nesting', () => {
    for (const window of [1, 100]) {
      const door = intake<number>({ window })
      const seen: number[] = []
      const answered: number[] = []
      let depth = 0
      let deepest = 0
      for (let n = 0; n < 100_000; n += 1) door.offer(n).subscribe(() => answered.push(n))
      door.deliveries.subscribe(({ value, settle }) => {
        depth += 1
        deepest = Math.max(deepest, depth)
        seen.push(value)
        settle(accepted)
        depth -= 1
      })
      expect(deepest).toBe(1)
      expect([seen.length, answered.length]).toEqual([100_000, 100_000])
      expect(seen.every((value, i) => value === i) && answered.every((value, i) => value === i)).toBe(true)
    }
  })
})
