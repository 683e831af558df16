import type { Message } from '../message.js'

/** What was delivered lately, so that a repeat of it can be told. */
export interface Recent {
  /** True when this id, with these bytes, is among the last that were confirmed. */
  readonly has: (message: Message) => boolean
  readonly add: (message: Message) => void
}

/**
 * Remembers the last messages that Pulsar confirmed. A message is a repeat only when its id
 * *and* its digest are those of one of them; messages without a digest never are.
 *
 * **Holds**: `size` ids and digests.
 */
export const recent = (size = 10_000): Recent => {
  const digests = new Map<string, string>()
  return {
    has: ({ id, digest }) => digest !== undefined && digests.get(id) === digest,
    add: ({ id, digest }) => {
      if (digest === undefined) return
      digests.delete(id)
      digests.set(id, digest)
      if (digests.size <= size) return
      for (const oldest of digests.keys()) {
        digests.delete(oldest)
        break
      }
    },
  }
}
