import type { Books } from './books.js'
import type { Counts } from './ledger.js'

export interface Readiness {
  readonly ready: boolean
  /** One line for each thing that stands in the way. */
  readonly reasons: readonly string[]
}

/** What one thing hangs on: its links, all of them, and a pipeline that must not be silent for longer. */
export interface Road {
  /** The first is the one that answers. */
  readonly links: readonly [string, ...string[]]
  readonly pipeline: string
  readonly patienceMs: number
}

export interface HealthSettings {
  readonly accepts?: Road
  readonly delivers?: Road
}

const answered = ({ accepted, rejected }: Counts): number => accepted + rejected

const queueAlarms = ({ queueProblems }: Books): readonly string[] =>
  [...queueProblems].flatMap(([queue, problems]) => problems.flatMap(({ severity, text }) => (severity === 'alarm' ? [`${queue}: ${text}`] : [])))

/**
 * Tells whether messages can be accepted and delivered: by the link's state, and by how long
 * deliveries have been out without an answer. A connection that is open and silent is not ready.
 *
 * `tick` looks at the counts, once a second; the age of the last answer is measured between ticks.
 */
export const health = (books: Books, settings: HealthSettings): { tick: (now: number) => void; readiness: (now: number) => Readiness } => {
  const seen = new Map<string, { answered: number; since: number }>()
  const roads = [settings.accepts, settings.delivers].filter((road) => road !== undefined)
  const tick = (now: number): void => {
    for (const { pipeline } of roads) {
      const counts = books.pipelines.get(pipeline)
      const before = seen.get(pipeline)
      const count = counts === undefined ? 0 : answered(counts)
      if (before === undefined || before.answered !== count || counts?.unsettled === 0) seen.set(pipeline, { answered: count, since: now })
    }
  }
  const readiness = (now: number): Readiness => {
    const away = (name: string): readonly string[] => {
      const link = books.links.get(name)
      if (link?.state === 'connected') return []
      return [`${name}: ${link?.state ?? 'waiting'} for ${Math.round((now - (link?.since ?? books.startedAt)) / 1000)} s (${link?.reason ?? 'not connected yet'})`]
    }
    const reasons = roads.flatMap(({ links, pipeline, patienceMs }) => {
      const lost = links.flatMap(away)
      if (lost.length > 0) return lost
      const silentMs = now - (seen.get(pipeline)?.since ?? now)
      const unsettled = books.pipelines.get(pipeline)?.unsettled ?? 0
      return silentMs > patienceMs ? [`${links[0]}: ${unsettled} out, no answer for ${Math.round(silentMs / 1000)} s`] : []
    })
    // What drops messages behind our back stands in the way of both roads.
    const alarms = roads.length === 0 ? [] : queueAlarms(books)
    return { ready: reasons.length + alarms.length === 0, reasons: [...reasons, ...alarms] }
  }
  return { tick, readiness }
}
