import type { Books } from '../books.js'
import { linkOf } from '../books.js'
import type { AmqpState } from '../connections/amqp-queue.js'
import type { SpillState } from '../connections/spill.js'
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

/** The same for a queue with a spool: it is lost only when neither keeps anything. */
export const followSpill = (books: Books, name: string, log: Log): ((state: SpillState, reason: string) => void) => {
  const told = follow(books, name, log)
  return (state, reason) => {
    told(state === 'shut' ? { kind: 'lost', error: reason } : { kind: 'connected' })
    if (state === 'spool') log.warn({ queue: name, reason }, 'the spool takes what comes')
    if (state === 'direct') log.info({ queue: name }, 'the spool is empty: RabbitMQ takes what comes')
  }
}
