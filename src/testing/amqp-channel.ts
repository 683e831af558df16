import { asapScheduler, Observable, Subject, Subscription, timer } from 'rxjs'
import type { AmqpChannel, AmqpConsumer, RawMessage } from '../connections/amqp-port.js'
import type { AmqpPlan } from './amqp.js'
import { memoryQueue } from './amqp-memory.js'
import type { Kept, MemoryQueue, Taker } from './amqp-memory.js'
import type { RowLog } from './rows.js'
import type { planner, Stage } from './stage.js'
import { ordinal } from './timeline.js'

/** What the channels of one broker share. */
export interface Broker {
  readonly stage: Stage
  readonly who: string
  readonly queues: Map<string, MemoryQueue>
  readonly channels: Set<OpenChannel>
  readonly planFor: ReturnType<typeof planner<AmqpPlan>>
  readonly maxMessageBytes: number
  readonly writes: RowLog
  readonly given: RowLog
  readonly accepted: RowLog
}

export interface OpenChannel {
  readonly fail: (error: Error) => void
  readonly cancelConsumers: () => void
}

const answerFrames = 1

/** Says to each publish what its plan says; nothing once the channel is closed. */
const confirms = ({ stage: { say }, who }: Broker, returned: Subject<string>, timers: Subscription) => {
  const together: { readonly number: number; readonly confirm: () => void }[] = []
  let published = 0
  return (plan: AmqpPlan, letter: string, id: string, answered: (refused: boolean) => void): void => {
    const number = (published += 1)
    const confirm = (): void => {
      while (together[0] !== undefined && together[0].number < number) together.shift()?.confirm()
      say(who, `confirms ${letter}`, letter)
      answered(false)
    }
    const refuse = (): void => {
      say(who, `refuses ${letter}`, letter)
      answered(true)
    }
    const giveBack = (): void => {
      say(who, `returns ${letter}: no queue`, letter)
      returned.next(id)
      confirm()
    }
    if (plan === 'silent') return
    if (plan === 'multiple') together.push({ number, confirm })
    else {
      const act = plan === 'refused' ? refuse : plan === 'returned' ? giveBack : confirm
      timers.add(timer(typeof plan === 'number' ? plan : answerFrames).subscribe(act))
    }
  }
}

/** Answers as from a socket: not within the call. */
const later = <A>(answer: () => A): Observable<A> =>
  new Observable((asked) =>
    asapScheduler.schedule(() => {
      try {
        asked.next(answer())
        asked.complete()
      } catch (error) {
        asked.error(error)
      }
    }),
  )

/** A channel of the scripted broker. */
export const openChannel = (broker: Broker): Observable<AmqpChannel> =>
  new Observable((subscriber) => {
    const { stage, who, queues, channels, planFor, maxMessageBytes, writes, given, accepted } = broker
    const life = new Subscription()
    const returned = new Subject<string>()
    const held = new Map<number, { readonly kept: Kept; readonly queue: MemoryQueue }>() // by tag, unacknowledged
    const consumers = new Set<Subject<never>>()
    const answer = confirms(broker, returned, life)
    let lastTag = 0
    let tooLarge = false // what comes behind such a message is not looked at

    const channel: OpenChannel = {
      fail: (error) => {
        life.unsubscribe()
        subscriber.error(error)
      },
      cancelConsumers: () => consumers.forEach((consumer) => consumer.error(new Error('the consumer was cancelled'))),
    }
    const end = (): void => {
      channels.delete(channel)
      for (const { kept, queue } of held.values()) queue.takeBack(kept)
      held.clear()
    }
    const found = (queue: string): MemoryQueue => {
      const known = queues.get(queue)
      if (known !== undefined) return known
      const missing = Object.assign(new Error(`NOT_FOUND - no queue '${queue}'`), { code: 404 })
      channel.fail(missing)
      throw missing
    }
    const alive = (): void => {
      if (life.closed) throw new Error('the channel is closed')
    }
    const accept = (tag: number, upTo: boolean): void => {
      alive()
      if (!held.has(tag)) return channel.fail(new Error(`PRECONDITION_FAILED - unknown delivery tag ${tag}`))
      for (const [one, { kept, queue }] of [...held]) {
        if (one !== tag && !(upTo && one < tag)) continue
        held.delete(one)
        stage.say(who, `${kept.letter} is accepted`, kept.letter)
        accepted.say(kept.letter)
        queue.accept(kept)
      }
    }
    const takerOf = (queue: MemoryQueue, prefetch: number, receive: (raw: RawMessage) => void): Taker => ({
      room: () => prefetch === 0 || held.size < prefetch,
      give: (kept) => {
        lastTag += 1
        held.set(lastTag, { kept, queue })
        stage.say(who, `gives ${kept.letter}${kept.redelivered ? ', redelivered' : ''}`, kept.letter)
        given.say(kept.letter)
        receive({ ...kept.raw, fields: { deliveryTag: lastTag, redelivered: kept.redelivered } })
      },
    })
    const port: AmqpChannel = {
      check: (name) =>
        later(() => {
          const { waiting, takers } = found(name)
          return { messages: waiting().length, consumers: takers() }
        }),
      purge: (queue) => later(() => found(queue).purge()),
      declare: (queue) => later(() => queues.has(queue) || queues.set(queue, memoryQueue(() => stage.scheduler.frame))),
      publish: (queue, content, { messageId, headers }, answered) => {
        alive()
        const letter = stage.of({ id: messageId })
        const { plan, tries } = planFor(letter)
        stage.say(who, `${letter} is published${tries === 1 ? '' : `, for the ${ordinal(tries)} time`}`, letter)
        writes.say(letter)
        if (content.length > maxMessageBytes && !tooLarge) {
          tooLarge = true
          const reason = `PRECONDITION_FAILED - message size ${content.length} is larger than configured max size ${maxMessageBytes}`
          life.add(timer(answerFrames).subscribe(() => channel.fail(new Error(reason))))
        }
        if (tooLarge) return
        const kept = plan === 'refused' || plan === 'returned' ? undefined : queues.get(queue)
        kept?.keep(letter, { content, properties: { messageId, headers } })
        answer(kept === undefined && plan !== 'refused' ? 'returned' : plan, letter, messageId, answered)
      },
      returned,
      consume: (name, prefetch, receive) =>
        new Observable<AmqpConsumer>((consuming) => {
          const cancelled = new Subject<never>()
          const begin = (queue: MemoryQueue): void => {
            const taker = takerOf(queue, prefetch, receive)
            consumers.add(cancelled)
            consuming.add(() => {
              consumers.delete(cancelled)
              queue.leave(taker)
            })
            consuming.next({ accept, cancel: () => queue.leave(taker) })
            queue.join(taker)
          }
          consuming.add(cancelled.subscribe(consuming))
          consuming.add(later(() => found(name)).subscribe({ next: begin, error: (error) => consuming.error(error) }))
        }),
    }
    channels.add(channel)
    life.add(end)
    subscriber.add(life)
    life.add(asapScheduler.schedule(() => subscriber.next(port)))
  })
