/**
 * A Pulsar topic behind the WebSocket API: frames as the real one takes and gives them,
 * receipts in order, and the ways in which it fails.
 */
import { Observable } from 'rxjs'
import { HandshakeRefused, SocketClosed } from '../../src/connections/web-socket.js'
import type { OpenSocket, OpenWebSocket } from '../../src/connections/web-socket.js'
import { clock } from './clock.js'
import type { Owner } from './clock.js'
import { gate, nearby, numberOf, pipe } from './ground.js'
import type { Ground, Pipe } from './ground.js'

/** What a topic keeps. */
export interface Kept {
  readonly record: number
  readonly id: string
  readonly payload: string
}

interface Frame {
  readonly payload: string
  readonly properties: Readonly<Record<string, string>>
  readonly context: string
  readonly key: string
}

interface Waiting {
  readonly kept: Kept
  readonly context: string
}

interface Peer {
  readonly owner: Owner
  readonly toServer: Pipe
  readonly toClient: Pipe
  readonly silenceMs: number
  open: boolean
  closed: boolean
  /** Nothing reaches the client any more; it has not noticed yet. */
  severed: boolean
  /** Everything that it is sent is answered with an error. */
  failing: boolean
  mute: boolean
  readonly pending: Waiting[]
  /** Frames without an answer, and bytes that the server has not taken. */
  unanswered: number
  untaken: number
  readonly receive: (text: string) => void
  readonly lost: (error: Error) => void
}

/** What the system takes from a process for a peer that reads nothing. */
const kernelBytes = 64 * 1024
const batchMs = 5

export interface Pulsar {
  readonly open: (owner: Owner) => OpenWebSocket
  readonly kill: () => void
  readonly start: () => void
  readonly freeze: () => void
  readonly thaw: () => void
  readonly slow: (ms: number) => void
  readonly cut: () => void
  /** The sockets that are open get no answer any more, and live. */
  readonly mute: () => void
  /** Answers what is pending, and what comes on the open sockets, with an error of its own. */
  readonly failSends: () => void
  /** Refuses handshakes with this status, or takes them again. */
  readonly refuse: (status: number | undefined) => void
  /** Moves to another broker: the proxy sends what is pending again by itself. */
  readonly unload: () => void
  readonly died: (owner: Owner) => void
  readonly topic: readonly Kept[]
  readonly receipts: () => number
  readonly inFlight: () => number
  readonly most: () => { readonly unanswered: number; readonly buffered: number }
}

export const simulatedPulsar = ({ random, trace, point, fail }: Ground): Pulsar => {
  const latency = nearby(random)
  const door = gate()
  const peers = new Set<Peer>()
  const topic: Kept[] = []
  let up = true
  let life = 0
  let slowMs = 0
  let status: number | undefined
  let receipts = 0
  const most = { unanswered: 0, buffered: 0 }
  let storing = pipe(() => batchMs + random.between(0, 6) / 2 + slowMs)

  const tell = (peer: Peer, say: () => void): void =>
    peer.toClient(() => {
      if (peer.owner.alive && !peer.closed && !peer.severed) say()
    })
  const lose = (peer: Peer, error: Error): void => {
    if (peer.closed || !peer.owner.alive) return
    peer.closed = true
    peer.lost(error)
  }
  const reset = (peer: Peer): void => {
    peer.severed = true
    clock.after(latency(), () => lose(peer, new SocketClosed(1006, '')))
  }
  const hangUp = (peer: Peer): void => {
    peer.open = false
    peers.delete(peer)
  }
  const store = (waiting: readonly Waiting[]): void => {
    for (const { kept } of waiting) {
      trace(`pulsar stores ${kept.record}`)
      topic.push(kept)
    }
  }
  const answer = (peer: Peer, reply: object): void =>
    tell(peer, () => {
      point('receipt')
      if (!peer.owner.alive || peer.mute) return
      peer.unanswered -= 1
      receipts += 1
      peer.receive(JSON.stringify({ errorCode: 0, schemaVersion: 0, ...reply }))
    })
  const failure = (context: string, exception: string): object => ({
    result: 'send-error:8',
    errorMsg: `org.apache.pulsar.client.api.PulsarClientException$${exception}: as simulated`,
    context,
  })

  const take = (peer: Peer, text: string): void => {
    const { payload, properties, context } = JSON.parse(text) as Frame
    if (typeof payload !== 'string' || typeof context !== 'string') return fail('protocol', 'a frame without payload or context')
    if (Object.values(properties).some((value) => typeof value !== 'string')) return fail('protocol', 'a property that is not text')
    const body = Buffer.from(payload, 'base64').toString()
    const record = numberOf(body)
    if (peer.failing) return answer(peer, failure(context, 'ProducerBlockedQuotaExceededException'))
    if (body.includes('"poison":"refused"')) return answer(peer, failure(context, 'InvalidMessageException'))
    if (body.includes('"poison":"deadly"')) {
      trace(`pulsar closes the socket because of ${record}`)
      hangUp(peer)
      return tell(peer, () => lose(peer, new SocketClosed(1011, 'as simulated')))
    }
    const waiting = { kept: { record, id: properties['messageId'] ?? '', payload: body }, context }
    peer.pending.push(waiting)
    const born = life
    storing(() =>
      door.pass(() => {
        if (born !== life || peer.failing) return
        peer.pending.splice(peer.pending.indexOf(waiting), 1)
        store([waiting])
        receiptFor(peer, waiting)
      }),
    )
  }
  const receiptFor = (peer: Peer, { kept, context }: Waiting): void => {
    trace(`pulsar answers for ${kept.record}`)
    answer(peer, { result: 'ok', messageId: 'CAgQADAA', context })
  }

  const open =
    (owner: Owner): OpenWebSocket =>
    (_url, receive, { handshakeTimeoutMs = 10_000, silenceMs = 20_000, pingMs = 10_000 } = {}) =>
      new Observable<OpenSocket>((subscriber) => {
        if (!owner.alive) return
        const peer: Peer = {
          owner,
          toServer: pipe(latency),
          toClient: pipe(latency),
          silenceMs: silenceMs + pingMs,
          open: false,
          closed: false,
          severed: false,
          receive,
          failing: false,
          mute: false,
          pending: [],
          unanswered: 0,
          untaken: 0,
          lost: (error) => subscriber.error(error),
        }
        let answered = false
        const refused = (error: Error): void => {
          if (!answered) lose(peer, error)
        }
        const socket: OpenSocket = {
          send: (text) => {
            if (!owner.alive || peer.closed) return
            const bytes = Buffer.byteLength(text)
            peer.unanswered += 1
            peer.untaken += bytes
            most.unanswered = Math.max(most.unanswered, peer.unanswered)
            most.buffered = Math.max(most.buffered, peer.untaken - kernelBytes)
            point('frame')
            if (!owner.alive) return
            peer.toServer(() =>
              door.pass(() => {
                peer.untaken -= bytes
                if (peer.open) take(peer, text)
              }),
            )
          },
          bufferedBytes: () => Math.max(0, peer.untaken - kernelBytes),
        }
        peer.toServer(() => {
          if (!up) return peer.toClient(() => refused(new Error('ECONNREFUSED')))
          door.pass(() => {
            if (peer.closed) return
            if (status !== undefined) {
              const code = status
              return peer.toClient(() => refused(new HandshakeRefused(code, 'as simulated')))
            }
            peer.open = true
            peers.add(peer)
            tell(peer, () => {
              answered = true
              trace('pulsar opens a socket')
              subscriber.next(socket)
            })
          })
        })
        clock.after(handshakeTimeoutMs, () => refused(new Error('Opening handshake has timed out')))
        return () => {
          if (peer.closed) return
          peer.closed = true
          // What the socket had taken arrives all the same.
          if (owner.alive)
            peer.toServer(() => door.pass(() => hangUp(peer)))
        }
      })

  return {
    open,
    topic,
    receipts: () => receipts,
    kill: () => {
      trace('pulsar dies')
      up = false
      life += 1
      door.clear()
      storing = pipe(() => batchMs + random.between(0, 6) / 2 + slowMs)
      for (const peer of [...peers]) {
        store(peer.pending.slice(0, random.between(0, peer.pending.length)))
        peer.pending.length = 0
        hangUp(peer)
        reset(peer)
      }
    },
    start: () => {
      trace('pulsar runs')
      up = true
    },
    freeze: () => {
      trace('pulsar freezes')
      door.freeze()
      for (const peer of peers) {
        const born = life
        clock.after(peer.silenceMs - random.between(0, 10_000), () => {
          if (!door.frozen() || born !== life) return
          lose(peer, new Error('nothing heard'))
          door.pass(() => hangUp(peer))
        })
      }
    },
    thaw: () => {
      trace('pulsar thaws')
      door.thaw()
    },
    slow: (ms) => {
      slowMs = ms
    },
    cut: () => {
      trace('pulsar sockets are reset')
      for (const peer of [...peers]) {
        reset(peer)
        door.pass(() => hangUp(peer))
      }
    },
    mute: () => {
      trace('pulsar answers nothing more on what is open')
      for (const peer of peers) peer.mute = true
    },
    failSends: () => {
      trace('pulsar fails what is pending')
      for (const peer of peers) {
        peer.failing = true
        for (const { context } of peer.pending.splice(0)) answer(peer, failure(context, 'ProducerBlockedQuotaExceededException'))
      }
    },
    refuse: (next) => {
      status = next
    },
    unload: () => {
      trace('pulsar moves the topic')
      for (const peer of peers) store(peer.pending)
    },
    died: (owner) => {
      for (const peer of peers)
        if (peer.owner === owner)
          peer.toServer(() => door.pass(() => hangUp(peer)))
    },
    inFlight: () => [...peers].reduce((sum, { unanswered }) => sum + unanswered, 0),
    most: () => most,
  }
}
