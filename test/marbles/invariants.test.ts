/** The ten invariants, each against every combinator that it applies to. */
import { asyncScheduler, delay, map, merge, NEVER, Observable, pipe, takeUntil, tap, timer } from 'rxjs'
import { describe, expect } from 'vitest'
import { accepted } from '../../src/delivery.js'
import type { Connection, Delivery, Operator, Receipt, Sink, Writer } from '../../src/delivery.js'
import { newCounts } from '../../src/ledger.js'
import { batch } from '../../src/operators/batch.js'
import { bestEffort } from '../../src/operators/best-effort.js'
import { deliver } from '../../src/operators/deliver.js'
import { each } from '../../src/operators/each.js'
import { fanOut } from '../../src/operators/fan-out.js'
import { rescue } from '../../src/operators/rescue.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { whileOpen } from '../../src/operators/while-open.js'
import { marbles } from './marbles.js'
import type { Marbles, Plan, Plans, ScriptedFar, ScriptedSource } from '../../src/testing.js'

/** A combinator under test: ends in `far`, and in `other` where it needs a second end. */
interface Rig {
  readonly name: string
  readonly run: (source: Observable<Delivery<string>>, ends: { far: Connection<string>; other: Connection<string> }) => Observable<Receipt>
}

const main = (connection: Connection<string>): Sink<string> => deliver(connection, { sink: 'main', retryMs: 3 })
const second = (connection: Connection<string>): Sink<string> => deliver(connection, { sink: 'second', retryMs: 3 })
const bury = (connection: Connection<string>): Sink<DeadLetter<string>> =>
  deliver(connection.pipe(map((send) => send && (({ value }: DeadLetter<string>) => send(value)))), { sink: 'dead', retryMs: 3 })
const whole = (connection: Connection<string>): Connection<readonly string[]> =>
  connection.pipe(map((send): Writer<readonly string[]> | undefined => send && ((parts) => send(parts.join('')))))
const slowly: Operator<string, string> = each((value) => timer(1).pipe(map(() => value)))

const rigs: readonly Rig[] = [
  { name: 'deliver', run: (source, { far }) => source.pipe(main(far)) },
  { name: 'each, then deliver', run: (source, { far }) => source.pipe(each((value: string) => [value]), main(far)) },
  { name: 'each with a step that takes time, then deliver', run: (source, { far }) => source.pipe(slowly, main(far)) },
  { name: 'batch, then deliver', run: (source, { far }) => source.pipe(batch(2, 2), deliver(whole(far), { sink: 'main', retryMs: 3 })) },
  { name: 'fanOut', run: (source, { far, other }) => source.pipe(fanOut(main(far), second(other))) },
  {
    name: 'fanOut with a bestEffort that is stuck',
    run: (source, { far }) => source.pipe(fanOut(main(far), bestEffort(second(new Observable()), { buffer: 2, lingerMs: 1, dropped: () => undefined }))),
  },
  { name: 'rescue', run: (source, { far, other }) => source.pipe(rescue(main(far), bury(other))) },
  { name: 'whileOpen', run: (source, { far }) => whileOpen(far, ({ connection }) => source.pipe(main(connection)), { patienceMs: 99 }) },
  {
    name: 'all together',
    run: (source, { far, other }) =>
      whileOpen(
        far,
        ({ connection }) =>
          source.pipe(rescue(pipe(each((value: string) => [value]), fanOut(main(connection), bestEffort(second(new Observable()), { lingerMs: 1, dropped: () => undefined }))), bury(other))),
        { patienceMs: 99 },
      ),
  },
]

/** The parts of a run, made in an order in which the writer is there when the first value comes. */
interface Scene {
  readonly far: ScriptedFar<string>
  readonly other: ScriptedFar<string>
  readonly queue: ScriptedSource<string>
  readonly receipts: Receipt[]
  /** The letters that the far ends have, in whatever order. */
  readonly has: (letter: string) => boolean
  /** `letter kind` of every answer, in order. */
  readonly answers: string[]
  readonly errors: unknown[]
  readonly completed: () => number | undefined
}

interface Setting {
  readonly values: string
  readonly writers?: string
  readonly plans?: Plans<Plan>
  readonly window?: number
  readonly stop?: string
  readonly deadlineMs?: number
  readonly cancel?: number
}

const stage = (m: Marbles, rig: Rig, { values, writers = 'w', plans = {}, window = 1000, stop, deadlineMs, cancel }: Setting): Scene => {
  const far = m.far(writers, plans)
  const other = m.far(writers)
  const stopped = stop === undefined ? undefined : m.hot(stop)
  const queue = m.source(values, { window, ...(stopped === undefined ? {} : { stop: stopped }) })
  const receipts: Receipt[] = []
  const answers: string[] = []
  const errors: unknown[] = []
  let completed: number | undefined
  const has = (letter: string): boolean => [...far.confirmed, ...other.confirmed].some((written) => written.includes(letter))
  const watched = queue.deliveries.pipe(
    map(({ value, settle }): Delivery<string> => ({ value, settle: (outcome) => (answers.push(`${value} ${outcome.kind}`), settle(outcome)) })),
  )
  const running = rig.run(watched, { far: far.connection, other: other.connection })
  const deadline = stopped === undefined || deadlineMs === undefined ? NEVER : stopped.pipe(delay(deadlineMs))
  const subscription = running.pipe(takeUntil(deadline)).subscribe({
    next: (receipt) => receipts.push(receipt),
    error: (error) => errors.push(error),
    complete: () => (completed = asyncScheduler.now()),
  })
  if (cancel !== undefined) timer(cancel).subscribe(() => subscription.unsubscribe())
  return { far, other, queue, receipts, has, answers, errors, completed: () => completed }
}

/** Loses and regains its writer twice, fails a write, answers out of order, refuses one for good. */
const rough: Setting = {
  values: '    a-b-c-d-e-f-g-h',
  writers: '  w---x--v--x-----u',
  plans: { a: 9, b: ['silent', 5], c: ['failed', 4], d: 'refused', f: 7, g: 1, ab: ['silent', 3], cd: ['failed', 6] },
  window: 4,
}
const letters = 'abcdefgh'
const balanced = ({ counts }: ScriptedSource<string>): boolean => counts.taken === counts.accepted + counts.rejected + counts.released + counts.unsettled
const rank = (letter: string): number => letters.indexOf(letter)
const sorted = (written: readonly string[]): boolean => {
  const all = written.join('').split('')
  return all.every((letter, i) => i === 0 || rank(letter) > rank(all[i - 1] as string))
}

for (const rig of rigs)
  describe(`invariants: ${rig.name}`, () => {
    marbles('1. every delivery is settled once, exactly', (m) => {
      const { queue, answers } = stage(m, rig, rough)
      m.flush()
      expect(answers.map((answer) => answer.charAt(0)).sort()).toEqual(letters.split(''))
      expect(queue.counts).toMatchObject({ taken: 8, unsettled: 0, stale: 0 })
    })
    marbles('2. no more are unsettled than the window, and the far end is asked for no more', (m) => {
      const { queue, far } = stage(m, rig, { ...rough, plans: { ...rough.plans, a: 15 }, window: 2 })
      m.flush()
      expect(queue.most()).toBe(2)
      expect(far.most()).toBeLessThanOrEqual(2)
      expect(queue.counts.unsettled).toBe(0)
    })
    marbles('2. demand: the next write is begun when an answer made room, not before', (m) => {
      const { far } = stage(m, rig, { values: '(abcd)', plans: { a: 5, b: 9, ab: 5, c: 'silent', d: 'silent', cd: 'silent' }, window: 2, cancel: 40 })
      m.flush()
      const begun = (letter: string): number | undefined => [letter, 'cd'].flatMap((value) => far.demand(value)).map(({ subscribedFrame }) => subscribedFrame)[0]
      const confirmed = far.demand('a')[0]?.unsubscribedFrame ?? far.demand('ab')[0]?.unsubscribedFrame
      expect(confirmed).toBeGreaterThan(4)
      expect(begun('c')).toBeGreaterThanOrEqual(confirmed as number)
    })
    marbles('3. accepted is never told before every required sink has confirmed', (m) => {
      const early: string[] = []
      const { far, other, queue, has } = stage(m, rig, rough)
      queue.settled.subscribe((letter) => {
        if (letter === letter.toLowerCase() && letter !== '*' && !has(letter)) early.push(letter)
        if (rig.name === 'fanOut' && letter === letter.toLowerCase() && !(far.confirmed.includes(letter) && other.confirmed.includes(letter))) early.push(`${letter}: not by both`)
      })
      m.flush()
      expect(early).toEqual([])
    })
    marbles('4. a message that is refused does not end the stream, and those after it are delivered', (m) => {
      const { errors, completed, has, answers } = stage(m, rig, { values: 'abcd-----ef', plans: { b: 'refused', ab: 'refused', c: 'refused', cd: 'refused' } })
      m.flush()
      expect([errors, completed()]).toEqual([[], undefined])
      expect([has('e'), has('f'), answers.length]).toEqual([true, true, 6])
    })
    marbles('5. after stop nothing is taken, and the last settlement completes it', (m) => {
      const { queue, completed } = stage(m, rig, { values: 'ab-cd', plans: { a: 9, b: 7, ab: 9 }, stop: '--s' })
      m.flush()
      expect(queue.counts).toMatchObject({ taken: 2, accepted: 2, unsettled: 0 })
      expect(completed()).toBeGreaterThanOrEqual(8)
      expect(completed()).toBeLessThanOrEqual(11)
    })
    marbles('5. at the deadline after stop what is still out is released, and it completes', (m) => {
      const silent = 'silent' as const
      const { queue, completed, far } = stage(m, rig, { values: 'ab-cd', plans: { a: silent, b: silent, ab: silent }, stop: '--s', deadlineMs: 10 })
      m.flush()
      expect(completed()).toBe(12)
      expect(queue.counts).toMatchObject({ taken: 2, released: 2, unsettled: 0 })
      expect(far.underWay.size).toBe(0)
    })
    for (const cancel of [0, 1, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 20])
      marbles(`6. unsubscribed at ${cancel}, all is released, all is closed, and nothing more is written`, (m) => {
        const { queue, far, other, answers } = stage(m, rig, { ...rough, cancel })
        let late = 0
        let after = 0
        merge(far.writes, other.writes).subscribe(() => (asyncScheduler.now() > cancel ? (late += 1) : undefined))
        timer(cancel + 1).subscribe(() => (after = answers.length))
        m.flush()
        expect(queue.counts.unsettled).toBe(0)
        expect([balanced(queue), late, answers.length - after]).toEqual([true, 0, 0])
        expect([far.underWay.size, far.held(), other.underWay.size, other.held()]).toEqual([0, 0, 0, 0])
      })
    marbles('7. the order of the source is the order of the first writes, through losses, failures and refusals', (m) => {
      const { far, other } = stage(m, rig, rough)
      m.flush()
      expect(far.first.join('')).toHaveLength(8)
      expect(sorted(far.first)).toBe(true)
      expect(sorted(other.first)).toBe(true)
    })
    marbles('7. nothing is ever written while an earlier value, not yet answered by that end, is not under way', (m) => {
      const { far, other } = stage(m, rig, rough)
      const overtaken: string[] = []
      for (const end of [far, other])
        end.writes.subscribe((written) => {
          const answered = [...end.confirmed, ...end.refused].join('')
          const known = [...end.first.join('')].filter((letter) => rank(letter) < rank(written.charAt(0)) && !answered.includes(letter))
          for (const letter of known) if (![...end.underWay].join('').includes(letter)) overtaken.push(`${written} before ${letter}`)
        })
      m.flush()
      expect(overtaken).toEqual([])
    })
    marbles('8. a late answer never throws, is counted as stale, and goes nowhere', (m) => {
      const late: Delivery<string>[] = []
      const held: Rig = { name: rig.name, run: (source, ends) => rig.run(source.pipe(tap((delivery) => late.push(delivery))), ends) }
      const silent = 'silent' as const
      const { queue } = stage(m, held, { values: 'ab', plans: { a: silent, b: silent, ab: silent }, cancel: 5 })
      const heard: string[] = []
      queue.settled.subscribe((letter) => heard.push(letter))
      m.flush()
      expect(() => late.forEach(({ settle }) => settle(accepted))).not.toThrow()
      expect(heard).toEqual(['*', '*'])
      expect(queue.counts).toMatchObject({ taken: 2, accepted: 0, released: 2, stale: 2 })
    })
    marbles('9. nothing is dropped silently: what was taken has an answer, and the books balance at every frame', (m) => {
      const off: number[] = []
      const { queue, answers } = stage(m, rig, rough)
      for (let at = 0; at < 60; at += 1)
        timer(at).subscribe(() => {
          if (!balanced(queue)) off.push(at)
        })
      m.flush()
      expect([off, queue.counts.taken, answers.length]).toEqual([[], 8, 8])
    })
    marbles('10. a receipt says confirmed only when the far end did', (m) => {
      const { receipts, far, other } = stage(m, rig, rough)
      m.flush()
      const wrong = receipts.filter(({ sink, outcome, state, value }) => {
        const written = typeof value === 'string' ? value : Array.isArray(value) ? value.join('') : (value as DeadLetter<string>).value
        return outcome.kind === 'accepted' && state === 'confirmed' && !(sink === 'main' ? far : other).confirmed.includes(written)
      })
      expect(receipts.length).toBeGreaterThan(3)
      expect(wrong).toEqual([])
    })
  })

describe('invariants: bestEffort alone', () => {
  const run = (m: Marbles, row: string, cancel?: string) => {
    let dropped = 0
    const far = m.far('w', { a: 'silent', b: 'refused' })
    const counts = newCounts()
    const queue = m.source(row, { counts, window: 2 })
    const sink = bestEffort(second(far.connection), { buffer: 2, lingerMs: 5, dropped: (count) => (dropped += count) })
    m.expectObservable(queue.deliveries.pipe(sink, map(({ outcome }) => outcome.kind.charAt(0))), cancel)
    return { far, queue, dropped: () => dropped }
  }
  marbles('9. what it drops is counted: beyond the buffer, refused, on cancel', (m) => {
    const { dropped, far, queue } = run(m, '(abcd)-e', '9ms !')
    m.flush()
    const kept = far.confirmed.length
    expect(queue.counts).toMatchObject({ taken: 5, accepted: 5 })
    expect(dropped() + kept).toBe(5)
  })
  marbles('9. what it drops is counted: when the linger is over', (m) => {
    const { dropped, far } = run(m, '(abcd)-e|')
    m.flush()
    expect(dropped() + far.confirmed.length).toBe(5)
    expect([far.underWay.size, far.held()]).toEqual([0, 0])
  })
  marbles('6. it lets its sink go when it is unsubscribed', (m) => {
    const { far } = run(m, 'a', '3ms !')
    m.flush()
    expect([far.underWay.size, far.held()]).toEqual([0, 0])
  })
})

describe('invariants: sent is not confirmed', () => {
  marbles('10. a sink of which nobody will ever say more says sent', (m) => {
    const states = new Set<string>()
    const receipts = m.source('ab').deliveries.pipe(deliver(m.far('w').connection, { sink: 'datagrams', state: 'sent' }), tap(({ state }) => states.add(state)))
    m.expectObservable(receipts.pipe(map(({ value }) => value))).toBe('-ab')
    m.flush()
    expect([...states]).toEqual(['sent'])
  })
})
