import type { Outcome } from '../delivery.js'

/** How values are written in rows: one letter each, the same one wherever the value is seen. */
export interface Letters {
  /** From here on this value is written as this letter, also after it went through many hands. */
  readonly know: (value: unknown, letter: string) => void
  readonly of: (value: unknown) => string
}

/** The letter as it is for accepted, in capitals for rejected, `*` for released. */
export const answerLetter = (letter: string, { kind }: Outcome): string =>
  kind === 'accepted' ? letter : kind === 'rejected' ? letter.toUpperCase() : '*'

export const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

/**
 * A value is known by identity; else a message by its id, a receipt, a delivery and a dead
 * letter by the value in them, a batch by the letters of its parts; else as text.
 */
export const letterBook = (): Letters => {
  const known = new Map<unknown, string>()
  const of = (value: unknown): string => {
    const letter = known.get(value)
    if (letter !== undefined) return letter
    if (Array.isArray(value)) return value.map(of).join('')
    if (!isObject(value)) return String(value)
    if (typeof value['id'] === 'string') return value['id']
    if (!('value' in value)) return JSON.stringify(value)
    const inner = of(value['value'])
    return isObject(value['outcome']) ? answerLetter(inner, value['outcome'] as unknown as Outcome) : inner
  }
  return { know: (value, letter) => known.has(value) || known.set(value, letter), of }
}
