/** The kit itself: what it says when a run is not as expected. */
import { map, Observable, of, throwError, timer } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted } from '../../src/delivery.js'
import type { Sink } from '../../src/delivery.js'
import { deliver } from '../../src/operators/deliver.js'
import { each } from '../../src/operators/each.js'
import { marbles } from '../../src/testing.js'
import type { Marbles } from '../../src/testing.js'

/** What a failed run says. */
const failure = (body: (m: Marbles) => void): string => {
  try {
    marbles(body)
  } catch (error) {
    return (error as Error).message
  }
  throw new Error('it did not fail')
}
const lines = (text: string): string[] => text.split('\n').map((line) => line.trimEnd())

describe('a run that is not as expected', () => {
  it('shows all rows aligned, expected above actual, with a mark at the first difference, and then the timeline', () => {
    const message = failure(({ source, far, run, rows }) => {
      const { deliveries, settled } = source('a-b')
      const { connection, writes } = far('w---x--v', { b: ['silent', 1] })
      const receipts = run(deliveries.pipe(deliver(connection, { sink: 'far' })))
      rows([writes, 'a-b----b'], [settled, '-a----b'], [receipts, '-a------b'])
    })
    expect(lines(message)).toEqual([
      'the rows are not as expected (a letter, a dash or a group is 1 ms)',
      '  source                    a-b------',
      '  far                       w---x--v-',
      '  far.writes                a-b----b-',
      '  source.settled  expected  -a----b--',
      '                  actual    -a------b',
      '                                  ▲',
      '  run                       -a------b',
      '',
      '     0 ms  source  gives a',
      '     0 ms  far     is connected',
      '     0 ms  far     a is written',
      '     1 ms  far     a is confirmed',
      '     1 ms  source  a is accepted',
      '     2 ms  source  gives b',
      '     2 ms  far     b is written',
      '     4 ms  far     is lost',
      '     4 ms  far     b is taken back unconfirmed',
      '     7 ms  far     is connected',
      '     7 ms  far     b is written, for the 2nd time',
      '     8 ms  far     b is confirmed',
      '     8 ms  source  b is accepted',
    ])
  })
  it('keeps frames in one column beside groups and long gaps', () => {
    const message = failure(({ source, far, run, rows }) => {
      const { deliveries, settled } = source('(ab) 996ms c')
      run(deliveries.pipe(deliver(far('w').connection, { sink: 'far' })))
      rows([settled, '-(ab) 990ms c'])
    })
    expect(lines(message).slice(1, 6)).toEqual([
      '  source                    (ab)-    993ms -----c-',
      '  far                       w   -    993ms -------',
      '  source.settled  expected  -   (ab) 993ms c------',
      '                  actual    -   (ab) 993ms ------c',
      '                                           ▲',
    ])
  })
  it('shows demand as subscriptions', () => {
    const message = failure(({ source, far, run, rows }) => {
      const { connection, demand } = far('w--x--v', { a: ['silent', 2] })
      run(source('a').deliveries.pipe(deliver(connection, { sink: 'far' })))
      rows([demand('a'), ['^--!', '-----^-!']])
    })
    expect(lines(message).slice(3, 9)).toEqual([
      '  far.demand(a)  expected  ^--!-----',
      '                 actual    ^--!-----',
      '                           ' + ' '.repeat(9) + '▲',
      '  far.demand(a)  expected  -----^-!-',
      '                 actual    ------^-!',
      '                                ▲',
    ])
  })
  it('fails by what RxJS’s own helpers expect, too', () => {
    expect(failure(({ cold, expectObservable }) => expectObservable(cold('a-b|')).toBe('a--b|'))).toContain('observable  expected')
    expect(failure(({ cold, expectObservable, expectSubscriptions }) => {
      const row = cold('a|')
      expectObservable(row).toBe('a|')
      expectSubscriptions(row.subscriptions).toBe('^--!')
    })).toContain('^--!')
  })
  it('tells the timeline with an assertion that fails in the body', () => {
    expect(failure(({ source, far, run, flush }) => {
      run(source('a').deliveries.pipe(deliver(far('w').connection, { sink: 'far' })))
      flush()
      expect(1).toBe(2)
    })).toMatch(/expected 1 to be 2[^]*1 ms {2}source {2}a is accepted/)
  })
  it('fails by a pipeline that fails, when no row expects it', () => {
    const failing = ({ run }: Marbles) => run(throwError(() => new Error('broken')))
    expect(failure(failing)).toContain('a pipeline failed: Error: broken')
    expect(() => marbles((m) => m.rows([failing(m), '#']))).not.toThrow()
  })
  it('refuses a row that it did not give, and letters that a script does not know', () => {
    expect(failure(({ rows }) => rows([of('a') as never, 'a']))).toContain('rows: expected pairs')
    expect(failure(({ amqp }) => amqp('o--q'))).toBe("amqp: 'q' in 'o--q' is none of o x c b u !")
    expect(failure(({ pulsar }) => pulsar('o 10ms y'))).toContain("pulsar: 'y'")
  })
})

describe('an async body', () => {
  it('is refused', () => {
    const later = (() => Promise.resolve()) as unknown as (m: Marbles) => void
    expect(failure(later)).toContain('the body must not be async')
  })
})

describe('a delivery that is left unsettled', () => {
  const forgetful: Sink<string> = (source) =>
    new Observable((subscriber) => source.subscribe(({ value, settle }) => {
      if (value !== 'b') settle(accepted)
      else subscriber.next({ sink: 'forgetful', value, outcome: accepted, attempts: 1, durationMs: 0, state: 'confirmed' })
    }))

  it('fails the run by a sink that forgets one, and is named', () => {
    expect(failure(({ source, run }) => run(source('abc').deliveries.pipe(forgetful)))).toContain('  b is unsettled: given by source at 1 ms; seen by no far end')
  })
  it('is named with where it was last seen', () => {
    const message = failure(({ source, far, run }) => {
      run(source('abc').deliveries.pipe(deliver(far('w--x--v', { b: 'silent', c: 'silent' }).connection, { sink: 'far', window: 2 })))
    })
    expect(lines(message).slice(0, 3)).toEqual([
      'not as it should be at the end of the run',
      '  b is unsettled: given by source at 1 ms; far: b is written, for the 2nd time, at 6 ms',
      '  c is unsettled: given by source at 2 ms; far: c is written, for the 2nd time, at 6 ms',
    ])
  })
  it('is fine when the test says so, exactly so', () => {
    const silent = (unsettled: string) => ({ source, far, run }: Marbles) =>
      void run(source('ab', { unsettled }).deliveries.pipe(deliver(far('w', { b: 'silent' }).connection, { sink: 'far' })))
    expect(() => marbles(silent('b'))).not.toThrow()
    expect(failure(silent('ab'))).toContain('  a was expected to stay unsettled, and did not')
    expect(failure(silent(''))).toContain('  b is unsettled')
  })
  it('is named when a broker gave it', () => {
    expect(failure(({ amqp }) => amqp('o', {}, { unsettled: 'z' }))).toContain('z was expected to stay unsettled')
  })
  it('is told of promises, which do not run in virtual time', () => {
    expect(failure(({ source, far, run }) => {
      const step = each((value: string) => Promise.resolve(value))
      run(source('a').deliveries.pipe(step, deliver(far('w').connection, { sink: 'far' })))
    })).toContain('promises do not run in virtual time')
  })
})

describe('a run', () => {
  it('tells what happened, in words', () => {
    marbles(({ source, far, run, flush, timeline }) => {
      run(source('a').deliveries.pipe(deliver(far('w', { a: 'refused' }).connection, { sink: 'far' })))
      flush()
      expect(lines(timeline())).toEqual([
        '     0 ms  source  gives a',
        '     0 ms  far     is connected',
        '     0 ms  far     a is written',
        '     0 ms  far     a is refused',
        '     0 ms  source  a is rejected: refused (far)',
      ])
    })
  })
  it('gives values for letters, and the letters back wherever the values go', () => {
    const [cold, hot] = [{ celsius: 1 }, { celsius: 40 }]
    marbles(({ source, far, run, rows }) => {
      const { deliveries, settled } = source('ab', { values: { a: cold, b: hot } })
      const end = far<{ celsius: number; fahrenheit?: number }>('w')
      run(deliveries.pipe(each((value) => [{ ...value, fahrenheit: value.celsius * 1.8 + 32 }]), deliver(end.connection, { sink: 'far' })))
      rows([settled, '-ab'], [end.writes, 'ab', { a: { celsius: 1, fahrenheit: 33.8 }, b: { celsius: 40, fahrenheit: 104 } }])
    })
  })
  it('ends what retries for ever, and returns nothing: any test runner takes that', () => {
    let times = 0
    const result: unknown = marbles(({ run }) => run(timer(0, 10).pipe(map(() => (times += 1)))), { untilMs: 95 })
    expect([result, times]).toEqual([undefined, 10])
  })
  it('leaves chance as it was', () => {
    const { random } = Math
    marbles(() => expect(Math.random()).toBe(0))
    failure(() => {
      throw new Error('x')
    })
    expect(Math.random).toBe(random)
  })
  it('keeps what came before anybody listened, in order', () => {
    marbles(({ source, far, run, rows }) => {
      const { deliveries, settled } = source('abc')
      run(deliveries.pipe(deliver(far('w').connection, { sink: 'far' })), '--^')
      rows([settled, '---(abc)'])
    })
  })
})
