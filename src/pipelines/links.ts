import type { Books } from '../books.js'
import { linkOf } from '../books.js'
import type { AmqpState } from '../connections/amqp-queue.js'
import type { Log } from '../log.js'

/** Writes a connection's states into the books and, when they change, into the log. */
export const follow =
  (books: Books, name: string, log: Log): ((state: AmqpState) => void) =>
  (state) => {
    const link = linkOf(books, name)
    const next = state.kind === 'unblocked' ? 'connected' : state.kind
    const reason = state.kind === 'lost' ? (state.error instanceof Error ? state.error.message : String(state.error)) : state.kind === 'blocked' ? state.reason : ''
    if (link.state === next && link.reason === reason) return
    const changed = link.state !== next
    link.reason = reason
    if (!changed && next === 'lost') return log.debug({ link: name, reason }, 'still away')
    link.state = next
    link.since = Date.now()
    if (next === 'connected') log.info({ link: name }, 'connected')
    else log.warn({ link: name, reason }, next)
  }
