import { asyncScheduler, concat, NEVER, Observable, switchMap, tap, throwError } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'
import { uncarriable } from '../message.js'
import type { Message } from '../message.js'
import { createCaution } from './amqp-caution.js'
import type { Caution, Sent } from './amqp-caution.js'
import { toAmqp } from './amqp-message.js'
import type { AmqpChannel, AmqpLink } from './amqp-port.js'
import { amqpLinks, ensureQueue } from './amqp-queue.js'
import type { AmqpSettings, DeclaredQueue } from './amqp-queue.js'
import { patience } from './patience.js'
import { reconnect } from './reconnect.js'

export interface AmqpWriterSettings extends AmqpSettings, DeclaredQueue {
  /** The oldest unconfirmed write may be this old, then the connection is given up. @default 1500 */
  readonly confirmTimeoutMs?: number
  /** Emits when somebody else in this process has made the queue, for it was gone. @default never */
  readonly made?: Observable<unknown>
}

/** RabbitMQ took a message that no queue received: the queue is gone. */
export class Unrouted extends Error {
  override readonly name = 'Unrouted'
  readonly code = 'BACKHAUL_UNROUTED'
}

interface Write {
  readonly message: Message
  readonly confirmed: () => void
  since: number
  returned: boolean
}

/**
 * Persistent, mandatory, confirmed; while the broker blocks us, writes wait here unsent, in order. So do they, after
 * a refusal or a return, behind the first one, until that is confirmed: if the queue takes messages again in the
 * middle of a window, what was refused would arrive behind what was not.
 */
const confirmedWriter = (
  link: AmqpLink,
  channel: AmqpChannel,
  { queue, confirmTimeoutMs = 1500, onState = () => {}, made = NEVER }: AmqpWriterSettings,
  proven: () => void,
  caution: Caution,
): Observable<Writer<Message>> =>
  new Observable((subscriber) => {
    const unconfirmed = new Set<Write>() // in the order of publishing
    const sentAs = new Map<string, Write[]>() // by id: a return names the id, and the same one may be out twice
    const held = new Set<Write>() // not sent: the broker blocks publishers, or one goes first
    let blocked = false

    const fail = (error: Error): void => subscriber.error(error)
    const gone = (): void => {
      caution.doubt()
      fail(new Unrouted(`RabbitMQ has no queue ${queue}`))
    }
    const oldest = (): number | undefined => {
      const [first] = unconfirmed
      return blocked ? undefined : first?.since
    }
    const confirms = patience(confirmTimeoutMs, oldest, () => fail(new Error(`no confirm for ${confirmTimeoutMs} ms`)))
    const forget = (write: Write): void => {
      unconfirmed.delete(write)
      const same = sentAs.get(write.message.id)
      if (same === undefined || same.length === 1) sentAs.delete(write.message.id)
      else same.splice(same.indexOf(write), 1)
    }
    const answered = (write: Write, sent: Sent, refused: boolean): void => {
      forget(write)
      if (subscriber.closed) return
      if (refused || write.returned) caution.wary = true
      if (refused) return fail(new Error(`RabbitMQ refused a message for ${queue}`))
      if (write.returned) return gone()
      caution.wary = false
      caution.confirmed(sent)
      proven()
      write.confirmed()
      release()
    }
    const mayGo = (): boolean => !blocked && (!caution.wary || unconfirmed.size === 0)
    const release = (): void => {
      for (const write of held) {
        if (!mayGo()) return
        held.delete(write)
        publish(write)
      }
    }
    const publish = (write: Write): void => {
      write.since = asyncScheduler.now()
      unconfirmed.add(write)
      const same = sentAs.get(write.message.id)
      if (same === undefined) sentAs.set(write.message.id, [write])
      else same.push(write)
      const sent = caution.sending(write.message)
      try {
        channel.publish(queue, write.message.body, toAmqp(write.message), (refused) => answered(write, sent, refused))
      } catch (error) {
        // The channel closed in this turn; its own event tells why, unless this was first.
        return fail(error as Error)
      }
      confirms.watch()
    }
    const send = (message: Message, confirmed: () => void): Write => {
      const write: Write = { message, confirmed, since: 0, returned: false }
      if (mayGo() && held.size === 0) publish(write)
      else held.add(write)
      return write
    }
    const resume = (): void => {
      blocked = false
      for (const write of unconfirmed) write.since = asyncScheduler.now()
      onState({ kind: 'unblocked' })
      release()
      confirms.watch()
    }
    // The return comes before the confirm: a confirm alone does not say that a queue has it.
    subscriber.add(
      channel.returned.subscribe((id) => {
        const write = sentAs.get(id)?.find(({ returned }) => !returned)
        if (write !== undefined) write.returned = true
      }),
    )
    subscriber.add(
      link.blocked.subscribe((reason) => {
        if (reason === undefined) return resume()
        blocked = true
        onState({ kind: 'blocked', reason })
      }),
    )
    subscriber.add(made.subscribe(() => caution.hasUnproven() && gone()))
    for (const message of caution.again()) send(message, () => caution.written(message))
    subscriber.next(
      (message) => {
        const reason = uncarriable(message)
        if (reason !== undefined) return throwError(() => new Rejection(reason, 'rabbitmq'))
        if (message.body.length > caution.maxBytes()) return throwError(() => new Rejection(`larger than the ${caution.maxBytes()} bytes that RabbitMQ takes`, 'rabbitmq'))
        return new Observable<never>((done) => {
          const write = send(message, () => done.complete())
          return () => held.delete(write)
        })
      },
    )
    return confirms.stop
  })

/**
 * Publishes to a queue over a connection of its own: exchange `""`, routing key the queue's name.
 *
 * A write completes when RabbitMQ has confirmed the persistent message and has not returned it
 * as unroutable. What AMQP cannot carry is rejected, unsent; so is, from the first one on for which RabbitMQ has
 * closed the channel, what is larger than its `max_message_size`. A refusal, a return, and a confirm that does not
 * come in time end the connection; the next one makes the queue anew if it is gone. A queue
 * that was gone also means that RabbitMQ may have lost what it confirmed last, on its way to it: that is written again first.
 *
 * **Orders**: as written; after a refusal or a return one message goes first, and the others wait for its confirm.
 * **Holds**: what is unconfirmed, and of what is confirmed the last window; while RabbitMQ blocks publishers, and behind that first one, also what it was given, unsent.
 */
export const amqpWriter = (settings: AmqpWriterSettings): Connection<Message> => {
  const links = amqpLinks(settings)
  const caution = createCaution()
  const onMade = (): void => {
    caution.doubt()
    settings.onMade?.()
  }
  const writerOn = (link: AmqpLink, proven: () => void): Observable<Writer<Message>> =>
    concat(
      ensureQueue(link, { ...settings, onMade }),
      link.channel({ confirms: true }).pipe(
        tap({ error: caution.learn }),
        switchMap((channel) => confirmedWriter(link, channel, settings, proven, caution)),
      ),
    )
  return reconnect<Writer<Message>>(
    (proven) => links.pipe(switchMap((link) => writerOn(link, proven))),
    settings.onState === undefined ? {} : { onState: settings.onState },
  )
}
