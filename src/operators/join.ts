import { accepted, worst } from '../delivery.js'
import type { Outcome } from '../delivery.js'

/** One answer made of several: the worst of its parts, given once, when the last part and the opener have answered. */
export interface Join {
  /** A new part, and the function that answers for it; its first call counts. */
  readonly part: () => (outcome: Outcome) => void
  /** No more parts. An outcome given here counts as one part's. */
  readonly end: (outcome?: Outcome) => void
}

export const join = (settle: (outcome: Outcome) => void): Join => {
  let open = 0 // parts that have not answered; the opener is one of them
  let answer: Outcome = accepted
  const part = (): ((outcome: Outcome) => void) => {
    open += 1
    return once((outcome) => {
      answer = worst(answer, outcome)
      open -= 1
      if (open === 0) settle(answer)
    })
  }
  const opener = part()
  return { part, end: (outcome = accepted) => opener(outcome) }
}

/** The first call counts. */
export const once = (settle: (outcome: Outcome) => void): ((outcome: Outcome) => void) => {
  let open = true
  return (outcome) => {
    if (!open) return
    open = false
    settle(outcome)
  }
}
