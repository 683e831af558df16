/** Cuts a failing plan down while its verdict stays of the same kind. */
import type { Plan, PlanEvent } from './plan.js'

export const shrink = async (plan: Plan, stillFails: (smaller: Plan) => Promise<boolean>, maxRuns = 1500): Promise<Plan> => {
  let events: readonly PlanEvent[] = plan.events
  let runs = 0
  const fails = async (candidate: readonly PlanEvent[]): Promise<boolean> => {
    runs += 1
    return runs <= maxRuns && stillFails({ ...plan, events: candidate })
  }
  // Delta debugging: without halves first, then smaller and smaller pieces, until no single one can go.
  for (let pieces = 2; events.length > 0 && runs < maxRuns; ) {
    const size = Math.ceil(events.length / pieces)
    let removed = false
    for (let from = 0; from < events.length; from += size) {
      const candidate = [...events.slice(0, from), ...events.slice(from + size)]
      if (!(await fails(candidate))) continue
      events = candidate
      removed = true
      from -= size
    }
    if (removed) pieces = Math.max(2, pieces - 1)
    else if (size === 1) break
    else pieces = Math.min(events.length, pieces * 2)
  }
  return { ...plan, events }
}
