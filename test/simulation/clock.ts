/**
 * Virtual time. Installed over the global timers, so that RxJS and Backhaul run on it unchanged.
 *
 * A timer belongs to the process that set it: one that died never hears of it. Code that is
 * made of promises runs between two instants, in one turn of the real event loop.
 */
import type { Random } from './random.js'

/** A process of the simulated machine; nothing that it does after its death touches the world. */
export interface Owner {
  alive: boolean
}

interface Timer {
  at: number
  number: number
  readonly run: () => void
  readonly every: number | undefined
  readonly owner: Owner | undefined
  cancelled: boolean
  readonly ref: () => Timer
  readonly unref: () => Timer
  readonly hasRef: () => boolean
}

const realImmediate = globalThis.setImmediate
const realNow = performance.now.bind(performance)
const turn = (): Promise<void> => new Promise((resolve) => realImmediate(resolve))
/** 2026-03-01T00:00:00Z */
const epochMs = 1_772_323_200_000

let heap: Timer[] = []
let nowMs = 0
let skewMs = 0
let count = 0
let events = 0
let live: Owner | undefined
let uncaught: (error: unknown) => void = () => {}

const before = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.number < b.number)

const push = (timer: Timer): void => {
  let at = heap.push(timer) - 1
  while (at > 0) {
    const parent = (at - 1) >> 1
    if (before(heap[parent] as Timer, timer)) break
    heap[at] = heap[parent] as Timer
    at = parent
  }
  heap[at] = timer
}

const pop = (): Timer | undefined => {
  const first = heap[0]
  const last = heap.pop()
  if (first === undefined || last === undefined || heap.length === 0) return first
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && before(heap[child + 1] as Timer, heap[child] as Timer)) child += 1
    if (before(last, heap[child] as Timer)) break
    heap[at] = heap[child] as Timer
    at = child
  }
  heap[at] = last
  return first
}

const schedule = (at: number, run: () => void, owner: Owner | undefined, every?: number): Timer => {
  count += 1
  const timer: Timer = { at, number: count, run, every, owner, cancelled: false, ref: () => timer, unref: () => timer, hasRef: () => true }
  push(timer)
  return timer
}

/** Cancelled, or its process has died. */
const unheard = ({ cancelled, owner }: Timer): boolean => cancelled || (owner !== undefined && !owner.alive)

const fire = (timer: Timer): void => {
  if (unheard(timer)) return
  events += 1
  try {
    timer.run()
  } catch (error) {
    uncaught(error)
  }
  if (timer.every === undefined || unheard(timer)) return
  count += 1
  timer.at = nowMs + timer.every
  timer.number = count
  push(timer)
}

export const clock = {
  /** Milliseconds since the run began; not what a process sees. */
  now: (): number => nowMs,
  /** A number that grows with everything that happens. */
  number: (): number => ++count,
  events: (): number => events,
  /** The world's own doings, which no death of a process ends. */
  after: (ms: number, run: () => void): void => void schedule(nowMs + ms, run, undefined),
  at: (ms: number, run: () => void): void => void schedule(Math.max(ms, nowMs), run, undefined),
  /** The wall clock of the machine jumps; timers do not. */
  jump: (ms: number): void => {
    skewMs += ms
  },
  /** From now on this process runs, and owns what is scheduled. */
  running: (owner: Owner | undefined): void => {
    live = owner
  },
  reset: (random: Random, onUncaught: (error: unknown) => void): void => {
    heap = []
    nowMs = 0
    skewMs = 0
    count = 0
    events = 0
    live = undefined
    uncaught = onUncaught
    Math.random = random.next
  },
  /** Lets time pass until `over` says so. */
  run: async (untilMs: number, over: () => boolean): Promise<void> => {
    while (!over()) {
      const next = heap[0]
      if (next === undefined || next.at > untilMs) return
      nowMs = next.at
      while (heap[0]?.at === nowMs) fire(pop() as Timer)
      await turn()
    }
  },
  /** Of the machine that simulates. */
  realMs: (): number => realNow(),
}

const set = (run: (...given: unknown[]) => void, delayMs: number | undefined, repeat: boolean, given: unknown[]): Timer => {
  const delay = Math.max(1, Math.trunc(delayMs ?? 0) || 1)
  const act = given.length === 0 ? run : () => run(...given)
  // Nobody runs: this is the last gasp of a process that has just died.
  return schedule(nowMs + delay, act, live ?? { alive: false }, repeat ? delay : undefined)
}
const clear = (timer: unknown): void => {
  if (typeof timer === 'object' && timer !== null) (timer as Timer).cancelled = true
}
type Act = (...given: unknown[]) => void

/** Puts virtual time in the place of the real one, for good: the process is a simulator from then on. */
export const install = (): void => {
  const wall = (): number => Math.floor(epochMs + nowMs + skewMs)
  Object.assign(globalThis, {
    setTimeout: (run: Act, ms?: number, ...given: unknown[]) => set(run, ms, false, given),
    setInterval: (run: Act, ms?: number, ...given: unknown[]) => set(run, ms, true, given),
    setImmediate: (run: Act, ...given: unknown[]) => schedule(nowMs, () => run(...given), live ?? { alive: false }),
    clearTimeout: clear,
    clearInterval: clear,
    clearImmediate: clear,
  })
  Date.now = wall
  performance.now = () => nowMs
}
