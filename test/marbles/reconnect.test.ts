import { concat, EMPTY, map, NEVER, of, take, throwError } from 'rxjs'
import { describe, expect } from 'vitest'
import { reconnect } from '../../src/connections/reconnect.js'
import { marbles } from './kit.js'

const options = { firstMs: 3, maxMs: 12, jitter: 0 }
const lossAsX = map((value: string | undefined) => value ?? 'x')

describe('reconnect', () => {
  marbles('gives what the attempt gives, and a loss when it ends; then it tries again', ({ cold, expectObservable, expectSubscriptions }) => {
    const attempt = cold('w--|')
    expectObservable(reconnect(() => attempt, options).pipe(lossAsX), '---------------!').toBe('w--x--w--x-----w')
    expectSubscriptions(attempt.subscriptions).toBe(['^--!', '------^--!', '---------------(^!)'])
  })
  marbles('takes an error, a throw and an end alike', ({ expectObservable, flush }) => {
    const attempts = [
      () => throwError(() => new Error('refused')),
      () => EMPTY,
      () => {
        throw new Error('bad address')
      },
    ]
    const seen: string[] = []
    let count = 0
    const attempt = () => (attempts[count++ % 3] as () => typeof EMPTY)()
    const onState = (state: { kind: string; error?: unknown }) => seen.push(state.kind === 'lost' ? (state.error as Error).message : state.kind)
    expectObservable(reconnect<string>(attempt, { ...options, onState }).pipe(lossAsX), '----------!').toBe('x--x-----x')
    flush()
    expect(seen).toEqual(['refused', 'closed', 'bad address'])
  })
  marbles('waits longer each time, up to its longest, while no attempt is proven', ({ cold, expectObservable, expectSubscriptions }) => {
    const attempt = cold('#')
    expectObservable(reconnect(() => attempt, options).pipe(lossAsX), '34ms !').toBe('x--x-----x 11ms x 11ms x')
    expectSubscriptions(attempt.subscriptions).toBe(['(^!)', '---(^!)', '---------(^!)', '21ms (^!)', '33ms (^!)'])
  })
  marbles('is not impressed by a connection that opens happily: only proof resets the wait', ({ cold, expectObservable }) => {
    const opens = cold('w|')
    expectObservable(reconnect(() => opens, options).pipe(lossAsX), '20ms !').toBe('wx--wx-----wx')
  })
  marbles('begins with its shortest wait again after an attempt was proven', ({ cold, expectObservable }) => {
    let count = 0
    const attempt = (proven: () => void) => {
      count += 1
      return count === 3 ? concat(cold('w').pipe(take(1), map((value) => (proven(), value))), cold('-|')) : cold<string>('#')
    }
    expectObservable(reconnect(attempt, options).pipe(lossAsX), '-----------------!').toBe('x--x-----wx--x')
  })
  marbles('stays away as long as an error asks for', ({ expectObservable }) => {
    const wrong = Object.assign(new Error('no such user'), { retryAfterMs: 40 })
    expectObservable(reconnect(() => throwError(() => wrong), options).pipe(lossAsX), '50ms !').toBe('x 39ms x')
  })
  marbles('is shared: one attempt for all, the last value replayed', ({ cold, expectObservable, expectSubscriptions }) => {
    const attempt = cold('w')
    const connection = reconnect(() => attempt, options)
    expectObservable(connection, '-----!').toBe('w')
    expectObservable(connection, '--^----!').toBe('--w')
    expectSubscriptions(attempt.subscriptions).toBe('^------!')
  })
  marbles('begins anew for who comes after the last has left', ({ cold, expectObservable, expectSubscriptions }) => {
    const attempt = cold('-w')
    const connection = reconnect(() => attempt, options)
    expectObservable(connection, '---!').toBe('-w')
    expectObservable(connection, '-----^--!').toBe('------w')
    expectSubscriptions(attempt.subscriptions).toBe(['^--!', '-----^--!'])
  })
  marbles('makes no attempt after all have left, during a rest or in the moment of a loss', ({ cold, expectObservable, expectSubscriptions }) => {
    const [resting, losing] = [cold('#'), cold('w-#')]
    expectObservable(reconnect(() => resting, options).pipe(lossAsX), '-!').toBe('x')
    expectObservable(reconnect(() => losing, options).pipe(lossAsX, take(2))).toBe('w-(x|)')
    expectSubscriptions(resting.subscriptions).toBe('(^!)')
    expectSubscriptions(losing.subscriptions).toBe(' ^-!')
  })
  marbles('ends an attempt that gave its first value at once to one who wanted no more', ({ expectObservable, flush }) => {
    let open = 0
    const attempt = () => concat(of('w'), NEVER)
    const connection = reconnect(attempt, { ...options, onState: ({ kind }) => (open += kind === 'connected' ? 1 : 0) })
    expectObservable(connection.pipe(take(1))).toBe('(w|)')
    flush()
    expect(open).toBe(1)
  })
})
