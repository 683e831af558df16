import { of } from 'rxjs'
import type { Sink } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'

/** A client that only listens. */
export interface ListeningSocket {
  readonly send: (frame: Buffer) => void
  /** Bytes that it has not taken yet. */
  readonly bufferedBytes: () => number
  readonly terminate: () => void
  readonly onClose: (closed: () => void) => void
}

export interface StreamSettings {
  /** Tells this process from the one before: sequences of another epoch cannot be resumed. */
  readonly epoch: string
  /** The most frames that can be resumed. @default 1000 */
  readonly maxFrames?: number
  /** The most bytes of them. @default 4 MiB */
  readonly maxBytes?: number
  /** A client that has not taken so much is cut off. @default 1 MiB */
  readonly maxClientBytes?: number
}

export interface Stream {
  /** Shows messages to whoever listens. Accepts at once: a client that does not read hurts itself alone. */
  readonly sink: Sink<Message>
  readonly show: (message: Message) => void
  /**
   * Adds a client. With `after`, the sequence it saw last, it gets what came since; what cannot
   * be had any more is announced as a gap. With `last`, it gets the newest so many first.
   */
  readonly join: (socket: ListeningSocket, from?: { readonly after?: string; readonly last?: number }) => void
  readonly clients: () => number
  /** Clients that were cut off because they did not read. */
  readonly cut: () => number
}

interface Frame {
  readonly number: number
  readonly bytes: Buffer
}

/** The message goes in as it is: bytes around bytes. */
const frameOf = (sequence: string, { id, body }: Message): Buffer =>
  Buffer.concat([Buffer.from(`{"sequence":"${sequence}","id":${JSON.stringify(id)},"message":`), body, Buffer.from('}')])

/**
 * Frames for clients that listen, `{"sequence":"<epoch>-<n>","id":…,"message":…}`, and a
 * bounded ring of the newest for those that come back.
 *
 * **Orders**: as shown, for every client.
 * **Holds**: the ring, and for each client at most `maxClientBytes` and one frame.
 */
export const stream = ({ epoch, maxFrames = 1000, maxBytes = 4 * 1024 * 1024, maxClientBytes = 1024 * 1024 }: StreamSettings): Stream => {
  const sockets = new Set<ListeningSocket>()
  const ring: Frame[] = []
  let ringBytes = 0
  let newest = 0
  let cut = 0

  const give = (socket: ListeningSocket, bytes: Buffer): void => {
    if (!sockets.has(socket)) return
    if (socket.bufferedBytes() + bytes.length <= maxClientBytes || socket.bufferedBytes() === 0) return socket.send(bytes)
    sockets.delete(socket)
    cut += 1
    socket.terminate()
  }
  const show = (message: Message): void => {
    newest += 1
    const bytes = frameOf(`${epoch}-${newest}`, message)
    ring.push({ number: newest, bytes })
    ringBytes += bytes.length
    while (ring.length > 1 && (ring.length > maxFrames || ringBytes > maxBytes)) ringBytes -= ring.shift()?.bytes.length ?? 0
    for (const socket of sockets) give(socket, bytes)
  }
  const resume = (socket: ListeningSocket, after: string): void => {
    const dash = after.lastIndexOf('-')
    const number = Number(after.slice(dash + 1))
    const oldest = ring[0]?.number ?? newest + 1
    const ours = after.slice(0, dash) === epoch && Number.isInteger(number) && number <= newest
    const from = ours ? number + 1 : 1
    // From another epoch nobody knows how much is missing: everything between its last and our first.
    if (!ours || from < oldest) {
      const to = oldest > 1 ? `${epoch}-${oldest - 1}` : `${epoch}-0`
      give(socket, Buffer.from(JSON.stringify({ gap: { from: after, to } })))
    }
    for (const frame of ring) if (frame.number >= from) give(socket, frame.bytes)
  }
  return {
    show,
    sink: deliver(
      of((message: Message) => {
        show(message)
        return of(undefined)
      }),
      { sink: 'websocket', state: 'sent' },
    ),
    join: (socket, { after, last = 0 } = {}) => {
      sockets.add(socket)
      socket.onClose(() => sockets.delete(socket))
      if (after !== undefined) resume(socket, after)
      else if (last > 0) for (const { bytes } of ring.slice(-last)) give(socket, bytes)
    },
    clients: () => sockets.size,
    cut: () => cut,
  }
}
