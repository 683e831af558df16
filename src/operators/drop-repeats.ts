import type { Message } from '../message.js'

/** What was delivered lately, so that a repeat of it can be told. */
export interface Recent {
  /** True when this id, with these bytes, is among the last that were confirmed. */
  readonly has: (message: Message) => boolean
  readonly add: (message: Message) => void
}

/** What is on its way. A copy that meets its first need not go too: the first is still in its queue. */
export interface UnderWay {
  /** False when the same id, with the same bytes, is on its way already. */
  readonly enter: (message: Message) => boolean
  readonly leave: (message: Message) => void
}

/**
 * Tells a copy that comes while the first is on its way: one that was written to a broker that
 * blocked, and then to the spool too. Dropping it loses nothing, for the first is unsettled:
 * it arrives, is buried, or comes again. For one run of a pipeline, as what is released may be a copy.
 *
 * **Holds**: the window's ids and digests.
 */
export const underWay = (): UnderWay => {
  const keys = new Set<string>()
  // A letter that was put back is no copy of a first that is not: buried, that one would be this very letter, and dealt with.
  const keyOf = ({ id, digest, replayed = '' }: Message): string | undefined => (digest === undefined ? undefined : `${digest} ${replayed} ${id}`)
  return {
    enter: (message) => {
      const key = keyOf(message)
      if (key === undefined) return true
      if (keys.has(key)) return false
      keys.add(key)
      return true
    },
    leave: (message) => {
      const key = keyOf(message)
      if (key !== undefined) keys.delete(key)
    },
  }
}

/**
 * Remembers the last messages that Pulsar confirmed. A message is a repeat only when its id
 * *and* its digest are those of one of them; messages without a digest never are.
 *
 * **Holds**: the ids and digests of `size` confirms.
 */
export const recent = (size = 10_000): Recent => {
  // A ring: to ask a map for its oldest key costs the more, the more were deleted before it.
  const confirms: { readonly id: string; readonly digest: string }[] = []
  const places = new Map<string, number>() // of each id's last one
  let next = 0
  return {
    has: ({ id, digest }) => {
      const place = places.get(id)
      return digest !== undefined && place !== undefined && confirms[place]!.digest === digest
    },
    add: ({ id, digest }) => {
      if (digest === undefined) return
      const oldest = confirms[next]
      if (oldest !== undefined && places.get(oldest.id) === next) places.delete(oldest.id)
      confirms[next] = { id, digest }
      places.set(id, next)
      next = (next + 1) % size
    },
  }
}
