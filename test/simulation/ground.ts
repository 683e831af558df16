/** What the simulated parts of the world share. */
import { clock } from './clock.js'
import type { Random } from './random.js'

/** A place where a fault can be made to strike: just as the process, or a broker, does this. */
export type Point = 'publish' | 'confirm' | 'receive' | 'ack' | 'frame' | 'receipt' | 'write' | 'sync' | 'reply'

export interface Ground {
  readonly random: Random
  /** Tells of something that happened; all of them together are the run's fingerprint. */
  readonly trace: (what: string) => void
  readonly point: (at: Point) => void
  /** Something that must never happen. */
  readonly fail: (kind: string, what: string) => void
}

/** One direction of a connection: in order, each thing after a latency of its own. */
export type Pipe = (arrive: () => void) => void

export const pipe = (latencyMs: () => number): Pipe => {
  let last = -1
  let open: (() => void)[] | undefined
  return (arrive) => {
    const at = Math.max(last, clock.now() + latencyMs())
    if (at === last && open !== undefined) return void open.push(arrive)
    const batch = [arrive]
    open = batch
    last = at
    clock.at(at, () => {
      if (open === batch) open = undefined
      for (const one of batch) one()
    })
  }
}

/** Half a millisecond to three, in steps, so that things arrive together now and then. */
export const nearby = (random: Random) => (): number => random.between(1, 6) / 2

/** What a server has to do; while it is frozen all of it waits, in order. */
export interface Gate {
  readonly pass: (act: () => void) => void
  readonly freeze: () => void
  readonly thaw: () => void
  readonly frozen: () => boolean
  /** It died: nobody will do what waited. */
  readonly clear: () => void
}

export const gate = (): Gate => {
  let frozen = false
  let waiting: (() => void)[] = []
  return {
    pass: (act) => (frozen ? void waiting.push(act) : act()),
    freeze: () => {
      frozen = true
    },
    thaw: () => {
      frozen = false
      for (let act = waiting.shift(); act !== undefined; act = waiting.shift()) act()
    },
    frozen: () => frozen,
    clear: () => {
      frozen = false
      waiting = []
    },
  }
}

/** The number of a record, by which the judge knows it; each body has one. */
export const numberOf = (body: Buffer | string): number => Number(/"n":(\d+)/.exec(body.toString())?.[1] ?? -1)
