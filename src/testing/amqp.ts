import { asapScheduler, BehaviorSubject, filter, Observable, Subject, take, timeout } from 'rxjs'
import type { OpenAmqp } from '../connections/amqp-port.js'
import { openChannel } from './amqp-channel.js'
import type { Broker } from './amqp-channel.js'
import { lettersOf, memoryQueue } from './amqp-memory.js'
import { message } from './message.js'
import type { Row } from './rows.js'
import { obey, planner } from './stage.js'
import type { Plans, Stage } from './stage.js'

/**
 * What the broker says to one publish: confirmed after so many frames; `multiple`: confirmed
 * together with the next one that is confirmed by itself; `returned`: no queue has it, and
 * then confirmed; `refused`; `silent`: the queue has it, and its confirm is lost.
 */
export type AmqpPlan = number | 'multiple' | 'returned' | 'refused' | 'silent'

export interface ScriptedAmqpOptions {
  /** What other programs put into the queue, as marbles: messages with their letters as ids. @default none */
  readonly arrivals?: string
  /** The queue that is there from the beginning; others are missing until they are declared. @default 'queue' */
  readonly queue?: string
  /** `max_message_size`: a larger body closes the channel. @default no limit */
  readonly maxMessageBytes?: number
  /** The letters of the messages that are out and unsettled when the run ends. @default '' */
  readonly unsettled?: string
}

/** A broker by script. */
export interface ScriptedAmqp {
  /** For `open` in the settings of `amqpWriter` and `amqpReader`; the address does not matter. */
  readonly open: OpenAmqp
  /** The letter of each message, at the frame in which it is published. */
  readonly writes: Row
  /** The letter of each message, at the frame in which it is given to a consumer. */
  readonly given: Row
  /** The letter of each message, at the frame in which it is acknowledged. */
  readonly accepted: Row
  /** The letters of what a queue has now, in order; what is out and unacknowledged too. */
  readonly holds: (queue?: string) => string
  /** How many connections are open now. */
  readonly links: () => number
}

/**
 * RabbitMQ as its marbles say: `o` it is there, `x` it is lost, with every connection, `c` it
 * closes every channel, `b` it blocks publishers, `u` it lets them again, `!` it cancels every
 * consumer. It keeps what is published as soon as that comes, gives a consumer no more than
 * its prefetch, and puts what a closed channel had not acknowledged back to its place, to be
 * redelivered. To acknowledge an unknown tag closes the channel, as it does there.
 *
 * An attempt to connect waits for `o`, up to `connectTimeoutMs`. After a loss Backhaul rests
 * for 200 ms before it tries again, then 400, …: write `o---x 300ms o`.
 */
export const scriptedAmqp =
  (stage: Stage) =>
  (row: string, plans: Plans<AmqpPlan> = {}, { arrivals, queue: name = 'queue', maxMessageBytes = Number.POSITIVE_INFINITY, unsettled = '' }: ScriptedAmqpOptions = {}): ScriptedAmqp => {
    const who = stage.name('amqp')
    const now = (): number => stage.scheduler.frame
    const queue = memoryQueue(now)
    const broker: Broker = {
      stage,
      who,
      queues: new Map([[name, queue]]),
      channels: new Set(),
      planFor: planner<AmqpPlan>(plans, 1),
      maxMessageBytes,
      writes: stage.open(`${who}.writes`),
      given: stage.open(`${who}.given`),
      accepted: stage.open(`${who}.accepted`),
    }
    const up = new BehaviorSubject(false)
    const lost = new Subject<void>()
    const blocked = new Subject<string | undefined>()
    let links = 0

    const open: OpenAmqp = (_url, { connectTimeoutMs }) =>
      new Observable((subscriber) => {
        const connect = (): void => {
          links += 1
          subscriber.add(() => (links -= 1))
          subscriber.add(lost.subscribe(() => subscriber.error(new Error('the connection was lost'))))
          stage.say(who, 'is connected')
          subscriber.next({ serverVersion: '3.13.0', blocked, channel: () => openChannel(broker) })
        }
        const there = up.pipe(filter(Boolean), take(1), timeout(connectTimeoutMs))
        subscriber.add(there.subscribe({ next: () => subscriber.add(asapScheduler.schedule(connect)), error: (error) => subscriber.error(error) }))
      })
    obey(stage, who, row, {
      o: () => up.next(true),
      x: () => {
        stage.say(who, 'is lost')
        up.next(false)
        lost.next()
      },
      c: () => {
        stage.say(who, 'closes every channel')
        for (const channel of [...broker.channels]) channel.fail(new Error('the channel was closed by the broker'))
      },
      b: () => {
        stage.say(who, 'blocks publishers')
        blocked.next('low on memory')
      },
      u: () => {
        stage.say(who, 'lets publishers again')
        blocked.next(undefined)
      },
      '!': () => {
        stage.say(who, 'cancels every consumer')
        for (const channel of [...broker.channels]) channel.cancelConsumers()
      },
    })
    if (arrivals !== undefined) {
      stage.given(`${who} arrivals`, arrivals)
      stage.helpers.hot(arrivals).subscribe((letter) => {
        stage.say(who, `${letter} comes into ${name}, from another program`, letter)
        queue.keep(letter, { content: message(letter).body, properties: { messageId: letter } })
      })
    }
    stage.owes(unsettled, () =>
      [...broker.queues.values()].flatMap(({ outside }) => [...outside].map(({ letter, givenAtMs }) => ({ letter, given: `given by ${who} at ${givenAtMs} ms` }))),
    )
    return {
      open,
      writes: broker.writes.row,
      given: broker.given.row,
      accepted: broker.accepted.row,
      holds: (asked = name) => lettersOf(broker.queues.get(asked)),
      links: () => links,
    }
  }
