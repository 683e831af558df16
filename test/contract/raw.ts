/** A client without manners: bytes on a bare socket. */
import { connect } from 'node:net'

export interface RawReply {
  readonly text: string
  /** Of the first answer; 0 when there was none. */
  readonly status: number
  readonly statuses: readonly number[]
  readonly ms: number
  /** Bytes that the system has taken of what was said. */
  readonly sent: number
}

/** Says bytes, and gives what came back until the peer closed. */
export const raw = (port: number, say: (write: (bytes: string | Buffer) => void) => void, deadlineMs = 10_000): Promise<RawReply> =>
  new Promise((resolve, reject) => {
    const began = performance.now()
    const socket = connect(port, '127.0.0.1')
    let text = ''
    const late = setTimeout(() => socket.destroy(new Error(`still open after ${deadlineMs} ms: ${text}`)), deadlineMs)
    let sent = 0
    // Counted one by one: a socket that was reset says of itself that all has been written.
    const write = (bytes: string | Buffer): void => void (socket.writable && socket.write(bytes, (error) => (sent += error ? 0 : bytes.length)))
    socket.on('connect', () => say(write))
    socket.on('data', (data) => (text += data.toString()))
    socket.on('error', (error: NodeJS.ErrnoException) => (['ECONNRESET', 'EPIPE'].includes(error.code ?? '') ? undefined : reject(error)))
    socket.on('close', () => {
      clearTimeout(late)
      const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
      resolve({ text, status: statuses[0] ?? 0, statuses, ms: performance.now() - began, sent })
    })
  })
