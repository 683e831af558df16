import { asyncScheduler, defer, delay, finalize, NEVER, of, throwError, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { linkOf, newBooks } from '../../src/books.js'
import type { Books } from '../../src/books.js'
import type { Inspection, InspectedQueue } from '../../src/connections/queue-inspector.js'
import { health } from '../../src/health.js'
import { watchQueues } from '../../src/pipelines/watch-queues.js'
import type { Arguments } from '../../src/queue-problems.js'
import { defaults } from '../../src/settings.js'
import type { Settings } from '../../src/settings.js'

const settings = { ...defaults('d'), amqpUrl: ['amqp://x'] } as Settings
const looked = (given: Arguments): InspectedQueue => ({ kind: 'seen', queue: 'publicQueue', serverVersion: '3.10.8', flags: [], arguments: given })
const limited = looked({ 'x-max-length': 100 })
const plain = looked({})
const missing: InspectedQueue = { kind: 'missing', queue: 'publicQueue' }
const inspection = (...queues: readonly InspectedQueue[]): Inspection => ({ serverVersion: '3.10.8', queues })

afterEach(() => vi.restoreAllMocks())
const roads = (books: Books) => health(books, { accepts: { links: ['rabbitmq'], pipeline: 'ingest', patienceMs: 1 } })

interface Seen {
  /** When each look began, in seconds. */
  readonly looks: number[]
  readonly log: string[]
  readonly books: Books
  readonly reasons: () => readonly string[]
}

type Change = (books: Books, connect: (name?: string) => void) => void

/** Runs the watch for so many seconds of virtual time, with looks by script; the last one is repeated. */
const watch = (seconds: number, script: readonly (() => Observable<Inspection>)[], change: Change): Seen => {
  const books = newBooks(0)
  const looks: number[] = []
  const log: string[] = []
  const say = (level: string) => (_fields: object, text: string): void => void log.push(`${level} ${text}`)
  const time = new TestScheduler(() => undefined)
  time.run(({ expectObservable }) => {
    const connect = (name = 'rabbitmq'): void => {
      Object.assign(linkOf(books, name), { state: 'connected', since: time.now() })
    }
    change(books, connect)
    const inspectQueues = (): Observable<Inspection> =>
      defer(() => {
        looks.push(Math.round(time.now() / 1000))
        return (script[Math.min(looks.length, script.length) - 1] ?? (() => NEVER))()
      })
    const parts = { books, log: { error: say('error'), warn: say('warn'), info: say('info'), debug: say('debug') }, ports: { inspectQueues } }
    expectObservable(watchQueues(settings, parts), `${seconds}s !`)
  })
  return { looks, log, books, reasons: () => roads(books).readiness(0).reasons }
}
const at = (seconds: number, act: () => void): void => void timer(seconds * 1000).subscribe(() => act())

describe('the watch over RabbitMQ’s queues', () => {
  it('looks as soon as RabbitMQ is connected, and again within a minute', () => {
    const { looks } = watch(200, [() => of(inspection(plain))], (_books, connect) => at(10.5, connect))
    expect(looks[0]).toBe(11)
    expect(looks.length).toBeGreaterThan(3)
    for (const [i, second] of looks.slice(1).entries()) expect(second - (looks[i] as number)).toBeLessThanOrEqual(37)
  })
  it('does not look while RabbitMQ is away, and raises no alarm for that', () => {
    const { looks, books } = watch(300, [() => of(inspection(limited))], () => undefined)
    expect([looks, [...books.queueProblems]]).toEqual([[], []])
  })
  it('looks at each connect, for it may be another RabbitMQ', () => {
    const { looks } = watch(40, [() => of(inspection(plain))], (_books, connect) => {
      at(1, connect)
      at(7.5, connect)
      at(20.5, () => connect('rabbitmq-consume'))
    })
    expect(looks).toEqual([1, 8, 21])
  })
  it('an alarm stands in readiness and in the books within a minute, is told once, and goes when the queue has healed', () => {
    const within: unknown[] = []
    const healed = watch(200, [() => of(inspection(plain)), () => of(inspection(limited)), () => of(inspection(limited)), () => of(inspection(plain))], (books, connect) => {
      at(0, connect)
      at(60, () => within.push(books.queueProblems.get('publicQueue'), roads(books).readiness(0)))
    })
    const text = 'publicQueue: drops its oldest messages beyond 100 messages (argument x-max-length 100, overflow drop-head)'
    expect(within).toMatchObject([[{ severity: 'alarm', kind: 'max-length' }], { ready: false, reasons: [text] }])
    expect(healed.log.map((line) => line.slice(0, 38))).toEqual(['error publicQueue drops its oldest mes', 'info healed: publicQueue drops its old'])
    expect([healed.reasons(), healed.books.queueProblems.get('publicQueue')]).toEqual([[], []])
  })
  it('never looks twice at once, and gives up a look that takes too long', () => {
    let most = 0
    let out = 0
    const slow = (): Observable<Inspection> => {
      most = Math.max(most, (out += 1))
      return NEVER.pipe(finalize(() => (out -= 1)))
    }
    const { looks } = watch(200, [slow], (_books, connect) => {
      for (const second of [1, 3, 5, 7]) at(second, connect)
    })
    expect(most).toBe(1)
    expect(looks.length).toBeGreaterThan(2)
    for (const [i, second] of looks.slice(1).entries()) expect(second - (looks[i] as number)).toBeLessThanOrEqual(58)
  })
  it('looks again soon after a look that failed, or did not find the queue', () => {
    const failing = watch(30, [() => throwError(() => new Error('away')), () => of(inspection(missing)), () => of(inspection(plain))], (_books, connect) => at(0, connect))
    expect(failing.looks).toEqual([0, 2, 6])
    expect(failing.log).toEqual(['debug the queues could not be looked at'])
  })
  it('keeps an alarm while RabbitMQ is away, until the queue is seen to be well', () => {
    const { books } = watch(100, [() => of(inspection(limited)), () => throwError(() => new Error('away'))], (_books, connect) => at(0, connect))
    expect(books.queueProblems.get('publicQueue')).toHaveLength(1)
  })
  it('tells once that policies are not visible, and raises no alarm for that', () => {
    const blind = (): Observable<Inspection> => of({ ...inspection(plain), policiesUnseen: 'rabbitmqctl is not installed here' })
    const { log, reasons } = watch(200, [blind], (_books, connect) => at(0, connect))
    expect(log).toEqual(['info not everything that may drop messages in RabbitMQ is visible'])
    expect(reasons()).toEqual([])
  })
  it('warnings are told, and no alarm', () => {
    const refusing = looked({ 'x-max-length': 100, 'x-overflow': 'reject-publish' })
    const { log, reasons } = watch(100, [() => of(inspection(refusing))], (_books, connect) => at(0, connect))
    expect(log.map((line) => line.slice(0, 24))).toEqual(['warn publicQueue refuses'])
    expect(reasons()).toEqual([])
  })
  it('a clock that is set back does not put the next look off', () => {
    const real = asyncScheduler.now.bind(asyncScheduler)
    vi.spyOn(asyncScheduler, 'now').mockImplementation(() => (real() >= 20_000 ? real() - 3_600_000 : real()))
    const { looks } = watch(130, [() => of(inspection(plain)).pipe(delay(10))], (_books, connect) => at(0, connect))
    expect(looks).toEqual([0, 55, 90, 125])
  })
})
