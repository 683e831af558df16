import { newCounts } from './ledger.js'
import type { Counts } from './ledger.js'
import type { Problem } from './queue-problems.js'

/** A connection as people see it. */
export interface Link {
  readonly name: string
  state: 'waiting' | 'connected' | 'blocked' | 'lost'
  /** Since when, in milliseconds since 1970. */
  since: number
  reason: string
}

/** Everything that this process counts, and the state of its links. One writer for each number. */
export interface Books {
  readonly startedAt: number
  /** One for each pipeline that runs. */
  readonly pipelines: Map<string, Counts>
  readonly links: Map<string, Link>
  delivered: number
  deadLettered: number
  repeatsDropped: number
  /** Delivered or dead-lettered here, but not accepted by a Backhaul: other programs write to the queue as well. */
  foreign: number
  purged: number
  /** Dead letters put back into the queue: they count as dead-lettered, and come in again. */
  replayed: number
  /** Dead letters removed by an operator; they stay counted as dead-lettered. */
  deadDropped: number
  /** Copies that were not made or did not leave, by sink. */
  readonly copiesDropped: Map<string, number>
  configurations: { accepted: number; rejected: number }
  refused: Map<number, number>
  /** What breaks a promise in each queue of RabbitMQ that was looked at; an empty list when it is well. */
  readonly queueProblems: Map<string, readonly Problem[]>
}

export const newBooks = (startedAt: number): Books => ({
  startedAt,
  pipelines: new Map(),
  links: new Map(),
  delivered: 0,
  deadLettered: 0,
  repeatsDropped: 0,
  foreign: 0,
  purged: 0,
  replayed: 0,
  deadDropped: 0,
  copiesDropped: new Map(),
  configurations: { accepted: 0, rejected: 0 },
  refused: new Map(),
  queueProblems: new Map(),
})

/** The counts of a pipeline, made at first sight. */
export const countsOf = ({ pipelines }: Books, name: string): Counts => {
  const counts = pipelines.get(name) ?? newCounts()
  pipelines.set(name, counts)
  return counts
}

export const linkOf = ({ links, startedAt }: Books, name: string): Link => {
  const link = links.get(name) ?? { name, state: 'waiting', since: startedAt, reason: 'not connected yet' }
  links.set(name, link)
  return link
}

export const dropCopies = ({ copiesDropped }: Books, sink: string, count: number): void => {
  copiesDropped.set(sink, (copiesDropped.get(sink) ?? 0) + count)
}
