import { of, Subject, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import type { Delivery } from '../../src/delivery.js'
import { accepted, rejected, released } from '../../src/delivery.js'
import { ledger, newCounts } from '../../src/ledger.js'
import { marbles, settleAfter } from './marbles.js'

describe('ledger', () => {
  marbles('gives nothing for an empty source, and completes', ({ source, expectObservable }) => {
    expectObservable(source('|').deliveries).toBe('|')
  })
  marbles('waits as long as its source does', ({ source, expectObservable }) => {
    expectObservable(source('-').deliveries).toBe('-')
  })
  marbles('completes after its source has ended and the last delivery is settled', ({ source, expectObservable, rows }) => {
    const { deliveries, settled } = source('a-b|')
    rows([settled, '----a-b'])
    expectObservable(deliveries.pipe(settleAfter(4))).toBe('a-b---|')
  })
  marbles('passes an error of its far end on', ({ source, expectObservable }) => {
    expectObservable(source('a-#').deliveries.pipe(settleAfter(0))).toBe('a-#')
  })
  marbles('never has more outside than its window: demand follows settlement', ({ source, expectObservable, rows, flush }) => {
    const { deliveries, settled, most } = source('abcd', { window: 2 })
    rows([settled, '---ab-cd'])
    expectObservable(deliveries.pipe(settleAfter(3))).toBe('ab-cd')
    flush()
    expect(most()).toBe(2)
  })
  marbles('takes nothing after stop, and completes with the last settlement', ({ source, hot, expectObservable, rows }) => {
    const { deliveries, settled } = source('a-b-c-d', { stop: hot('---s') })
    rows([settled, '----a-b'])
    expectObservable(deliveries.pipe(settleAfter(4))).toBe('a-b---|')
  })
  marbles('completes at once when it is stopped with nothing outside', ({ source, hot, expectObservable }) => {
    expectObservable(source('a------', { stop: hot('---s') }).deliveries.pipe(settleAfter(1))).toBe('a--|')
  })
  marbles('releases everything unsettled when it is unsubscribed', ({ source, expectObservable, rows, flush }) => {
    const { deliveries, settled, counts } = source('abc')
    rows([settled, '-----(***)'])
    expectObservable(deliveries.pipe(settleAfter(90)), '-----!').toBe('abc')
    flush()
    expect(counts).toMatchObject({ taken: 3, accepted: 0, released: 3, unsettled: 0 })
  })
  marbles('counts an answer that comes after the cancel as stale, and sends it nowhere', ({ source, expectObservable, flush }) => {
    const out: Delivery<string>[] = []
    const { deliveries, counts } = source('ab')
    expectObservable(deliveries.pipe(tap((delivery) => out.push(delivery))).pipe(settleAfter(90)), '---!').toBe('ab')
    flush()
    out.forEach(({ settle }) => settle(accepted))
    expect(counts).toMatchObject({ accepted: 0, released: 2, stale: 2 })
  })
})

/** A far end that is called by hand. */
const byHand = (window = 10, stop?: Observable<unknown>) => {
  const counts = newCounts()
  const told: string[] = []
  const out: Delivery<string>[] = []
  let take: (value: string) => boolean = () => false
  let room = () => 0
  let disown = () => {}
  let done = false
  const subscription = ledger<string, string>(
    (book) => {
      take = (value) => book.take(value, value)
      room = book.room
      disown = book.disown
      return {
        settled: (tag, { kind }) => told.push(`${tag} ${kind}`),
        idle: () => told.push('idle'),
        stop: () => told.push('stop'),
        close: () => told.push('close'),
      }
    },
    { window, counts, ...(stop === undefined ? {} : { stop }) },
  ).subscribe({ next: (delivery) => out.push(delivery), complete: () => (done = true) })
  return { counts, told, out, take: (value: string) => take(value), room: () => room(), disown: () => disown(), subscription, done: () => done }
}

describe('ledger, by hand', () => {
  it('counts the first answer alone', () => {
    const { out, take, told, counts } = byHand()
    take('a')
    out[0]?.settle(rejected('no', 'test'))
    out[0]?.settle(accepted)
    expect(told).toEqual(['a rejected', 'idle'])
    expect(counts).toMatchObject({ taken: 1, rejected: 1, accepted: 0, stale: 1, unsettled: 0 })
  })

  it('refuses what is beyond its window, and has room again after an answer', () => {
    const { out, take, room } = byHand(2)
    expect([take('a'), take('b'), take('c')]).toEqual([true, true, false])
    expect(room()).toBe(0)
    out[0]?.settle(accepted)
    expect(room()).toBe(1)
    expect(take('c')).toBe(true)
  })

  it('takes nothing new after a loss until everything that was outside has been answered', () => {
    const { out, take, disown, room, counts, told } = byHand(5)
    take('a')
    take('b')
    disown()
    expect(counts).toMatchObject({ taken: 2, released: 2, unsettled: 0 })
    expect([room(), take('c')]).toEqual([0, false])
    out[0]?.settle(accepted)
    expect(take('c')).toBe(false)
    out[1]?.settle(accepted)
    expect(told).toEqual(['idle'])
    expect(counts).toMatchObject({ accepted: 0, stale: 2 })
    expect([room(), take('a')]).toEqual([5, true])
  })

  it('closes once, after it has stopped', () => {
    const { subscription, told } = byHand()
    subscription.unsubscribe()
    subscription.unsubscribe()
    expect(told).toEqual(['stop', 'close'])
  })

  it('tells its far end nothing after it has closed, and has no room any more', () => {
    const { subscription, told, take, out, counts } = byHand()
    take('a')
    subscription.unsubscribe()
    out[0]?.settle(accepted)
    expect([told, counts.stale]).toEqual([['stop', 'close'], 1])
    const idle = byHand()
    idle.subscription.unsubscribe()
    expect(idle.room()).toBe(0)
  })

  it('does not throw into the pipeline when its far end cannot be told', () => {
    const counts = newCounts()
    const out: Delivery<number>[] = []
    ledger<number>(
      (book) => {
        book.take(1, undefined)
        return {
          settled: () => {
            throw new Error('the channel is closed')
          },
          close: () => undefined,
        }
      },
      { window: 1, counts },
    ).subscribe((delivery) => out.push(delivery))
    expect(() => out[0]?.settle(released(false))).not.toThrow()
    expect(counts.stale).toBe(1)
  })

  it('gives out a synchronous source of 100,000 in order, without nesting, while each is settled at once', () => {
    const seen: number[] = []
    let depth = 0
    let deepest = 0
    let next = 0
    ledger<number>(
      (book) => {
        const give = (): void => {
          while (next < 100_000 && book.room() > 0) book.take(next++, undefined)
          if (next === 100_000) book.end()
        }
        give()
        return { settled: give, close: () => undefined }
      },
      { window: 10 },
    ).subscribe(({ value, settle }) => {
      depth += 1
      deepest = Math.max(deepest, depth)
      seen.push(value)
      settle(accepted)
      depth -= 1
    })
    expect(seen).toHaveLength(100_000)
    expect(seen.every((value, i) => value === i)).toBe(true)
    expect(deepest).toBe(1)
  })

  it('is stopped by the first sign of stop, and completes when the last answer is in', () => {
    const stop = new Subject<void>()
    const { out, take, told, done } = byHand(10, stop)
    take('a')
    stop.next()
    stop.next()
    expect([take('b'), done()]).toEqual([false, false])
    out[0]?.settle(accepted)
    expect(done()).toBe(true)
    expect(told).toEqual(['stop', 'a accepted', 'idle', 'close'])
  })

  it('never opens its far end when it was stopped before', () => {
    let opened = false
    let done = false
    ledger(() => ((opened = true), { settled: () => undefined, close: () => undefined }), { window: 1, stop: of('now') }).subscribe({ complete: () => (done = true) })
    expect([opened, done]).toEqual([false, true])
  })

  it('tells its far end of an answer to what it gave while it opened', () => {
    const told: string[] = []
    ledger<string, string>(
      (book) => {
        book.take('a', 'a')
        return { settled: (tag, { kind }) => told.push(`${tag} ${kind}`), close: () => undefined }
      },
      { window: 1 },
    ).subscribe(({ settle }) => settle(accepted))
    expect(told).toEqual(['a accepted'])
  })

  it('may be stopped while a far end opens that has nothing to stop', () => {
    const stop = new Subject<void>()
    const counts = newCounts()
    const opened = () => (stop.next(), { settled: () => undefined, close: () => undefined })
    ledger(opened, { window: 1, stop, counts }).subscribe()
    expect(counts.stale).toBe(0)
  })

  it('stops its far end when it was stopped while that opened', () => {
    const stop = new Subject<void>()
    const told: string[] = []
    ledger<number>(
      (book) => {
        book.take(1, undefined)
        stop.next()
        expect(book.take(2, undefined)).toBe(false)
        return { settled: () => undefined, stop: () => told.push('stop'), close: () => told.push('close') }
      },
      { window: 2, stop },
    ).subscribe()
    expect(told).toEqual(['stop'])
  })

  it('takes an error of stop for stop', () => {
    const stop = new Subject<void>()
    const { told, done } = byHand(2, stop)
    stop.error(new Error('odd'))
    expect([told, done()]).toEqual([['stop', 'close'], true])
  })

  it('gives nothing that was lost before it was seen, and takes it again after the loss', () => {
    const seen: string[] = []
    let book: { take: (value: string) => boolean; disown: () => void } | undefined
    const counts = newCounts()
    let told = 0
    ledger<string>(
      (opened) => {
        book = { take: (value) => opened.take(value, undefined), disown: opened.disown }
        return { settled: () => (told += 1), close: () => undefined }
      },
      { window: 9, counts },
    ).subscribe(({ value, settle }) => {
      seen.push(value)
      if (value === 'a') {
        book?.take('b')
        book?.disown()
        expect(book?.take('c')).toBe(false)
      }
      settle(accepted)
    })
    book?.take('a')
    expect([seen, told]).toEqual([['a'], 0])
    expect(counts).toMatchObject({ taken: 2, released: 2, unsettled: 0 })
    expect([book?.take('a'), book?.take('b')]).toEqual([true, true])
  })

  it('takes nothing after it was unsubscribed, also in the middle of an emission', () => {
    let take: (value: number) => boolean = () => false
    const counts = newCounts()
    const seen: number[] = []
    const subscription = ledger<number>(
      (book) => {
        take = (value) => book.take(value, undefined)
        return { settled: () => undefined, close: () => undefined }
      },
      { window: 5, counts },
    ).subscribe(({ value }) => {
      seen.push(value)
      if (value === 1) take(2)
      subscription.unsubscribe()
    })
    take(1)
    expect(take(3)).toBe(false)
    expect(seen).toEqual([1])
    expect(counts).toMatchObject({ taken: 2, released: 2, unsettled: 0 })
  })
})
