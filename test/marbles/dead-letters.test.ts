/** Dead letters put back, in virtual time: order, rate, and a crash in the middle at every point. */
import { EMPTY, ignoreElements, Observable, of, timer } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { describe, expect, it } from 'vitest'
import type { AmqpQueue } from '../../src/connections/amqp-reader.js'
import { buried } from '../../src/dead-letter.js'
import type { Writer } from '../../src/delivery.js'
import { digestOf } from '../../src/message.js'
import type { Message } from '../../src/message.js'
import { rememberReplays } from '../../src/operators/remember-replays.js'
import { deadLetters } from '../../src/pipelines/dead.js'
import type { DeadLetters, DeadProgress } from '../../src/pipelines/dead.js'
import type { Queue } from '../../src/pipelines/queue.js'

const letter = (n: number): Message => {
  const body = Buffer.from(`{"n":${n}}`)
  const message: Message = { id: `l${n}`, body, properties: {}, ...(n % 2 === 0 ? { digest: digestOf(body) } : {}) }
  return buried(message, { reason: 'r', stage: 's', attempts: 1, firstSeen: n, letter: `number ${n}` })
}
const lettersOf = (count: number): Message[] => Array.from({ length: count }, (_, n) => letter(n))

interface Faults {
  /** What a crash does to a publish, and to a removal, that is on its way. */
  readonly publishesLost: boolean
  readonly removalsLost: boolean
}

/** A store of dead letters and a queue that outlive processes; everything that is sent arrives 1 ms later. */
const world = (scheduler: TestScheduler, store: Message[]) => {
  const queue: Message[] = []
  const publishedAtMs: number[] = []
  const after = (ms: number, act: () => void): void => void scheduler.schedule(act, ms)

  const process = (confirmMs: number, faults: Faults): { desk: DeadLetters; books: { replayed: number; deadDropped: number }; crash: () => void } => {
    let alive = true
    const write: Writer<Message> = (message) =>
      new Observable((done) => {
        if (!alive) return
        publishedAtMs.push(scheduler.frame)
        after(1, () => {
          if (alive || !faults.publishesLost) queue.push(message)
        })
        after(confirmMs, () => alive && done.complete())
      })
    const channel: AmqpQueue = {
      consume: (_prefetch, give) =>
        new Observable((subscriber) => {
          const given = [...store]
          subscriber.next({
            accept: (tag) =>
              after(1, () => {
                const at = store.indexOf(given[tag] as Message)
                if (at >= 0 && (alive || !faults.removalsLost)) store.splice(at, 1)
              }),
            cancel: () => {},
          })
          after(1, () => given.forEach((message, tag) => alive && !subscriber.closed && give(message, tag)))
        }),
    }
    const inside = { waiting: () => of(store.length), look: () => EMPTY, channel: of(channel), whole: () => timer(2).pipe(ignoreElements()) }
    const books = { replayed: 0, deadDropped: 0 }
    const queues = { main: { connection: of(write) } as unknown as Queue, dead: { inside } as unknown as Queue }
    return { desk: deadLetters({ queues, books, withSpool: false }), books, crash: () => (alive = false) }
  }
  return { queue, publishedAtMs, store, process }
}

const inVirtualTime = (body: (scheduler: TestScheduler, flush: () => void) => void): void => {
  const scheduler = new TestScheduler(() => undefined)
  scheduler.run(({ flush }) => {
    scheduler.maxFrames = 100_000
    body(scheduler, flush)
  })
}
const whole = { publishesLost: false, removalsLost: false }

/** What a forwarder that remembers lets through. */
const arrived = (queue: readonly Message[]): readonly string[] => {
  const known = new Set<string>()
  const through: string[] = []
  const memory = { has: (name: string) => of(known.has(name)), add: (name: string) => new Observable<never>((done) => (known.add(name), done.complete())) }
  of(...queue.map((value) => ({ value, settle: () => {} })))
    .pipe(rememberReplays(memory, () => undefined))
    .subscribe(({ value, settle }) => {
      through.push(value.id)
      settle({ kind: 'accepted' })
    })
  return through
}

describe('dead letters that are put back', () => {
  it('leave in their order, no faster than asked for, over several requests too', () =>
    inVirtualTime((scheduler, flush) => {
      const { queue, publishedAtMs, store, process } = world(scheduler, lettersOf(1000))
      const { desk, books } = process(2, whole)
      const told: DeadProgress[] = []
      desk.replay({}, 100).subscribe((progress) => {
        told.push(progress)
        desk.replay({ within: progress.within }, 100).subscribe((next) => told.push(next))
      })
      flush()
      expect(told.map(({ ids, within, more }) => [ids.length, within, more])).toEqual([[400, 600, true], [400, 200, true]])
      expect(queue.map(({ id }) => id)).toEqual(lettersOf(800).map(({ id }) => id))
      expect(store.map(({ id }) => id)).toEqual(lettersOf(1000).slice(800).map(({ id }) => id))
      expect(books).toEqual({ replayed: 800, deadDropped: 0 })
      const [first = 0] = publishedAtMs
      expect(publishedAtMs.filter((at, n) => at < first + 10 * n)).toEqual([])
      expect(publishedAtMs.at(-1)).toBeLessThan(first + 8100)
    }))
  it('are those that were asked for, in the order of the store and not of the question', () =>
    inVirtualTime((scheduler, flush) => {
      const { queue, store, process } = world(scheduler, lettersOf(6))
      const told: DeadProgress[] = []
      process(2, whole).desk.replay({ ids: ['l4', 'l0', 'l3', 'none'] }, 1000).subscribe((progress) => told.push(progress))
      flush()
      expect(told).toEqual([{ ids: ['l0', 'l3', 'l4'], within: 3, more: false }])
      expect(queue.map(({ id }) => id)).toEqual(['l0', 'l3', 'l4'])
      expect(store.map(({ id }) => id)).toEqual(['l1', 'l2', 'l5'])
    }))
  it('stay where they are when the queue does not confirm, and that is said', () =>
    inVirtualTime((scheduler, flush) => {
      const { store, process } = world(scheduler, lettersOf(3))
      const { desk, books } = process(Number.MAX_SAFE_INTEGER, whole)
      const told: DeadProgress[] = []
      desk.replay({}, 1000).subscribe((progress) => told.push(progress))
      flush()
      expect(told).toEqual([{ ids: [], within: 3, more: true, failed: 'the queue did not confirm in time' }])
      expect([store.length, books.replayed]).toEqual([3, 0])
    }))
  it('are those that were there: what is kept meanwhile is not for this run', () =>
    inVirtualTime((scheduler, flush) => {
      const { queue, store, process } = world(scheduler, lettersOf(3))
      const { desk } = process(2, whole)
      store.push(letter(3))
      desk.replay({ within: 3 }, 1000).subscribe()
      flush()
      expect(queue.map(({ id }) => id)).toEqual(['l0', 'l1', 'l2'])
      expect(store.map(({ id }) => id)).toEqual(['l3'])
    }))
  it('have one request at a time: a second one waits for its turn', () =>
    inVirtualTime((scheduler, flush) => {
      const { queue, store, process } = world(scheduler, lettersOf(4))
      const { desk } = process(2, whole)
      const told: string[] = []
      desk.replay({ ids: ['l2', 'l3'] }, 100).subscribe(({ ids }) => told.push(`replayed ${ids.join()}`))
      desk.drop({}).subscribe(({ ids }) => told.push(`dropped ${ids.join()}`))
      flush()
      expect(told).toEqual(['replayed l2,l3', 'dropped l0,l1'])
      expect([queue.map(({ id }) => id), store]).toEqual([['l2', 'l3'], []])
    }))

  for (const publishesLost of [false, true])
    for (const removalsLost of [false, true])
      it(`arrive once, in order, none lost, wherever a crash comes; publishes on their way ${publishesLost ? 'are lost' : 'arrive'}, removals ${removalsLost ? 'are lost' : 'arrive'}`, () => {
        let repeated = 0
        let interrupted = 0
        for (let crashAtMs = 0; crashAtMs <= 60; crashAtMs += 1)
          for (const rate of [200, 10_000])
            inVirtualTime((scheduler, flush) => {
              const { queue, store, process } = world(scheduler, lettersOf(8))
              const first = process(4, { publishesLost, removalsLost })
              let ended = false
              first.desk.replay({}, rate).subscribe(() => (ended = true))
              scheduler.schedule(() => {
                if (!ended) interrupted += 1
                first.crash()
              }, crashAtMs)
              scheduler.schedule(() => process(4, whole).desk.replay({}, rate).subscribe(), crashAtMs + 5)
              flush()
              const ids = lettersOf(8).map(({ id }) => id)
              expect(store, `crash at ${crashAtMs} ms`).toEqual([])
              expect(arrived(queue), `crash at ${crashAtMs} ms`).toEqual(ids)
              repeated += queue.length - ids.length
            })
        expect(interrupted).toBeGreaterThan(20)
        if (!publishesLost) expect(repeated, 'the crashes that put a letter back twice').toBeGreaterThan(0)
      })
})
