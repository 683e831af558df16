import { asyncScheduler, concat, Observable, switchMap, tap, throwError } from 'rxjs'
import type { Subscriber } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'
import { uncarriable } from '../message.js'
import type { Message } from '../message.js'
import { toAmqp } from './amqp-message.js'
import type { AmqpChannel, AmqpLink } from './amqp-port.js'
import { amqpLinks, ensureQueue } from './amqp-queue.js'
import type { AmqpSettings, DeclaredQueue } from './amqp-queue.js'
import { patience } from './patience.js'
import { reconnect } from './reconnect.js'

export interface AmqpWriterSettings extends AmqpSettings, DeclaredQueue {
  /** The oldest unconfirmed write may be this old, then the connection is given up. @default 1500 */
  readonly confirmTimeoutMs?: number
}

/** RabbitMQ took a message that no queue received: the queue is gone. */
export class Unrouted extends Error {
  override readonly name = 'Unrouted'
  readonly code = 'BACKHAUL_UNROUTED'
}

interface Write {
  readonly message: Message
  readonly done: Subscriber<never>
  since: number
  returned: boolean
}

/** What one connection leaves to the next. */
interface Caution {
  /** The last one ended with a refusal or a return. */
  wary: boolean
  /** The largest body that RabbitMQ takes, once it has told so: it closes the channel on a larger one. */
  maxBytes: number
}

const sizeRefused = /message size \d+ is larger than (?:configured )?max size (\d+)/

/**
 * Persistent, mandatory, confirmed; while the broker blocks us, writes wait here unsent, in order. So do they, after
 * a refusal or a return, behind the first one, until that is confirmed: if the queue takes messages again in the
 * middle of a window, what was refused would arrive behind what was not.
 */
const confirmedWriter = (
  link: AmqpLink,
  channel: AmqpChannel,
  { queue, confirmTimeoutMs = 1500, onState = () => {} }: AmqpWriterSettings,
  proven: () => void,
  caution: Caution,
): Observable<Writer<Message>> =>
  new Observable((subscriber) => {
    const unconfirmed = new Set<Write>() // in the order of publishing
    const sentAs = new Map<string, Write[]>() // by id: a return names the id, and the same one may be out twice
    const held = new Set<Write>() // not sent: the broker blocks publishers, or one goes first
    let blocked = false

    const fail = (error: Error): void => subscriber.error(error)
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
    const answered = (write: Write, refused: boolean): void => {
      forget(write)
      if (subscriber.closed) return
      if (refused || write.returned) caution.wary = true
      if (refused) return fail(new Error(`RabbitMQ refused a message for ${queue}`))
      if (write.returned) return fail(new Unrouted(`RabbitMQ has no queue ${queue}`))
      caution.wary = false
      proven()
      write.done.complete()
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
      try {
        channel.publish(queue, write.message.body, toAmqp(write.message), (refused) => answered(write, refused))
      } catch (error) {
        // The channel closed in this turn; its own event tells why, unless this was first.
        return fail(error as Error)
      }
      confirms.watch()
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
    subscriber.next(
      (message) => {
        const reason = uncarriable(message)
        if (reason !== undefined) return throwError(() => new Rejection(reason, 'rabbitmq'))
        if (message.body.length > caution.maxBytes) return throwError(() => new Rejection(`larger than the ${caution.maxBytes} bytes that RabbitMQ takes`, 'rabbitmq'))
        return new Observable<never>((done) => {
          const write: Write = { message, done, since: 0, returned: false }
          if (mayGo() && held.size === 0) return publish(write)
          held.add(write)
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
 * come in time end the connection; the next one makes the queue anew if it is gone.
 *
 * **Orders**: as written; after a refusal or a return one message goes first, and the others wait for its confirm.
 * **Holds**: what is unconfirmed; while RabbitMQ blocks publishers, and behind that first one, also what it was given, unsent.
 */
export const amqpWriter = (settings: AmqpWriterSettings): Connection<Message> => {
  const links = amqpLinks(settings)
  const caution: Caution = { wary: false, maxBytes: Number.POSITIVE_INFINITY }
  const learn = (error: unknown): void => {
    const told = sizeRefused.exec((error as Error).message)?.[1]
    if (told !== undefined) caution.maxBytes = Number(told)
  }
  const writerOn = (link: AmqpLink, proven: () => void): Observable<Writer<Message>> =>
    concat(
      ensureQueue(link, settings),
      link.channel({ confirms: true }).pipe(
        tap({ error: learn }),
        switchMap((channel) => confirmedWriter(link, channel, settings, proven, caution)),
      ),
    )
  return reconnect<Writer<Message>>(
    (proven) => links.pipe(switchMap((link) => writerOn(link, proven))),
    settings.onState === undefined ? {} : { onState: settings.onState },
  )
}
