/** RabbitMQ as a script: what its confirms, returns, acknowledgements and closing channels do, in whatever time rxjs keeps. */
import { Observable, of, Subject, throwError, timer } from 'rxjs'
import type { AmqpChannel, AmqpConsumer, AmqpLink, OpenAmqp, RawMessage } from '../../../src/connections/amqp-port.js'
import type { AmqpProperties } from '../../../src/connections/amqp-message.js'

interface Stored {
  readonly id: string
  readonly body: Buffer
  readonly persistent: boolean
  redelivered: boolean
}

export interface FakeRabbit {
  readonly open: OpenAmqp
  /** Ids that wait, in order, or undefined when there is no such queue. */
  readonly waiting: (queue: string) => readonly string[] | undefined
  readonly bodies: (queue: string) => readonly string[]
  readonly put: (queue: string, ...messages: readonly { id: string; body?: Buffer }[]) => void
  readonly remove: (queue: string) => void
  /** Ends every connection. */
  readonly lose: () => void
  /** Ends every connection, and forgets what was not persistent. */
  readonly restart: () => void
  readonly block: (reason: string | undefined) => void
  /** From now on: confirms nothing, refuses, or behaves. */
  readonly answer: (how: 'confirm' | 'refuse' | 'nothing') => void
  /** What was published, in order, also what was not confirmed. */
  readonly published: string[]
  /** `upTo 3` and `one 5`, as acknowledged. */
  readonly acknowledged: string[]
  readonly declared: { readonly queue: string; readonly queueArguments: Readonly<Record<string, unknown>> }[]
  /** How many connections were opened, and are open. */
  readonly opened: () => number
  readonly links: () => number
}

export const fakeRabbit = ({ version = '3.12.1', confirmMs = 1, queues: existing = [] as readonly string[] } = {}): FakeRabbit => {
  const queues = new Map<string, Stored[]>(existing.map((name) => [name, []]))
  const arrivals = new Subject<string>()
  const gone = new Subject<string>() // queues that were removed
  const lost = new Subject<never>()
  const blocked = new Subject<string | undefined>()
  const published: string[] = []
  const acknowledged: string[] = []
  const consumers: string[] = [] // the queue of each
  const declared: { queue: string; queueArguments: Readonly<Record<string, unknown>> }[] = []
  let how: 'confirm' | 'refuse' | 'nothing' = 'confirm'
  let opened = 0
  let links = 0

  const store = (queue: string, message: Stored): void => {
    queues.get(queue)?.push(message)
    arrivals.next(queue)
  }
  const publish = (returned: Subject<string>, alive: () => boolean): AmqpChannel['publish'] => (queue, body, { messageId: id, mandatory, deliveryMode }: AmqpProperties, answered) => {
    published.push(id)
    if (how === 'nothing') return
    const refuse = how === 'refuse'
    timer(confirmMs).subscribe(() => {
      if (!alive()) return
      // The broker says so of a message only when it was asked to.
      if (!refuse && !queues.has(queue) && mandatory) returned.next(id)
      if (!refuse) store(queue, { id, body, persistent: deliveryMode === 2, redelivered: false })
      answered(refuse)
    })
  }
  const consume: AmqpChannel['consume'] = (queue, prefetch, receive) =>
    new Observable<AmqpConsumer>((subscriber) => {
      const out = new Map<number, Stored>()
      let tag = 0
      let cancelled = false
      const give = (): void => {
        const sent: RawMessage[] = []
        const stored = queues.get(queue)
        while (!cancelled && !subscriber.closed && out.size < prefetch && stored !== undefined && stored.length > 0) {
          const message = stored.shift() as Stored
          tag += 1
          out.set(tag, message)
          sent.push({ content: message.body, fields: { deliveryTag: tag, redelivered: message.redelivered }, properties: { messageId: message.id } })
        }
        // It is with the client, whatever becomes of the channel meanwhile.
        for (const raw of sent) receive(raw)
      }
      const accept = (upTo: number, all: boolean): void => {
        acknowledged.push(`${all ? 'upTo' : 'one'} ${upTo}`)
        const tags = [...out.keys()].filter((one) => (all ? one <= upTo : one === upTo))
        if (tags.length === 0) return subscriber.error(new Error(`406 unknown delivery tag ${upTo}`))
        for (const one of tags) out.delete(one)
        timer(0).subscribe(give)
      }
      consumers.push(queue)
      subscriber.add(() => consumers.splice(consumers.indexOf(queue), 1))
      subscriber.next({ accept, cancel: () => (cancelled = true) })
      subscriber.add(timer(0).subscribe(give))
      subscriber.add(arrivals.subscribe((name) => name === queue && give()))
      subscriber.add(gone.subscribe((name) => name === queue && subscriber.error(new Error('the consumer was cancelled'))))
      subscriber.add(() => {
        const back = [...out.values()]
        for (const message of back) message.redelivered = true
        queues.get(queue)?.unshift(...back)
        out.clear()
      })
    })
  const channel = (alive: () => boolean): AmqpChannel => {
    const returned = new Subject<string>()
    return {
      check: (queue) => (queues.has(queue) ? of({ messages: queues.get(queue)?.length ?? 0, consumers: consumers.filter((name) => name === queue).length }) : throwError(() => Object.assign(new Error('404 no queue'), { code: 404 }))),
      declare: (queue, queueArguments) => {
        if (!queues.has(queue)) queues.set(queue, [])
        declared.push({ queue, queueArguments })
        return of(undefined)
      },
      purge: (queue) => of(queues.get(queue)?.splice(0).length ?? 0),
      publish: publish(returned, alive),
      returned,
      consume,
    }
  }
  /** Emits once, and stays until the connection ends. */
  const during = <A>(value: A, onEnd: () => void = () => undefined): Observable<A> =>
    new Observable((subscriber) => {
      subscriber.add(onEnd)
      subscriber.add(lost.subscribe(subscriber))
      subscriber.next(value)
    })
  const open: OpenAmqp = () =>
    new Observable((subscriber) => {
      opened += 1
      links += 1
      let there = true
      const link: AmqpLink = { serverVersion: version, blocked, channel: () => during(channel(() => there)) }
      const end = (): void => {
        there = false
        links -= 1
      }
      return during(link, end).subscribe(subscriber)
    })
  const lose = (): void => lost.observers.slice().forEach((one) => one.error(new Error('the connection was lost')))
  return {
    open,
    waiting: (queue) => queues.get(queue)?.map(({ id }) => id),
    bodies: (queue) => (queues.get(queue) ?? []).map(({ body }) => body.toString()),
    put: (queue, ...messages) => {
      if (!queues.has(queue)) queues.set(queue, [])
      for (const { id, body = Buffer.from('{}') } of messages) store(queue, { id, body, persistent: true, redelivered: false })
    },
    remove: (queue) => {
      queues.delete(queue)
      gone.next(queue)
    },
    lose,
    restart: () => {
      lose()
      for (const [queue, stored] of queues) queues.set(queue, stored.filter(({ persistent }) => persistent))
    },
    block: (reason) => blocked.next(reason),
    answer: (next) => (how = next),
    published,
    acknowledged,
    declared,
    opened: () => opened,
    links: () => links,
  }
}
