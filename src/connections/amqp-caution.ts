/**
 * What one connection to RabbitMQ leaves to the next.
 *
 * RabbitMQ confirms what is on its way to a queue that is being deleted, and no queue has it. A later message that is
 * confirmed, and was sent after that confirm, proves that the queue was still there; one that is returned, or a queue
 * that had to be made, that it may have been gone.
 */
import type { Message } from '../message.js'

/** A message that was sent: its place among all of them, and how many confirms had come before it. */
export interface Sent {
  readonly message: Message
  readonly place: number
  readonly after: number
}

export interface Caution {
  /** The last connection ended with a refusal or a return. */
  wary: boolean
  /** The largest body that RabbitMQ takes, in bytes, once it has told so. */
  readonly maxBytes: () => number
  /** Looks whether a channel was closed on a message that is too large. */
  readonly learn: (error: unknown) => void
  readonly sending: (message: Message) => Sent
  readonly confirmed: (sent: Sent) => void
  /** Whether something is confirmed that nothing later has proven: at most a window is, or two while it writes again. */
  readonly hasUnproven: () => boolean
  /** The queue was gone: what is unproven is to be written again. */
  readonly doubt: () => void
  /** Confirmed once, and to be written again before anything else, in order. */
  readonly again: () => readonly Message[]
  readonly written: (message: Message) => void
}

const sizeRefused = /message size \d+ is larger than (?:configured )?max size (\d+)/

export const createCaution = (): Caution => {
  let maxBytes = Number.POSITIVE_INFINITY
  let places = 0
  let confirms = 0
  let unproven: { readonly sent: Sent; readonly confirms: number }[] = [] // in the order of their confirms
  let again: Message[] = []

  return {
    wary: false,
    maxBytes: () => maxBytes,
    learn: (error) => {
      const told = sizeRefused.exec((error as Error).message)?.[1]
      if (told !== undefined) maxBytes = Number(told)
    },
    sending: (message) => ({ message, place: (places += 1), after: confirms }),
    confirmed: (sent) => {
      while (unproven[0] !== undefined && unproven[0].confirms <= sent.after) unproven.shift()
      unproven.push({ sent, confirms: (confirms += 1) })
    },
    hasUnproven: () => unproven.length > 0,
    doubt: () => {
      const inOrder = unproven.sort((a, b) => a.sent.place - b.sent.place)
      again = [...inOrder.map(({ sent }) => sent.message), ...again]
      unproven = []
    },
    again: () => again,
    written: (message) => (again = again.filter((other) => other !== message)),
  }
}
