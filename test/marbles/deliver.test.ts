import { EMPTY, from, map, NEVER, Observable, Subject, take, throwError, timer } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, Rejection } from '../../src/delivery.js'
import type { Delivery, Writer } from '../../src/delivery.js'
import { deliver } from '../../src/operators/deliver.js'
import { marbles } from './marbles.js'

const letters = map((receipt: { value: string; outcome: { kind: string } }) => (receipt.outcome.kind === 'accepted' ? receipt.value : receipt.value.toUpperCase()))
const sink = (options: Partial<Parameters<typeof deliver<string>>[1]> = {}) => ({ sink: 'test', retryMs: 5, ...options })

describe('deliver', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '--(a|)'], ['a--#', '--a#']] as const)
    marbles(`emits a receipt for each delivery, and ends as its source does: ${row}`, ({ source, far, expectObservable }) => {
      expectObservable(source(row).deliveries.pipe(deliver(far('w', { a: 2 }).connection, sink()), letters)).toBe(expected)
    })
  marbles('settles when the write completes, and not before', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('ab--')
    const { connection, writes } = far('w', { a: 3, b: 5 })
    rows([writes, '  ab    '])
    rows([settled, ' ---a--b'])
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('---a--b')
  })
  marbles('waits for a writer, then writes in order', ({ source, far, expectObservable, rows }) => {
    const { connection, writes } = far('-----w')
    rows([writes, '-----(abc)'])
    expectObservable(source('abc').deliveries.pipe(deliver(connection, sink()), letters)).toBe('------(abc)')
  })
  marbles('has at most its window written: demand follows confirms', ({ source, far, expectObservable, rows, flush }) => {
    const { connection, writes, most } = far('w', { a: 3, b: 3, c: 3, d: 3 })
    rows([writes, 'ab-cd'])
    expectObservable(source('abcd').deliveries.pipe(deliver(connection, sink({ window: 2 })), letters)).toBe('---ab-cd')
    flush()
    expect(most()).toBe(2)
  })
  marbles('counts the window in bytes as well, and lets one value always go', ({ source, far, expectObservable, rows }) => {
    const { connection, writes } = far('w', { a: 3, b: 3, c: 3 })
    const sizes: Record<string, number> = { a: 6, b: 6, c: 99 }
    rows([writes, 'a--b--c'])
    expectObservable(source('abc').deliveries.pipe(deliver(connection, sink({ windowBytes: 10, sizeOf: (value) => sizes[value] as number })), letters)).toBe('---a--b--c')
  })
  marbles('gets the bytes of an answered or a lost write back', ({ source, far, expectObservable, rows }) => {
    const options = sink({ windowBytes: 10, sizeOf: () => 5 })
    const [steady, lost] = [far('w', { a: 3, b: 3, c: 3, d: 3 }), far('w--x-v', { a: ['silent', 4], b: ['silent', 5] })]
    rows([steady.writes, 'ab-cd'])
    rows([lost.writes, '  ab---(ab)c'])
    expectObservable(source('abcd').deliveries.pipe(deliver(steady.connection, options), letters)).toBe('---ab-cd')
    expectObservable(source('abc').deliveries.pipe(deliver(lost.connection, options), letters)).toBe('   ---------a(bc)')
  })
  marbles('writes everything unconfirmed again, in order, before anything new, when the writer changes', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc------d', { unsettled: 'a' })
    const { connection, writes } = far('w----v', { a: 'silent', b: 2, c: ['silent', 1] })
    rows([writes, 'abc--(ac)d'])
    rows([settled, '---b--c---d'])
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('---b--c---d')
  })
  marbles('keeps the order through a loss with deliveries in flight, confirmed in another order', ({ source, far, expectObservable, rows }) => {
    const { connection, writes } = far('w--x---v', { a: ['silent', 5], c: ['silent', 1] })
    rows([writes, '                        abc----(acd)'])
    expectObservable(source('abc-d').deliveries.pipe(deliver(connection, sink()), letters)).toBe('--b-----(cd)a')
  })
  marbles('writes what was written and lost before what waited for the window', ({ source, far, expectObservable, rows }) => {
    const { connection, writes } = far('w---v', { a: ['silent', 9], b: ['silent', 9] })
    rows([writes, '                        ab--(ab)'])
    expectObservable(source('abc').deliveries.pipe(deliver(connection, sink({ window: 2 })), letters), '-------!').toBe('')
  })
  marbles('ignores a confirm for a write of a writer that is gone', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('a')
    const { connection, writes } = far('w-x--v', { a: [3, 4] })
    rows([writes, '  a----a'])
    rows([settled, ' ---------a'])
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('---------a')
  })
  marbles('takes a failed write for the connection’s fault: rests, then writes all of it again', ({ source, far, expectObservable, rows }) => {
    const { connection, writes } = far('w', { a: 'silent', b: ['failed', 1], c: 1 })
    rows([writes, '                                                          ab----(abc)'])
    expectObservable(source('abc', { unsettled: 'a' }).deliveries.pipe(deliver(connection, sink()), letters)).toBe('-------(bc)')
  })
  marbles('does not rest when a new writer comes sooner', ({ source, far, expectObservable, rows }) => {
    const { connection, writes } = far('w--v', { a: ['failed', 1] })
    rows([writes, 'a--a'])
    expectObservable(source('a').deliveries.pipe(deliver(connection, sink()), letters)).toBe('----a')
  })
  marbles('rejects what the writer refuses, and that alone', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc')
    const { connection, writes } = far('w', { a: 3, b: 'refused', c: 1 })
    rows([writes, ' abc'])
    rows([settled, '-B-(ac)'])
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('-B-(ac)')
  })
  marbles('tells attempts, duration and what completion means', ({ source, far, expectObservable, flush }) => {
    const receipts: object[] = []
    expectObservable(
      source('--a')
        .deliveries.pipe(deliver(far('w---v', { a: ['silent', 2] }).connection, sink({ state: 'sent' })))
        .pipe(map((receipt) => (receipts.push(receipt), 'r'))),
    ).toBe('------r')
    flush()
    expect(receipts).toEqual([{ sink: 'test', value: 'a', outcome: { kind: 'accepted' }, attempts: 2, durationMs: 4, state: 'sent' }])
  })
  marbles('completes after the last settlement, when its source was stopped', ({ source, far, hot, expectObservable }) => {
    expectObservable(source('a-b-c', { stop: hot('---s') }).deliveries.pipe(deliver(far('w', { a: 6, b: 6 }).connection, sink()), letters)).toBe('------a-(b|)')
  })
  marbles('completes after the last settlement, also when its source has ended long before', ({ hot, far, expectObservable }) => {
    const { connection } = far('w', { a: 4, b: 6 })
    const deliveries = hot('ab|').pipe(map((value): Delivery<string> => ({ value, settle: () => undefined })))
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('----a--(b|)')
  })
  marbles('completes after what waited for the window too', ({ hot, far, expectObservable }) => {
    const { connection } = far('w', { a: 4, b: 2 })
    const deliveries = hot('ab|').pipe(map((value): Delivery<string> => ({ value, settle: () => undefined })))
    expectObservable(deliveries.pipe(deliver(connection, sink({ window: 1 })), letters)).toBe('----a-(b|)')
  })
  marbles('passes an error of its connection on', ({ cold, expectObservable }) => {
    expectObservable(NEVER.pipe(deliver(cold<never>('--#'), sink()))).toBe('--#')
  })
  marbles('asks the far end for no more than its window: the third write begins when the first is confirmed', ({ source, far, expectObservable, flush }) => {
    const { connection, demand } = far('w', { a: 3, b: 4, c: 2 })
    expectObservable(source('abc').deliveries.pipe(deliver(connection, sink({ window: 2 })), letters)).toBe('---a-(bc)')
    flush()
    expect([demand('a'), demand('b'), demand('c')]).toEqual([
      [{ subscribedFrame: 0, unsubscribedFrame: 3 }],
      [{ subscribedFrame: 1, unsubscribedFrame: 5 }],
      [{ subscribedFrame: 3, unsubscribedFrame: 5 }],
    ])
  })
  marbles('ends the writes of a writer that is lost, at its loss', ({ source, far, expectObservable, flush }) => {
    const { connection, demand } = far('w--x--v', { a: ['silent', 2] })
    expectObservable(source('a').deliveries.pipe(deliver(connection, sink()), letters)).toBe('--------a')
    flush()
    expect(demand('a')).toEqual([
      { subscribedFrame: 0, unsubscribedFrame: 3 },
      { subscribedFrame: 6, unsubscribedFrame: 8 },
    ])
  })
  marbles('writes all of it again, in order, when the writer is lost again before it confirmed', ({ source, far, expectObservable, rows }) => {
    const { deliveries, settled } = source('abc')
    const silent = ['silent', 'silent', 1] as const
    const { connection, writes } = far('w--x-w------xv', { a: silent, b: silent, c: silent })
    rows([writes, '                        abc--(abc)---(abc)'])
    rows([settled, '                    --------------(abc)'])
    expectObservable(deliveries.pipe(deliver(connection, sink()), letters)).toBe('--------------(abc)')
  })
  marbles('ends its writes and settles nothing when it is unsubscribed: the source releases', ({ source, far, expectObservable, rows, flush }) => {
    const { deliveries, settled, counts } = source('ab')
    rows([settled, '---(**)'])
    expectObservable(deliveries.pipe(deliver(far('w', { a: 'silent', b: 'silent' }).connection, sink()), letters), '---!').toBe('')
    flush()
    expect(counts).toMatchObject({ taken: 2, released: 2, accepted: 0 })
  })

  marbles('does not rest when a failing write brings the new writer by itself', ({ expectObservable, hot }) => {
    const connection = new Subject<Writer<string> | undefined>()
    const good: Writer<string> = () => timer(1)
    const failing: Writer<string> = () => (connection.next(good), throwError(() => new Error('lost')))
    const deliveries = hot('-a').pipe(map((value): Delivery<string> => ({ value, settle: () => undefined })))
    const receipts = new Observable<string>((subscriber) => {
      subscriber.add(deliveries.pipe(deliver(connection, sink({ retryMs: 50 })), letters).subscribe(subscriber))
      connection.next(failing)
    })
    expectObservable(receipts).toBe('--a')
  })
})

describe('deliver, with a writer by hand', () => {
  const given = (count: number) => {
    const log: string[] = []
    const deliveries = new Subject<Delivery<number>>()
    const all = Array.from({ length: count }, (_, n): Delivery<number> => ({ value: n, settle: ({ kind }) => log.push(`${n} ${kind}`) }))
    return { log, deliveries, give: () => all.forEach((one) => deliveries.next(one)) }
  }

  it('writes nothing after it was unsubscribed in the middle of its writes', () => {
    const { deliveries, give } = given(4)
    const connection = new Subject<Writer<number> | undefined>()
    const wrote: number[] = []
    deliveries.pipe(deliver(connection, { sink: 'test' }), take(1)).subscribe()
    give()
    connection.next((value) => (wrote.push(value), EMPTY))
    expect(wrote).toEqual([0])
  })
  it('ignores a confirm that comes with the loss of its writer, and writes again', () => {
    const { log, deliveries, give } = given(1)
    const connection = new Subject<Writer<number> | undefined>()
    deliveries.pipe(deliver(connection, { sink: 'test' })).subscribe()
    connection.next(() => new Observable((subscriber) => (connection.next(undefined), subscriber.complete())))
    give()
    expect(log).toEqual([])
    connection.next(() => EMPTY)
    expect(log).toEqual(['0 accepted'])
  })
  it('takes a writer that throws for one whose write failed, or was refused', () => {
    const { log, deliveries, give } = given(1)
    const connection = new Subject<Writer<number> | undefined>()
    deliveries.pipe(deliver(connection, { sink: 'test' })).subscribe()
    give()
    let tries = 0
    connection.next(() => {
      tries += 1
      if (tries > 9) return NEVER
      throw new Error('closed')
    })
    expect([log, tries], 'it rests').toEqual([[], 1])
    connection.next(() => {
      throw new Rejection('too large')
    })
    expect(log).toEqual(['0 rejected'])
  })
  it('writes 5,000 that waited and are confirmed at once in order, without nesting', () => {
    let depth = 0
    let deepest = 0
    let answers = 0
    const wrote: number[] = []
    const writer: Writer<number> = (value) =>
      new Observable((subscriber) => {
        depth += 1
        deepest = Math.max(deepest, depth)
        wrote.push(value)
        subscriber.complete()
        depth -= 1
      })
    const connection = new Subject<Writer<number> | undefined>()
    const deliveries = from(Array.from({ length: 5000 }, (_, value): Delivery<number> => ({ value, settle: ({ kind }) => (answers += kind === accepted.kind ? 1 : 0) })))
    deliveries.pipe(deliver(connection, { sink: 'test' })).subscribe()
    connection.next(writer)
    expect([deepest, answers]).toEqual([1, 5000])
    expect(wrote.every((value, i) => value === i)).toBe(true)
  })
})
