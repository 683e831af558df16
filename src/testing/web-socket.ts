import type { ListeningSocket } from '../sinks/websocket.js'
import type { Row } from './rows.js'
import { obey } from './stage.js'
import type { Stage } from './stage.js'

/** A WebSocket client by script. */
export interface ScriptedWebSocket {
  /** For `join` of a stream. */
  readonly socket: ListeningSocket
  /** The id of the message in each frame, at the frame of the run in which the client reads it; `~` for a gap that it is told of, `x` when it is cut off. */
  readonly frames: Row
}

/**
 * A client that listens as its marbles say: `s` it stops reading, `r` it reads again, all that
 * has piled up at once, `x` it leaves. It reads from the beginning.
 */
export const scriptedWebSocket =
  (stage: Stage) =>
  (row: string): ScriptedWebSocket => {
    const who = stage.name('webSocket')
    const { row: frames, say } = stage.open(`${who}.frames`)
    const left: (() => void)[] = []
    let unread: Buffer[] = []
    let reading = true
    let open = true

    const read = (frame: Buffer): void => {
      const { id, gap } = JSON.parse(frame.toString()) as { id?: unknown; gap?: unknown }
      const letter = gap === undefined ? stage.of({ id }) : '~'
      stage.say(who, gap === undefined ? `reads ${letter}` : 'is told of a gap', letter)
      say(letter)
    }
    const end = (how: string): void => {
      if (!open) return
      open = false
      unread = []
      stage.say(who, how)
      for (const tell of left) tell()
    }
    obey(stage, who, row, {
      s: () => {
        stage.say(who, 'stops reading')
        reading = false
      },
      r: () => {
        stage.say(who, 'reads again')
        reading = true
        for (const frame of unread.splice(0)) read(frame)
      },
      x: () => end('leaves'),
    })
    const socket: ListeningSocket = {
      send: (frame) => {
        if (!open) return
        if (reading) read(frame)
        else unread.push(frame)
      },
      bufferedBytes: () => unread.reduce((sum, { length }) => sum + length, 0),
      terminate: () => {
        if (open) say('x')
        end('is cut off')
      },
      onClose: (closed) => left.push(closed),
    }
    return { socket, frames }
  }
