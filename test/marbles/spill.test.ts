/** The spool stands in: order and single settlement through every interleaving of confirm, loss, drain and stop. */
import fc from 'fast-check'
import { BehaviorSubject, merge, NEVER, Observable, ReplaySubject, share, Subject, takeUntil, tap, timer } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { describe, expect, it } from 'vitest'
import { spill } from '../../src/connections/spill.js'
import type { SpillState } from '../../src/connections/spill.js'
import type { Connection, Writer } from '../../src/delivery.js'
import { ledger, newCounts } from '../../src/ledger.js'
import { deliver } from '../../src/operators/deliver.js'
import { marbles } from './marbles.js'

type Mood = 'confirms' | 'frozen' | 'mute'

/**
 * A broker that can be there or away, frozen (takes, and does nothing until it thaws) and mute
 * (stores, and confirms nothing until it speaks). What it has not done when its connection is
 * lost it has never seen, or has stored the first half of. One connection is first in, first out.
 */
const scriptedBroker = (confirmMs: number) => {
  const stored: number[] = []
  const writers = new Subject<Writer<number> | undefined>()
  let there = true
  let mood: Mood = 'confirms'
  let frozen: (() => void)[] = []
  let owed: (() => void)[] = []
  let generation = 0
  const writer = (): Writer<number> => {
    const born = (generation += 1)
    return (n) =>
      new Observable((answer) => {
        if (born !== generation) return answer.error(new Error('gone'))
        const confirm = (): void => {
          if (born === generation) answer.complete()
        }
        const act = (): void => {
          stored.push(n)
          if (mood === 'mute') owed.push(confirm)
          else confirm()
        }
        // Also for those who have left: what was sent is taken.
        timer(confirmMs).subscribe(() => {
          if (born !== generation) return
          if (mood === 'frozen') frozen.push(act)
          else act()
        })
      })
  }
  const connection: Connection<number> = new Observable<Writer<number> | undefined>((subscriber) => {
    const watching = writers.subscribe(subscriber)
    subscriber.next(there ? writer() : undefined)
    return watching
  }).pipe(share({ connector: () => new ReplaySubject(1) }))
  const drop = (): void => {
    const unseen = frozen
    frozen = []
    owed = []
    generation += 1
    for (const act of unseen.slice(0, unseen.length / 2)) act()
    owed = []
  }
  return {
    connection,
    stored,
    lose: () => {
      there = false
      drop()
      writers.next(undefined)
    },
    open: () => {
      drop()
      there = true
      mood = 'confirms'
      writers.next(writer())
    },
    is: (now: Mood) => {
      mood = now
      const [acts, confirms] = [now === 'frozen' ? [] : frozen, now === 'confirms' ? owed : []]
      if (now !== 'frozen') frozen = []
      if (now === 'confirms') owed = []
      for (const confirm of confirms) confirm()
      for (const act of acts) act()
    },
  }
}

/** A spool in memory: appends together after a sync, may be full for a while, gives in order what was appended. */
const scriptedSpool = (syncMs: number, kept: number[] = []) => {
  const waiting = [...kept]
  const outside: number[] = []
  const depth = new BehaviorSubject(waiting.length)
  const appended = new Subject<void>()
  let full = false
  let batch: { n: number; done: () => void; fail: () => void }[] = []
  const tell = (): void => depth.next(waiting.length + outside.length)
  const sync = (): void => {
    const synced = batch
    batch = []
    if (full) return synced.forEach(({ fail }) => fail())
    waiting.push(...synced.map(({ n }) => n))
    tell()
    synced.forEach(({ done }) => done())
    appended.next()
  }
  const append: Writer<number> = (n) =>
    new Observable((answer) => {
      if (batch.length === 0) timer(syncMs).subscribe(sync)
      batch.push({ n, done: () => answer.complete(), fail: () => answer.error(new Error('full')) })
    })
  const connection: Connection<number> = new Observable((subscriber) => subscriber.next(append))
  const read = ledger<number, number>(
    (book) => {
      const give = (): void => {
        while (waiting.length > 0 && book.room() > 0) {
          const n = waiting.shift() as number
          outside.push(n)
          book.take(n, n)
        }
      }
      const feed = appended.subscribe(give)
      const start = timer(0).subscribe(give)
      return {
        settled: (n) => {
          outside.splice(outside.indexOf(n), 1)
          tell()
          give()
        },
        close: () => {
          start.unsubscribe()
          feed.unsubscribe()
          waiting.unshift(...outside.splice(0).sort((x, y) => x - y))
        },
      }
    },
    { window: 5 },
  )
  return { connection, depth, read, waiting, outside, fill: (now: boolean) => (full = now) }
}

const faults = ['lose', 'open', 'frozen', 'mute', 'confirms', 'full', 'room'] as const
const schedule = fc.record({
  faults: fc.array(fc.record({ atMs: fc.nat(400), kind: fc.constantFrom(...faults) }), { maxLength: 10 }),
  confirmMs: fc.integer({ min: 1, max: 12 }),
  syncMs: fc.integer({ min: 1, max: 9 }),
  window: fc.integer({ min: 1, max: 8 }),
  size: fc.integer({ min: 1, max: 60 }),
  everyMs: fc.nat(12),
  kept: fc.nat(6),
  stopAtMs: fc.option(fc.integer({ min: 1, max: 500 })),
})
type Schedule = typeof schedule extends fc.Arbitrary<infer A> ? A : never

const play = ({ faults: happens, confirmMs, syncMs, window, size, everyMs, kept, stopAtMs }: Schedule) => {
  const broker = scriptedBroker(confirmMs)
  const spool = scriptedSpool(syncMs, Array.from({ length: kept }, (_, i) => i - kept))
  const states: SpillState[] = []
  const yes: number[] = []
  const counts = newCounts()
  let most = 0
  let completedAt: number | undefined
  const scheduler = new TestScheduler(() => undefined)
  scheduler.run(({ flush }) => {
    scheduler.maxFrames = 20_000
    const stop = new Subject<void>()
    let next = 0
    const door = ledger<number, number>(
      (book) => {
        const come = (): void => {
          if (next >= size || book.room() <= 0) return
          const n = next++
          book.take(n, n)
          most = Math.max(most, counts.unsettled)
          if (next === size) book.end()
        }
        const arrivals = timer(0, Math.max(1, everyMs)).subscribe(come)
        return {
          settled: (n, { kind }) => {
            if (kind === 'accepted') yes.push(n)
            if (everyMs === 0) come()
          },
          close: () => arrivals.unsubscribe(),
        }
      },
      { window, stop, counts },
    )
    const connection = spill(broker.connection, spool, { confirmMs: 40, holdBelow: window, retryMs: 15, onState: (state) => states.push(state) })
    const over = new Subject<void>()
    const main = door.pipe(
      deliver(connection, { sink: 'queue', window, retryMs: 10 }),
      tap({
        complete: () => {
          completedAt = scheduler.frame
          over.next()
        },
      }),
    )
    const draining = spool.read.pipe(deliver(broker.connection, { sink: 'queue', window: 5, retryMs: 10 }), takeUntil(stopAtMs === null ? NEVER : over))
    merge(main, draining).subscribe()
    const happen: Record<(typeof faults)[number], () => void> = {
      lose: broker.lose,
      open: broker.open,
      frozen: () => broker.is('frozen'),
      mute: () => broker.is('mute'),
      confirms: () => broker.is('confirms'),
      full: () => spool.fill(true),
      room: () => spool.fill(false),
    }
    for (const { atMs, kind } of happens) timer(atMs).subscribe(happen[kind])
    // In the end the broker is there, anew, and the disk has room: nothing may stall.
    timer(450).subscribe(() => spool.fill(false))
    timer(460).subscribe(broker.lose)
    timer(500).subscribe(broker.open)
    if (stopAtMs !== null) timer(stopAtMs).subscribe(() => stop.next())
    flush()
  })
  return { stored: broker.stored, spool, states, yes, counts, most, completedAt, kept }
}

describe('spill, under 3,000 random schedules', () => {
  it('loses nothing that was accepted, keeps the order of first deliveries, answers each once, and stalls nowhere', () => {
    fc.assert(
      fc.property(schedule, (given) => {
        const { stored, spool, yes, counts, most, completedAt, kept } = play(given)
        const firsts = stored.filter((n, i) => stored.indexOf(n) === i)
        const left = [...spool.outside, ...spool.waiting]
        const all = new Set([...stored, ...left])
        const missing = [...Array.from({ length: kept }, (_, i) => i - kept), ...yes].filter((n) => !all.has(n))
        expect(missing, 'lost').toEqual([])
        expect(firsts, 'first come, first served').toEqual([...firsts].sort((x, y) => x - y))
        expect(left.filter((n) => firsts.some((first) => first > n) && !firsts.includes(n)), 'overtaken in the spool').toEqual([])
        expect(yes.length, 'one answer each').toBe(new Set(yes).size)
        expect(most, 'the window').toBeLessThanOrEqual(given.window)
        expect(counts, 'the books').toMatchObject({ unsettled: 0, stale: 0 })
        expect(completedAt, 'it completes').toBeLessThan(5000)
        if (given.stopAtMs === null) expect([left, yes.length], 'all is through').toEqual([[], given.size])
      }),
      { numRuns: Number(process.env['SPILL_RUNS'] ?? 3000) },
    )
  })
})

describe('spill, row by row', () => {
  const options = { confirmMs: 5, holdBelow: 9, retryMs: 7 }
  const depths = { 0: 0, 1: 1, 2: 2 }

  marbles('gives the oldest write to the spool when it has had no confirm in time, and all behind it, in order', ({ source, far, hot, run, rows }) => {
    const [queue, spool] = [far('w', { a: 'silent', b: 'silent' }), far('s')]
    const { deliveries, settled } = source('ab')
    run(deliveries.pipe(deliver(spill(queue.connection, { connection: spool.connection, depth: hot('0', depths) }, options), { sink: 'queue' })))
    rows([queue.writes, 'ab'], [spool.writes, '-----(ab)'], [settled, '------(ab)'])
  })
  marbles('goes direct only when all that is on its way into the spool has arrived', ({ source, far, hot, run, rows }) => {
    const [queue, spool] = [far('w-x--w'), far('s', { a: 6 })]
    const { deliveries, settled } = source('---a--b---c')
    run(deliveries.pipe(deliver(spill(queue.connection, { connection: spool.connection, depth: hot('0', depths) }, options), { sink: 'queue' })))
    rows([queue.writes, '----------c'], [spool.writes, '---a--b'], [settled, '-------b-a-c'])
  })
  marbles('holds a write while the spool is nearly empty, no longer than a confirm may take, then appends it', ({ source, far, hot, run, rows }) => {
    const [queue, spool] = [far('w'), far('s')]
    const { deliveries, settled } = source('---a')
    run(deliveries.pipe(deliver(spill(queue.connection, { connection: spool.connection, depth: hot('2-1', depths) }, options), { sink: 'queue' })))
    rows([queue.writes, ''], [spool.writes, '--------a'], [settled, '---------a'])
  })
  marbles('writes direct what it held when the spool is empty', ({ source, far, hot, run, rows }) => {
    const [queue, spool] = [far('w'), far('s')]
    const { deliveries, settled } = source('---a')
    run(deliveries.pipe(deliver(spill(queue.connection, { connection: spool.connection, depth: hot('2-1---0', depths) }, options), { sink: 'queue' })))
    rows([queue.writes, '------a'], [spool.writes, ''], [settled, '-------a'])
  })
  marbles('accepts nothing that a full spool refused, and tries that again', ({ source, far, hot, run, rows }) => {
    const [queue, spool] = [far('-'), far('s', { a: ['failed', 1] })]
    const { deliveries, settled } = source('a')
    run(deliveries.pipe(deliver(spill(queue.connection, { connection: spool.connection, depth: hot('0', depths) }, options), { sink: 'queue' })))
    rows([spool.writes, 'a------a'], [settled, '--------a'])
  })
})
