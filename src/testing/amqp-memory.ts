import { asapScheduler } from 'rxjs'
import type { Subscription } from 'rxjs'
import type { RawMessage } from '../connections/amqp-port.js'

/** A message that a queue keeps, at its place. */
export interface Kept {
  readonly letter: string
  readonly place: number
  readonly raw: Omit<RawMessage, 'fields'>
  redelivered: boolean
  /** Since when somebody has it. */
  givenAtMs: number
}

/** Somebody who takes from a queue. */
export interface Taker {
  readonly room: () => boolean
  readonly give: (kept: Kept) => void
}

/** A queue of a broker, in memory. Gives in order, and never within the call that made room: as from a socket. */
export interface MemoryQueue {
  readonly keep: (letter: string, raw: Omit<RawMessage, 'fields'>) => void
  readonly join: (taker: Taker) => void
  readonly leave: (taker: Taker) => void
  /** How many takers there are. */
  readonly takers: () => number
  /** Gone for good. */
  readonly accept: (kept: Kept) => void
  /** Back to its place. */
  readonly takeBack: (kept: Kept) => void
  readonly waiting: () => readonly Kept[]
  readonly outside: ReadonlySet<Kept>
  readonly purge: () => number
}

const byPlace = (a: Kept, b: Kept): number => a.place - b.place

export const memoryQueue = (now: () => number): MemoryQueue => {
  const waiting: Kept[] = []
  const outside = new Set<Kept>()
  const takers = new Set<Taker>()
  let places = 0
  let giving: Subscription | undefined

  const give = (): void => {
    giving = undefined
    for (const taker of takers)
      while (waiting.length > 0 && taker.room()) {
        const kept = waiting.shift() as Kept
        outside.add(kept)
        kept.givenAtMs = now()
        taker.give(kept)
      }
  }
  const wake = (): void => {
    giving ??= asapScheduler.schedule(give)
  }
  return {
    keep: (letter, raw) => {
      places += 1
      waiting.push({ letter, place: places, raw, redelivered: false, givenAtMs: 0 })
      wake()
    },
    join: (taker) => {
      takers.add(taker)
      wake()
    },
    leave: (taker) => takers.delete(taker),
    takers: () => takers.size,
    accept: (kept) => {
      outside.delete(kept)
      wake()
    },
    takeBack: (kept) => {
      outside.delete(kept)
      kept.redelivered = true
      waiting.push(kept)
      waiting.sort(byPlace)
      wake()
    },
    waiting: () => waiting,
    outside,
    purge: () => waiting.splice(0).length,
  }
}

/** The letters of all that a queue has, in order, given out or not. */
export const lettersOf = (queue: MemoryQueue | undefined): string =>
  queue === undefined ? '' : [...queue.outside, ...queue.waiting()].sort(byPlace).map(({ letter }) => letter).join('')
