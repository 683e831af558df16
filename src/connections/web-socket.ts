import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { asyncScheduler, interval, Observable } from 'rxjs'
import { WebSocket, WebSocketServer } from 'ws'
import { socketProtocol } from './http-guards.js'

export interface OpenSettings {
  readonly headers?: Readonly<Record<string, string>>
  /** PEM of a private certificate authority. */
  readonly ca?: string
  /** @default 10000 */
  readonly handshakeTimeoutMs?: number
  /** @default 10000 */
  readonly pingMs?: number
  /** Without a frame or a pong for so long the peer is gone. @default 20000 */
  readonly silenceMs?: number
}

/** An open socket. */
export interface OpenSocket {
  readonly send: (text: string) => void
  /** Bytes that the system has not taken yet. */
  readonly bufferedBytes: () => number
}

/** The peer refused the handshake. */
export class HandshakeRefused extends Error {
  override readonly name = 'HandshakeRefused'
  constructor(
    readonly status: number,
    body: string,
  ) {
    super(`the handshake was refused with ${status}: ${body.slice(0, 300)}`)
  }
}

/** The socket was closed, with the code that the peer gave. */
export class SocketClosed extends Error {
  override readonly name = 'SocketClosed'
  constructor(
    readonly closeCode: number,
    reason: string,
  ) {
    super(`the socket was closed with ${closeCode}${reason === '' ? '' : `: ${reason}`}`)
  }
}

const closeGraceMs = 500

/** What is sent in one turn of the loop leaves in one system call, at the end of that turn: a call for each frame costs more than making the frame. */
const inOneCall = (stream: Duplex): (() => void) => {
  let corked = false
  return () => {
    if (corked) return
    corked = true
    stream.cork()
    process.nextTick(() => {
      corked = false
      stream.uncork()
    })
  }
}

const refusal = (response: IncomingMessage): Promise<HandshakeRefused> =>
  new Promise((resolve) => {
    let body = ''
    response.setEncoding('utf8')
    response.on('data', (piece: string) => (body += body.length < 1000 ? piece : ''))
    response.on('close', () => resolve(new HandshakeRefused(response.statusCode ?? 0, body)))
  })

/**
 * A WebSocket client: emits the socket once it is open, and gives each text frame to `receive`.
 *
 * **Fails** with `HandshakeRefused`, `SocketClosed`, or the system's own error; a peer that is
 * silent to our pings is cut off. Unsubscribing closes.
 */
export type OpenWebSocket = (url: string, receive: (text: string) => void, settings?: OpenSettings) => Observable<OpenSocket>

/** Opens a WebSocket with ws. */
export const openWebSocket: OpenWebSocket = (
  url,
  receive,
  { headers = {}, ca, handshakeTimeoutMs = 10_000, pingMs = 10_000, silenceMs = 20_000 } = {},
) =>
  new Observable((subscriber) => {
    const options = { headers, handshakeTimeout: handshakeTimeoutMs, perMessageDeflate: false, ...(ca === undefined ? {} : { ca }) }
    const socket = new WebSocket(url, options)
    let gather = (): void => {}
    let heard = asyncScheduler.now()
    const alive = (): void => {
      heard = asyncScheduler.now()
    }
    socket.on('upgrade', ({ socket: stream }) => (gather = inOneCall(stream)))
    socket.on('open', () => {
      alive()
      const send = (text: string): void => {
        gather()
        socket.send(text)
      }
      subscriber.next({ send, bufferedBytes: () => socket.bufferedAmount })
      subscriber.add(
        interval(pingMs).subscribe(() => {
          const now = asyncScheduler.now()
          heard = Math.min(heard, now) // the clock may have been set back
          if (now - heard > silenceMs) subscriber.error(new Error(`nothing heard for ${silenceMs} ms`))
          else socket.ping()
        }),
      )
    })
    socket.on('message', (data: Buffer) => {
      alive()
      if (!subscriber.closed) receive(data.toString())
    })
    socket.on('pong', alive)
    socket.on('unexpected-response', (_request, response) => {
      refusal(response).then(
        (error) => subscriber.error(error),
        () => undefined,
      )
    })
    socket.on('error', (error) => subscriber.error(error))
    socket.on('close', (code, reason) => subscriber.error(new SocketClosed(code, reason.toString())))
    return () => {
      if (socket.readyState === WebSocket.CLOSED) return
      if (socket.readyState === WebSocket.CONNECTING) return socket.terminate()
      socket.close(1000)
      const late = asyncScheduler.schedule(() => socket.terminate(), closeGraceMs)
      socket.once('close', () => late.unsubscribe())
    }
  })

/** A client of ours, as the server sees it. */
export interface ServedSocket {
  readonly send: (frame: Buffer) => void
  readonly bufferedBytes: () => number
  readonly terminate: () => void
  readonly onClose: (closed: () => void) => void
}

export interface SocketServer {
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer, opened: (socket: ServedSocket) => void) => void
  readonly clients: () => number
  readonly close: () => void
}

/** Never one that the client made up: it may be its token. */
const handleProtocols = (offered: Set<string>): string | false => (offered.has(socketProtocol) ? socketProtocol : false)

/**
 * Takes WebSocket clients that only listen: what they send is limited to 1 KiB and ignored,
 * and one that does not answer two pings in a row is gone.
 */
export const webSocketServer = ({ pingMs = 30_000, refused = () => {} }: { pingMs?: number; refused?: (status: number) => void } = {}): SocketServer => {
  const server = new WebSocketServer({ noServer: true, maxPayload: 1024, perMessageDeflate: false, handleProtocols })
  server.on('wsClientError', (_error, socket: Duplex) => {
    refused(400)
    socket.end('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n')
  })
  const silent = new WeakSet<WebSocket>()
  const pings = interval(pingMs).subscribe(() => {
    for (const socket of server.clients) {
      if (silent.has(socket)) socket.terminate()
      silent.add(socket)
      socket.ping()
    }
  })
  return {
    upgrade: (request, stream, head, opened) =>
      server.handleUpgrade(request, stream, head, (socket) => {
        socket.on('pong', () => silent.delete(socket))
        socket.on('error', () => socket.terminate())
        opened({
          send: (frame) => socket.send(frame, { binary: false }),
          bufferedBytes: () => socket.bufferedAmount,
          terminate: () => socket.terminate(),
          onClose: (closed) => socket.on('close', closed),
        })
      }),
    clients: () => server.clients.size,
    close: () => {
      pings.unsubscribe()
      for (const socket of server.clients) socket.close(1001)
      server.close()
      asyncScheduler.schedule(() => server.clients.forEach((socket) => socket.terminate()), closeGraceMs)
    },
  }
}
