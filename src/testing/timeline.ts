/** What happened in a run, in words, for those who find marbles hard, and for every failure. */
export interface Timeline {
  /** `letter` names the value that it happened to. */
  readonly say: (who: string, what: string, letter?: string) => void
  readonly text: () => string
  /** What happened last to a value, beside what its source did. */
  readonly lastSeen: (letter: string) => string | undefined
}

interface Happening {
  readonly atMs: number
  readonly who: string
  readonly what: string
  readonly letter: string | undefined
}

const shown = 400

export const ordinal = (count: number): string => `${count}${['th', 'st', 'nd', 'rd'][count % 100 > 10 && count % 100 < 14 ? 0 : count % 10] ?? 'th'}`

export const timeline = (now: () => number): Timeline => {
  const happenings: Happening[] = []
  const line = (width: number, { atMs, who, what }: Happening): string => `${String(atMs).padStart(6)} ms  ${who.padEnd(width)}  ${what}`
  return {
    say: (who, what, letter) => happenings.push({ atMs: now(), who, what, letter }),
    text: () => {
      const width = Math.max(0, ...happenings.map(({ who }) => who.length))
      const lines = happenings.slice(0, shown).map((one) => line(width, one))
      if (happenings.length > shown) lines.push(`          … and ${happenings.length - shown} more`)
      return lines.join('\n')
    },
    lastSeen: (letter) => {
      const last = happenings.findLast((one) => one.letter === letter && !one.who.startsWith('source'))
      return last && `${last.who}: ${last.what}, at ${last.atMs} ms`
    },
  }
}
