/**
 * RabbitMQ as far as a client can tell: queues, confirms, returns, prefetch, requeueing in
 * order, alarms, and what a kill leaves of it. Its clients talk to it through the AMQP port.
 */
import { Observable } from 'rxjs'
import type { AmqpProperties } from '../../src/connections/amqp-message.js'
import type { AmqpChannel, AmqpConsumer, AmqpLink, OpenAmqp, RawMessage } from '../../src/connections/amqp-port.js'
import { clock } from './clock.js'
import type { Owner } from './clock.js'
import { gate, nearby, numberOf, pipe } from './ground.js'
import type { Ground, Pipe } from './ground.js'

interface Stored {
  readonly position: number
  readonly record: number
  readonly body: Buffer
  readonly properties: AmqpProperties
  /** On the disk, and so confirmed. */
  safe: boolean
  redelivered: boolean
}

interface Queue {
  readonly name: string
  ready: Stored[]
  readonly consumers: Set<Consumer>
  /** Acknowledged a moment ago: a kill may bring them back. */
  acked: { readonly stored: Stored; readonly at: number }[]
}

interface Consumer {
  readonly channel: Channel
  readonly queue: Queue
  readonly prefetch: number
  readonly receive: (raw: RawMessage) => void
  readonly lost: (error: Error) => void
}

interface Channel {
  readonly peer: Peer
  /** The server's side of it. */
  open: boolean
  readonly unacked: Map<number, { readonly stored: Stored; readonly queue: Queue }>
  tag: number
  refused: boolean
  consumer: Consumer | undefined
  /** The client's side of it. */
  closed: boolean
  readonly unconfirmed: Set<{ readonly answered: (refused: boolean) => void }>
  lost: (error: Error) => void
  returned: Set<(id: string) => void>
}

interface Peer {
  readonly owner: Owner
  readonly toServer: Pipe
  readonly toClient: Pipe
  readonly channels: Set<Channel>
  open: boolean
  /** The client has closed it, or has lost it. */
  closed: boolean
  /** Nothing reaches the client any more; it has not noticed yet. */
  severed: boolean
  /** The server has lost what it had not read. */
  deaf: boolean
  /** It confirms nothing any more. */
  mute: boolean
  /** As the client has them; `channels` are the server's. */
  readonly clientChannels: Set<Channel>
  publishes: boolean
  /** What the server does not read while publishers are blocked. */
  held: (() => void)[]
  lost: (error: Error) => void
  readonly blocked: Set<(reason: string | undefined) => void>
}

const reason = 'low on memory'
const ackedMs = 20

export interface Rabbit {
  readonly open: (owner: Owner) => OpenAmqp
  readonly kill: () => void
  readonly start: () => void
  readonly freeze: () => void
  readonly thaw: () => void
  readonly block: () => void
  readonly unblock: () => void
  /** So much longer for each confirm. */
  readonly slow: (ms: number) => void
  /** Every connection is reset; what is under way is lost. */
  readonly cut: () => void
  /** The connections that are open get no confirm any more, and live. */
  readonly mute: () => void
  readonly deleteQueue: (name: string) => void
  readonly cancelConsumers: () => void
  readonly closeChannels: () => void
  /** Refuses messages; a channel that has had a refusal gets nothing else. */
  readonly refuse: (refuses: boolean) => void
  readonly died: (owner: Owner) => void
  /** Messages that are in a queue, outside or not. */
  readonly records: (queue: string) => readonly number[]
  readonly inFlight: () => { readonly unconfirmed: number; readonly unacked: number }
  readonly most: () => { readonly unconfirmed: number; readonly unacked: number }
  /** Records that an operator deleted with their queue. */
  readonly destroyed: ReadonlySet<number>
}

export const simulatedRabbit = (version: string, { random, trace, point, fail }: Ground): Rabbit => {
  const latency = nearby(random)
  const door = gate()
  const heartbeats = new WeakMap<Peer, number>()
  const queues = new Map<string, Queue>()
  const peers = new Set<Peer>()
  const destroyed = new Set<number>()
  let up = true
  let life = 0
  let alarm = false
  let positions = 0
  let slowMs = 0
  let refusing = false
  let most = { unconfirmed: 0, unacked: 0 }
  let syncing = pipe(() => random.between(1, 8) / 2 + slowMs)

  const arrive = (peer: Peer, command: () => void): void =>
    door.pass(() => {
      if (!peer.open || peer.deaf) return
      if (alarm && peer.publishes) peer.held.push(command)
      else command()
    })
  const ask = (peer: Peer, command: () => void): void => {
    if (peer.owner.alive && !peer.closed) peer.toServer(() => arrive(peer, command))
  }
  const tell = (peer: Peer, say: () => void): void =>
    peer.toClient(() => {
      if (peer.owner.alive && !peer.closed && !peer.severed) say()
    })

  const dispatch = (queue: Queue): void => {
    for (const consumer of queue.consumers) {
      const { channel, prefetch, receive } = consumer
      while (queue.ready.length > 0 && channel.unacked.size < prefetch) {
        const stored = queue.ready.shift() as Stored
        const tag = (channel.tag += 1)
        channel.unacked.set(tag, { stored, queue })
        most = { ...most, unacked: Math.max(most.unacked, channel.unacked.size) }
        const raw: RawMessage = {
          content: Buffer.from(stored.body),
          fields: { deliveryTag: tag, redelivered: stored.redelivered },
          properties: { messageId: stored.properties.messageId, headers: stored.properties.headers },
        }
        tell(channel.peer, () => {
          if (channel.closed) return
          point('receive')
          trace(`rabbitmq gives ${stored.record} tag ${tag} from ${queue.name}`)
          if (channel.peer.owner.alive) receive(raw)
        })
      }
    }
  }
  const requeue = (channel: Channel): void => {
    if (!channel.open) return
    channel.open = false
    channel.peer.channels.delete(channel)
    const touched = new Set<Queue>()
    if (channel.consumer !== undefined) {
      channel.consumer.queue.consumers.delete(channel.consumer)
      touched.add(channel.consumer.queue)
    }
    for (const { stored, queue } of channel.unacked.values()) {
      stored.redelivered = true
      queue.ready.push(stored)
      touched.add(queue)
    }
    channel.unacked.clear()
    for (const queue of touched) {
      queue.ready.sort((a, b) => a.position - b.position)
      if (queues.get(queue.name) === queue) dispatch(queue)
    }
  }
  const closePeer = (peer: Peer): void => {
    peer.open = false
    peers.delete(peer)
    for (const channel of [...peer.channels]) requeue(channel)
  }
  /** The client learns that its connection is gone: first whoever waits for a confirm, then the channels, then itself. */
  const lose = (peer: Peer, error: Error): void => {
    if (peer.closed || !peer.owner.alive) return
    peer.closed = true
    for (const channel of peer.clientChannels) loseChannel(channel, error)
    peer.lost(error)
  }
  const loseChannel = (channel: Channel, error: Error): void => {
    if (channel.closed) return
    channel.closed = true
    channel.peer.clientChannels.delete(channel)
    for (const { answered } of channel.unconfirmed) answered(true)
    channel.unconfirmed.clear()
    channel.lost(error)
  }
  const reset = (peer: Peer, text: string): void => {
    peer.severed = true
    clock.after(latency(), () => lose(peer, new Error(text)))
  }

  const publish = (channel: Channel, confirms: boolean, name: string, body: Buffer, properties: AmqpProperties, waiting: { answered: (refused: boolean) => void }): void => {
    const { peer } = channel
    const record = numberOf(body)
    const answer = (refused: boolean): void =>
      tell(peer, () => {
        if (channel.closed || !confirms || peer.mute) return
        point('confirm')
        trace(`rabbitmq ${refused ? 'refuses' : 'confirms'} ${record} for ${name}`)
        if (!peer.owner.alive || !channel.unconfirmed.delete(waiting)) return
        waiting.answered(refused)
      })
    const queue = queues.get(name)
    channel.refused ||= refusing
    if (channel.refused) return answer(true)
    if (queue === undefined) {
      trace(`rabbitmq has no ${name} for ${record}`)
      if ((properties as { mandatory?: boolean }).mandatory === true) tell(peer, () => channel.returned.forEach((listen) => listen(properties.messageId)))
      return answer(false)
    }
    positions += 1
    const stored: Stored = { position: positions, record, body: Buffer.from(body), properties, safe: false, redelivered: false }
    trace(`rabbitmq takes ${record} for ${name}`)
    queue.ready.push(stored)
    const born = life
    syncing(() =>
      door.pass(() => {
        if (born !== life) return
        stored.safe = true
        answer(false)
      }),
    )
    dispatch(queue)
  }

  const accept = (channel: Channel, tag: number, upTo: boolean): void => {
    if (!channel.open) return
    const tags = upTo ? [...channel.unacked.keys()].filter((known) => known <= tag) : [tag]
    if (!channel.unacked.has(tag)) {
      fail('protocol', `an acknowledgement of unknown tag ${tag}`)
      return closeChannel(channel, Object.assign(new Error('PRECONDITION_FAILED: unknown delivery tag'), { code: 406 }))
    }
    const touched = new Set<Queue>()
    for (const known of tags) {
      const entry = channel.unacked.get(known)
      if (entry === undefined) continue
      channel.unacked.delete(known)
      entry.queue.acked.push({ stored: entry.stored, at: clock.now() })
      touched.add(entry.queue)
    }
    trace(`rabbitmq hears of tag ${tag}${upTo ? ' and before' : ''}`)
    for (const queue of touched) {
      queue.acked = queue.acked.filter(({ at }) => clock.now() - at < ackedMs)
      if (queues.get(queue.name) === queue) dispatch(queue)
    }
  }
  const closeChannel = (channel: Channel, error: Error): void => {
    requeue(channel)
    tell(channel.peer, () => loseChannel(channel, error))
  }

  const consume = (channel: Channel, name: string, prefetch: number, receive: (raw: RawMessage) => void): Observable<AmqpConsumer> =>
    new Observable((subscriber) => {
      const { peer } = channel
      ask(peer, () =>
        tell(peer, () => {
          if (channel.closed || subscriber.closed) return
          subscriber.next({
            accept: (tag, upTo) => {
              if (channel.closed || peer.closed) throw new Error('the channel is closed')
              point('ack')
              ask(peer, () => accept(channel, tag, upTo))
            },
            cancel: () =>
              ask(peer, () => {
                if (channel.consumer === undefined) return
                channel.consumer.queue.consumers.delete(channel.consumer)
              }),
          })
          ask(peer, () => {
            const queue = queues.get(name)
            if (!channel.open) return
            if (queue === undefined) return closeChannel(channel, Object.assign(new Error(`no queue ${name}`), { code: 404 }))
            channel.consumer = { channel, queue, prefetch, receive, lost: (error) => subscriber.error(error) }
            queue.consumers.add(channel.consumer)
            dispatch(queue)
          })
        }),
      )
    })

  const ports = (channel: Channel, confirms: boolean): AmqpChannel => {
    const { peer } = channel
    const request = <T>(act: () => T): Observable<T> =>
      new Observable((subscriber) => {
        ask(peer, () => {
          if (!channel.open) return
          try {
            const found = act()
            tell(peer, () => {
              subscriber.next(found)
              subscriber.complete()
            })
          } catch (error) {
            requeue(channel)
            tell(peer, () => {
              subscriber.error(error)
              loseChannel(channel, error as Error)
            })
          }
        })
      })
    const find = (name: string): Queue => {
      const queue = queues.get(name)
      if (queue === undefined) throw Object.assign(new Error(`NOT_FOUND - no queue '${name}'`), { code: 404 })
      return queue
    }
    return {
      check: (name) =>
        request(() => {
          const { ready, consumers } = find(name)
          return { messages: ready.length, consumers: consumers.size }
        }),
      declare: (name) =>
        request(() => {
          if (queues.has(name)) return
          trace(`rabbitmq makes ${name}`)
          queues.set(name, { name, ready: [], consumers: new Set(), acked: [] })
        }),
      purge: (name) => request(() => find(name).ready.splice(0).length),
      publish: (name, body, properties, answered) => {
        if (channel.closed || peer.closed) throw new Error('the channel is closed')
        const waiting = { answered }
        if (confirms) channel.unconfirmed.add(waiting)
        most = { ...most, unconfirmed: Math.max(most.unconfirmed, channel.unconfirmed.size) }
        point('publish')
        const copy = Buffer.from(body)
        ask(peer, () => {
          if (!channel.open) return
          if (!peer.publishes) {
            peer.publishes = true
            if (alarm) {
              tell(peer, () => peer.blocked.forEach((listen) => listen(reason)))
              return void peer.held.push(() => publish(channel, confirms, name, copy, properties, waiting))
            }
          }
          publish(channel, confirms, name, copy, properties, waiting)
        })
      },
      returned: new Observable((subscriber) => {
        const listen = (id: string): void => subscriber.next(id)
        channel.returned.add(listen)
        return () => channel.returned.delete(listen)
      }),
      consume: (name, prefetch, receive) => consume(channel, name, prefetch, receive),
    }
  }

  const openChannel = (peer: Peer, confirms: boolean): Observable<AmqpChannel> =>
    new Observable((subscriber) => {
      const channel: Channel = {
        peer,
        open: true,
        unacked: new Map(),
        tag: 0,
        refused: false,
        consumer: undefined,
        closed: false,
        unconfirmed: new Set(),
        lost: (error) => {
          channel.consumer?.lost(error)
          subscriber.error(error)
        },
        returned: new Set(),
      }
      if (peer.owner.alive && !peer.closed) peer.clientChannels.add(channel)
      ask(peer, () => {
        peer.channels.add(channel)
        tell(peer, () => {
          if (!channel.closed) subscriber.next(ports(channel, confirms))
        })
      })
      return () => {
        if (channel.closed) return
        ask(peer, () => requeue(channel))
        channel.closed = true
        peer.clientChannels.delete(channel)
      }
    })

  const open =
    (owner: Owner): OpenAmqp =>
    (_url, { heartbeatS, connectTimeoutMs }) =>
      new Observable<AmqpLink>((subscriber) => {
        if (!owner.alive) return
        const peer: Peer = {
          owner,
          toServer: pipe(latency),
          toClient: pipe(latency),
          channels: new Set(),
          open: false,
          closed: false,
          severed: false,
          deaf: false,
          mute: false,
          clientChannels: new Set(),
          publishes: false,
          held: [],
          lost: (error) => subscriber.error(error),
          blocked: new Set(),
        }
        const link: AmqpLink = {
          serverVersion: version,
          blocked: new Observable((listener) => {
            const listen = (why: string | undefined): void => listener.next(why)
            peer.blocked.add(listen)
            return () => peer.blocked.delete(listen)
          }),
          channel: ({ confirms }) => openChannel(peer, confirms),
        }
        let answered = false
        const refused = (text: string): void => {
          if (!answered && !peer.closed && owner.alive) lose(peer, new Error(text))
        }
        peer.toServer(() => {
          if (!up) return peer.toClient(() => refused('ECONNREFUSED'))
          door.pass(() => {
            if (peer.closed) return
            peer.open = true
            peers.add(peer)
            heartbeats.set(peer, heartbeatS * 1000)
            tell(peer, () => {
              answered = true
              subscriber.next(link)
            })
          })
        })
        clock.after(connectTimeoutMs, () => refused('ETIMEDOUT'))
        return () => {
          if (peer.closed) return
          // Closing is the last thing said; the reset that follows may take from a frozen server what it has not read.
          const rude = door.frozen() && random.chance(0.2)
          if (rude) door.pass(() => closePeer(peer))
          else ask(peer, () => closePeer(peer))
          peer.deaf = rude
          peer.closed = true
          for (const channel of peer.clientChannels) channel.closed = true
        }
      })

  const kill = (): void => {
    trace('rabbitmq dies')
    up = false
    life += 1
    door.clear()
    alarm = false
    syncing = pipe(() => random.between(1, 8) / 2 + slowMs)
    for (const queue of queues.values()) {
      const outside = [...peers].flatMap((peer) => [...peer.channels].flatMap((channel) => [...channel.unacked.values()]))
      const all = [...queue.ready, ...outside.filter((entry) => entry.queue === queue).map(({ stored }) => stored)]
      const back = queue.acked.filter(({ at, stored }) => stored.safe && clock.now() - at < ackedMs && random.chance(0.5))
      const kept = [...all, ...back.map(({ stored }) => stored)]
        .filter(({ properties }) => (properties.deliveryMode as number) === 2)
        .sort((a, b) => a.position - b.position)
      const unsafe = kept.filter(({ safe }) => !safe)
      const survive = new Set(unsafe.slice(0, random.between(0, unsafe.length)))
      queue.ready = kept.filter((stored) => stored.safe || survive.has(stored))
      for (const stored of queue.ready) {
        stored.safe = true
        stored.redelivered ||= random.chance(0.5)
      }
      queue.acked = []
      queue.consumers.clear()
    }
    for (const peer of [...peers]) {
      peer.open = false
      peers.delete(peer)
      reset(peer, 'ECONNRESET')
      for (const channel of peer.channels) channel.open = false
    }
  }
  return {
    open,
    destroyed,
    kill,
    start: () => {
      up = true
      trace('rabbitmq runs')
    },
    freeze: () => {
      trace('rabbitmq freezes')
      door.freeze()
      for (const peer of peers) {
        const beat = heartbeats.get(peer) ?? 10_000
        const born = life
        // Two heartbeats are missed before the third is given up.
        clock.after(2 * beat + random.between(0, beat), () => {
          if (!door.frozen() || born !== life) return
          lose(peer, new Error('heartbeat timeout'))
          door.pass(() => closePeer(peer))
        })
      }
    },
    thaw: () => {
      trace('rabbitmq thaws')
      door.thaw()
    },
    block: () => {
      trace('rabbitmq blocks publishers')
      alarm = true
      for (const peer of peers) if (peer.publishes) tell(peer, () => peer.blocked.forEach((listen) => listen(reason)))
    },
    unblock: () => {
      if (!alarm) return
      trace('rabbitmq unblocks')
      alarm = false
      for (const peer of peers) {
        if (peer.publishes) tell(peer, () => peer.blocked.forEach((listen) => listen(undefined)))
        const { held } = peer
        peer.held = []
        for (const command of held) arrive(peer, command)
      }
    },
    slow: (ms) => {
      slowMs = ms
    },
    cut: () => {
      trace('rabbitmq connections are reset')
      for (const peer of [...peers]) {
        reset(peer, 'ECONNRESET')
        door.pass(() => closePeer(peer))
      }
    },
    mute: () => {
      trace('rabbitmq confirms nothing more on what is open')
      for (const peer of peers) peer.mute = true
    },
    deleteQueue: (name) => {
      const queue = queues.get(name)
      if (queue === undefined || !up) return
      trace(`an operator deletes ${name}`)
      queues.delete(name)
      for (const { record } of queue.ready) destroyed.add(record)
      for (const peer of peers)
        for (const channel of peer.channels)
          for (const { stored, queue: from } of channel.unacked.values()) if (from === queue) destroyed.add(stored.record)
      for (const { channel, lost } of queue.consumers) tell(channel.peer, () => !channel.closed && lost(new Error(`the consumer of ${name} was cancelled`)))
      queue.consumers.clear()
    },
    cancelConsumers: () => {
      trace('rabbitmq cancels every consumer')
      for (const { consumers, name } of queues.values()) {
        for (const { channel, lost } of consumers) tell(channel.peer, () => !channel.closed && lost(new Error(`the consumer of ${name} was cancelled`)))
        consumers.clear()
      }
    },
    closeChannels: () => {
      trace('rabbitmq closes every channel')
      for (const peer of peers) for (const channel of [...peer.channels]) closeChannel(channel, new Error('the channel was closed'))
    },
    refuse: (refuses) => {
      refusing = refuses
    },
    died: (owner) => {
      for (const peer of peers) if (peer.owner === owner) peer.toServer(() => door.pass(() => closePeer(peer)))
    },
    records: (name) => {
      const queue = queues.get(name)
      if (queue === undefined) return []
      const outside = [...peers].flatMap((peer) => [...peer.channels].flatMap((channel) => [...channel.unacked.values()]))
      return [...queue.ready, ...outside.filter((entry) => entry.queue === queue).map(({ stored }) => stored)].map(({ record }) => record)
    },
    inFlight: () => {
      const channels = [...peers].flatMap((peer) => [...peer.channels])
      return {
        unconfirmed: channels.reduce((sum, { unconfirmed }) => sum + unconfirmed.size, 0),
        unacked: channels.reduce((sum, { unacked }) => sum + unacked.size, 0),
      }
    },
    most: () => most,
  }
}
