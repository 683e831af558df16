import { map, Observable, of, tap } from 'rxjs'
import { afterEach, beforeEach, describe, expect, vi } from 'vitest'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Outcome } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import { encodeHeaders } from '../../src/message.js'
import { embeddedQueueSource } from '../../src/sources/embedded-queue.js'
import type { QueueReader } from '../../src/sources/embedded-queue.js'
import { marbles } from './marbles.js'

/** A queue that is a row of letters: what was given out comes again after `rewind`. */
const list = (letters: string) => {
  const pending = new Set(letters)
  const outside = new Set<string>()
  let wake = (): void => {}
  let rewinds = 0
  const entry = (id: string) => ({ seq: letters.indexOf(id), body: Buffer.from('{}'), headers: encodeHeaders({ id, body: Buffer.alloc(0), properties: {} }) })
  const reader: QueueReader = {
    next: (max) =>
      new Observable((subscriber) => {
        const give = (): void => {
          const found = [...pending].filter((id) => !outside.has(id)).slice(0, max)
          if (found.length === 0) return
          wake = () => {}
          for (const id of found) outside.add(id)
          subscriber.next(found.map(entry))
          subscriber.complete()
        }
        wake = give
        give()
        return () => {
          if (wake === give) wake = () => {}
        }
      }),
    rewind: () => {
      rewinds += 1
      outside.clear()
      wake()
    },
    settle: (seq) => pending.delete(letters[seq] as string),
  }
  return { queue: of(reader), left: () => [...pending].join(''), rewinds: () => rewinds }
}
/** Answers each delivery at once, by its letter and how often it came. */
const answering = (answer: (id: string, time: number) => Outcome) => {
  const times = new Map<string, number>()
  return (source: ReturnType<typeof embeddedQueueSource>): Observable<string> =>
    source.pipe(
      tap(({ value: { id }, settle }) => {
        times.set(id, (times.get(id) ?? 0) + 1)
        if (times.get(id) === 100) throw new Error(`a hot loop over ${id}`)
        settle(answer(id, times.get(id) as number))
      }),
      map(({ value }) => value.id),
    )
}
const never = rejected('no', 'test')

describe('embedded queue, what is not accepted', () => {
  beforeEach(() => void vi.spyOn(Math, 'random').mockReturnValue(0))
  afterEach(() => vi.restoreAllMocks())

  marbles('comes again after 50 ms, then twice that, up to 5 s: poison without a rescue is no hot loop', ({ expectObservable, flush }) => {
    const { queue, left } = list('p')
    const counts = newCounts()
    const row = 'p 49ms p 99ms p 199ms p 399ms p 799ms p 1599ms p 3199ms p 4999ms p 4999ms p'
    expectObservable(embeddedQueueSource(queue, { window: 10, counts }).pipe(answering(() => never)), `^ 17s !`).toBe(row)
    flush()
    expect([counts.taken, counts.rejected, left()]).toEqual([10, 10, 'p'])
  })
  marbles('waits the same when it was released', ({ expectObservable }) => {
    const { queue } = list('r')
    const source = embeddedQueueSource(queue, { window: 10 }).pipe(answering((_id, time) => (time < 4 ? released(true) : accepted)))
    expectObservable(source).toBe('r 49ms r 99ms r 199ms r')
  })
  marbles('is tried soon again once something was accepted, and comes before what is new', ({ expectObservable, flush }) => {
    const { queue, left } = list('abc')
    // a is refused until its fourth time; with window 1, b and c wait behind it; then b is refused once.
    const source = embeddedQueueSource(queue, { window: 1 }).pipe(answering((id, time) => ((id === 'a' && time < 4) || (id === 'b' && time < 2) ? never : accepted)))
    expectObservable(source).toBe('a 49ms a 99ms a 199ms (ab) 46ms (bc)')
    flush()
    expect(left()).toBe('')
  })
  marbles('does not hold up a stop, and leaves the queue alone after it: another may read there', ({ hot, expectObservable, flush }) => {
    const { queue, rewinds } = list('p')
    const source = embeddedQueueSource(queue, { window: 10, stop: hot('70ms s') }).pipe(answering(() => never))
    expectObservable(source).toBe('p 49ms p 19ms |')
    flush()
    expect(rewinds(), 'at 50 ms, and when it closes').toBe(2)
  })
})
