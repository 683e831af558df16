/** Both pipelines under random faults, in virtual time: each run is judged by the ten invariants. */
import fc from 'fast-check'
import { asyncScheduler, EMPTY, map, Observable, of, ReplaySubject, share, Subject, tap, timer } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { describe, expect, it } from 'vitest'
import { accepted, Rejection } from '../../src/delivery.js'
import type { Connection, Receipt, Writer } from '../../src/delivery.js'
import { ledger, newCounts } from '../../src/ledger.js'
import type { Message } from '../../src/message.js'
import { deliver } from '../../src/operators/deliver.js'
import { recent } from '../../src/operators/drop-repeats.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { forward } from '../../src/pipelines/forward.js'
import { ingest } from '../../src/pipelines/ingest.js'

const message = (n: number): Message => ({ id: `m${n}`, body: Buffer.from(`{"n":${n}}`), properties: {}, digest: `d${n}` })

/** A broker's queue: gives from its front, takes back in order what is released. */
const memoryQueue = (size: number) => {
  const waiting = Array.from({ length: size }, (_, n) => message(n))
  const outside = new Map<string, Message>()
  const seen = new Set<string>()
  const gone = new Map<string, string>()
  let most = 0
  const counts = newCounts()
  const read = ({ window, stop }: { window: number; stop: Observable<unknown> }) =>
    ledger<Message, Message>(
      (book) => {
        let again = false
        let stopped = false
        const give = (): void => {
          while (!stopped && !again && waiting.length > 0 && book.room() > 0) {
            const next = waiting.shift() as Message
            outside.set(next.id, next)
            seen.add(next.id)
            most = Math.max(most, outside.size)
            book.take(next, next)
          }
        }
        const takeBack = (): void => {
          waiting.unshift(...[...outside.values()].sort((x, y) => Number(x.id.slice(1)) - Number(y.id.slice(1))).map((one) => ({ ...one, redelivered: true })))
          outside.clear()
        }
        const start = timer(0).subscribe(give)
        return {
          settled: (one, { kind }) => {
            if (kind === 'accepted') {
              outside.delete(one.id)
              gone.set(one.id, kind)
            } else {
              again = true
              takeBack()
              book.disown()
            }
            give()
          },
          idle: () => {
            again = false
            give()
          },
          stop: () => (stopped = true),
          close: () => {
            start.unsubscribe()
            takeBack()
          },
        }
      },
      { window, stop, counts },
    )
  return { read, waiting, outside, seen, gone, counts, most: () => most }
}

interface Fault {
  readonly atMs: number
  readonly kind: 'lose' | 'open'
}

/** A far end that connects and is lost as scheduled, confirms late, refuses some for good, and fails some writes. */
const farEnd = (faults: readonly Fault[], { refuse, fail, slowMs }: { refuse: ReadonlySet<string>; fail: ReadonlySet<number>; slowMs: number }) => {
  const firsts: string[] = []
  const stored: string[] = []
  const confirmed = new Set<string>()
  const refused = new Set<string>()
  const underWay = new Set<string>()
  const overtaken: string[] = [] // written while an earlier one, unanswered, was not under way
  let writes = 0
  let latest = 0 // when the last write was begun
  const lost = new Subject<void>()
  const writer = (generation: { alive: boolean }): Writer<Message> => (value) =>
    new Observable((subscriber) => {
      writes += 1
      latest = asyncScheduler.now()
      const number = writes
      for (const id of firsts)
        if (Number(id.slice(1)) < Number(value.id.slice(1)) && !confirmed.has(id) && !refused.has(id) && !underWay.has(id)) overtaken.push(`${value.id} before ${id}`)
      if (!firsts.includes(value.id)) firsts.push(value.id)
      underWay.add(value.id)
      subscriber.add(() => underWay.delete(value.id))
      if (fail.has(number)) {
        subscriber.error(new Error('failed'))
        return
      }
      const sub = timer(slowMs * (1 + (number % 3))).subscribe(() => {
        if (!generation.alive) return
        if (refuse.has(value.id)) {
          refused.add(value.id)
          return subscriber.error(new Rejection('refused'))
        }
        stored.push(value.id)
        confirmed.add(value.id)
        subscriber.complete()
      })
      subscriber.add(sub)
    })
  const connection: Connection<Message> = new Observable<Writer<Message> | undefined>((subscriber) => {
    let generation = { alive: true }
    const open = (): void => {
      generation.alive = false
      generation = { alive: true }
      subscriber.next(writer(generation))
    }
    subscriber.add(timer(1).subscribe(open))
    for (const { atMs, kind } of faults)
      subscriber.add(
        timer(atMs).subscribe(() => {
          if (kind === 'open') return open()
          generation.alive = false
          lost.next()
          subscriber.next(undefined)
        }),
      )
    // In the end it is there: nothing may stall.
    subscriber.add(timer(400).subscribe(open))
  }).pipe(share({ connector: () => new ReplaySubject(1), resetOnRefCountZero: false }))
  return { connection, firsts, overtaken, stored, confirmed, latest: () => latest }
}

const schedule = fc.record({
  faults: fc.array(fc.record({ atMs: fc.integer({ min: 2, max: 300 }), kind: fc.constantFrom<'lose' | 'open'>('lose', 'open') }), { maxLength: 8 }),
  refuse: fc.uniqueArray(fc.integer({ min: 0, max: 29 }), { maxLength: 4 }),
  fail: fc.uniqueArray(fc.integer({ min: 1, max: 60 }), { maxLength: 5 }),
  slowMs: fc.integer({ min: 1, max: 30 }),
  window: fc.integer({ min: 1, max: 12 }),
  size: fc.integer({ min: 0, max: 30 }),
  stopAtMs: fc.option(fc.integer({ min: 1, max: 500 })),
  cancelAtMs: fc.option(fc.integer({ min: 1, max: 500 })),
})

const inOrder = (ids: readonly string[]): boolean => ids.every((id, i) => i === 0 || Number(id.slice(1)) > Number((ids[i - 1] as string).slice(1)))

describe('forward, under 3,000 random fault schedules', () => {
  it('keeps every invariant', () => {
    fc.assert(
      fc.property(schedule, ({ faults, refuse, fail, slowMs, window, size, stopAtMs, cancelAtMs }) => {
        const queue = memoryQueue(size)
        const far = farEnd(faults, { refuse: new Set(refuse.map((n) => `m${n}`)), fail: new Set(fail), slowMs })
        const dead: string[] = []
        const receipts: Receipt[] = []
        let completed: number | undefined
        let droppedCopies = 0
        const settledBeforeConfirm: string[] = []
        const scheduler = new TestScheduler(() => undefined)
        scheduler.run(({ flush }) => {
          scheduler.maxFrames = 20_000
          const stop = new Subject<void>()
          const running = forward({
            read: queue.read,
            far: far.connection,
            sink: (connection) => deliver(connection, { sink: 'pulsar', window, retryMs: 20 }),
            copies: [{ name: 'stuck', sink: deliver(new Observable(), { sink: 'copy' }) }],
            deadLetters: deliver(
              timer(5).pipe(map(() => ({ value }: DeadLetter<Message>) => timer(2).pipe(tap({ complete: () => dead.push(value.id) })))),
              { sink: 'dead' },
            ),
            recent: recent(),
            replays: { has: () => of(false), add: () => EMPTY },
            counted: { delivered: () => undefined, deadLettered: () => undefined, repeatDropped: () => undefined, copiesDropped: (_, count) => (droppedCopies += count) },
            window,
            patienceMs: 100,
            stop,
          }).subscribe({
            next: (receipt) => receipts.push(receipt),
            complete: () => (completed = asyncScheduler.now()),
          })
          if (stopAtMs !== null) timer(stopAtMs).subscribe(() => stop.next())
          if (cancelAtMs !== null) timer(cancelAtMs).subscribe(() => running.unsubscribe())
          timer(5000).subscribe(() => stop.next())
          timer(9000).subscribe(() => running.unsubscribe())
          flush()
        })
        for (const id of queue.gone.keys()) if (!far.confirmed.has(id) && !dead.includes(id)) settledBeforeConfirm.push(id)
        const { taken, accepted: done, rejected, released, unsettled, stale } = queue.counts
        expect(settledBeforeConfirm, 'accepted only after Pulsar or the dead letters have it').toEqual([])
        expect(queue.most(), 'the window').toBeLessThanOrEqual(window)
        expect(inOrder(far.firsts.filter((id, i, all) => all.indexOf(id) === i)), 'first come, first served').toBe(true)
        expect(far.overtaken, 'nothing overtakes').toEqual([])
        expect(taken, 'the books').toBe(done + rejected + released + unsettled)
        expect(unsettled, 'everything is released in the end').toBe(0)
        expect(queue.gone.size + queue.waiting.length, 'nothing is lost').toBe(size)
        expect(stale, 'one settlement each').toBe(0)
        expect(droppedCopies, 'every copy that the stuck sink never had is counted, once for each message').toBe(queue.seen.size)
        if (cancelAtMs === null) expect(completed, 'it completes').toBeLessThan(stopAtMs === null ? 6000 : stopAtMs + 3000)
        if (cancelAtMs !== null) expect(far.latest(), 'nothing is written after the cancel').toBeLessThanOrEqual(cancelAtMs)
        if (cancelAtMs === null && stopAtMs === null) expect(queue.gone.size, 'nothing stalls').toBe(size)
        expect(receipts.every(({ sink, state }) => sink !== 'pulsar' || state === 'confirmed')).toBe(true)
      }),
      { numRuns: 3000, seed: 20_260 },
    )
  }, 60_000)
})

describe('ingest, under 1,000 random fault schedules', () => {
  it('says yes only when the queue has it, in order, and loses nothing', () => {
    fc.assert(
      fc.property(schedule, ({ faults, fail, slowMs, window, size, stopAtMs, cancelAtMs }) => {
        const far = farEnd(faults, { refuse: new Set(), fail: new Set(fail), slowMs })
        const counts = newCounts()
        const yes: string[] = []
        const early: string[] = []
        let closed = 0
        let completed: number | undefined
        const scheduler = new TestScheduler(() => undefined)
        scheduler.run(({ flush }) => {
          scheduler.maxFrames = 20_000
          const stop = new Subject<void>()
          let next = 0
          const door = ledger<Message, Message>(
            (book) => {
              const give = (): void => {
                while (next < size && book.room() > 0) {
                  const one = message(next)
                  next += 1
                  book.take(one, one)
                }
              }
              timer(0).subscribe(give)
              return {
                settled: ({ id }, outcome) => {
                  if (outcome.kind === accepted.kind) yes.push(id)
                  if (!far.confirmed.has(id)) early.push(id)
                  give()
                },
                close: () => (closed += 1),
              }
            },
            { window, stop, counts },
          )
          const running = ingest({
            sources: [door],
            queue: deliver(far.connection, { sink: 'queue', window, retryMs: 20 }),
            deadLetters: deliver(new Observable(), { sink: 'dead' }),
          }).subscribe({ complete: () => (completed = asyncScheduler.now()) })
          if (cancelAtMs !== null) timer(cancelAtMs).subscribe(() => running.unsubscribe())
          if (stopAtMs !== null) timer(stopAtMs).subscribe(() => stop.next())
          timer(5000).subscribe(() => stop.next())
          timer(9000).subscribe(() => running.unsubscribe())
          flush()
        })
        expect(early, 'never a yes before the confirm').toEqual([])
        expect(inOrder(far.firsts)).toBe(true)
        expect(far.overtaken, 'nothing overtakes').toEqual([])
        expect(yes).toHaveLength(counts.accepted)
        expect(new Set(yes).size, 'one yes each').toBe(yes.length)
        expect(counts.taken).toBe(counts.accepted + counts.rejected + counts.released + counts.unsettled)
        expect([counts.unsettled, counts.stale, closed]).toEqual([0, 0, 1])
        if (cancelAtMs === null) {
          expect(completed, 'it completes').toBeLessThan(stopAtMs === null ? 6000 : stopAtMs + 3000)
          expect(counts.released, 'a door that is stopped finishes what is out').toBe(0)
        } else expect(far.latest(), 'nothing is written after the cancel').toBeLessThanOrEqual(cancelAtMs)
        if (stopAtMs === null && cancelAtMs === null) expect(new Set(yes).size).toBe(size)
      }),
      { numRuns: 1000, seed: 7 },
    )
  }, 60_000)
})
