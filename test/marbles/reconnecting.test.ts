import { concat, map, of, throwError } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted } from '../../src/delivery.js'
import type { Delivery } from '../../src/delivery.js'
import { reconnect } from '../../src/connections/reconnect.js'
import type { LinkState } from '../../src/connections/reconnect.js'
import { batch } from '../../src/operators/batch.js'
import { intake } from '../../src/sources/intake.js'
import { marbles, settleAfter } from './marbles.js'

const shown = map((writer: string | undefined) => writer ?? 'x')
const steady = { firstMs: 2, maxMs: 8, jitter: 0 }

describe('reconnect', () => {
  marbles('gives what an attempt gives, tells its loss, and tries again after ever longer rests', ({ cold, expectObservable, expectSubscriptions }) => {
    const attempt = cold('-w#')
    expectObservable(reconnect(() => attempt, steady).pipe(shown), '19ms !').toBe('-wx--wx----wx')
    expectSubscriptions(attempt.subscriptions).toBe(['^-!', '----^-!', '----------^-!'])
  })
  marbles('rests no longer than its longest', ({ cold, expectObservable }) => {
    expectObservable(reconnect(() => cold('#'), steady).pipe(shown), '25ms !').toBe('x-x---x-------x-------x')
  })
  marbles('begins anew with short rests once an attempt has proved itself, and not when it only opened', ({ cold, expectObservable }) => {
    let turn = 0
    const attempt = (proven: () => void) => {
      turn += 1
      if (turn === 3) proven()
      return cold('w#')
    }
    expectObservable(reconnect(attempt, steady).pipe(shown), '16ms !').toBe('wx-wx---wx-wx')
  })
  marbles('begins anew with short rests, too, once an attempt was open for as long as the longest rest', ({ cold, expectObservable }) => {
    expectObservable(reconnect(() => cold('w-------#'), steady).pipe(shown), '25ms !').toBe('w-------x-w-------x-w----')
    expectObservable(reconnect(() => cold('w------#'), steady).pipe(shown), '25ms !').toBe('w------x-w------x---w----')
  })
  marbles('takes an end for a loss, and stays away as long as the error asks', ({ cold, expectObservable }) => {
    let turn = 0
    const attempts = [cold('w|'), concat(of('v'), throwError(() => Object.assign(new Error('no'), { retryAfterMs: 12 })))]
    expectObservable(reconnect(() => attempts[turn++] ?? cold('u'), steady).pipe(shown), '30ms !').toBe('wx-(vx)--------u')
  })
  marbles('is one attempt for all, replays the last, and ends it when the last one leaves', ({ cold, expectObservable, expectSubscriptions }) => {
    const attempt = cold('w---------')
    const connection = reconnect(() => attempt, steady).pipe(shown)
    expectObservable(connection, '-----!').toBe('w')
    expectObservable(connection, '---^----!').toBe('---w')
    expectSubscriptions(attempt.subscriptions).toBe('^-------!')
  })
  it('tells its states', () => {
    const states: LinkState['kind'][] = []
    reconnect(() => concat(of('w'), throwError(() => new Error('gone'))), { onState: ({ kind }) => states.push(kind) }).subscribe().unsubscribe()
    expect(states).toEqual(['connected', 'lost'])
  })
})

describe('batch', () => {
  const joined = map((parts: readonly string[]) => parts.join(''))
  marbles('joins up to its size at once, and the rest after its time; the answer is the answer for each part', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc-----')
    rows([settled, '                    -(ab)-c'])
    expectObservable(deliveries.pipe(batch(2, 4), settleAfter(0), joined)).toBe('-p----q', { p: 'ab', q: 'c' })
  })
  marbles('gives what it has when its source ends', ({ source, expectObservable }) => {
    expectObservable(source('a|').deliveries.pipe(batch(5, 99), settleAfter(0), joined)).toBe('99ms (a|)')
  })
})

describe('intake', () => {
  it('admits from its line only when there is room, and turns away what waits when it is stopped or was never opened', () => {
    const door = intake<string>({ window: 1 })
    const out: Delivery<string>[] = []
    const answers: string[] = []
    const running = door.deliveries.subscribe((delivery) => out.push(delivery))
    for (const value of ['a', 'b', 'c']) door.offer(value).subscribe(({ kind }) => answers.push(`${value} ${kind}`))
    expect(out.map(({ value }) => value)).toEqual(['a'])
    expect(door.full()).toBe(true)
    out[0]?.settle(accepted)
    expect(out.map(({ value }) => value)).toEqual(['a', 'b'])
    running.unsubscribe()
    expect(answers).toEqual(['a accepted', 'c released', 'b released'])
    door.offer('d').subscribe((outcome) => answers.push(`d ${JSON.stringify(outcome)}`))
    expect(answers.at(-1)).toBe('d {"kind":"released","maybeSent":false}')
    const stopped = intake<string>({ window: 1, stop: of(true) })
    stopped.offer('e').subscribe(({ kind }) => answers.push(`e ${kind}`))
    stopped.deliveries.subscribe()
    expect(answers.at(-1)).toBe('e released')
  })
})
