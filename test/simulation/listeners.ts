/** WebSocket clients of the stream: some read, some do not, some go away. */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ServedSocket } from '../../src/connections/web-socket.js'
import { clock } from './clock.js'
import type { Process } from './daemon.js'
import type { Ground } from './ground.js'
import type { Listen } from './plan.js'

interface Frame {
  readonly sequence?: string
  readonly id?: string
  readonly gap?: object
}

export interface Listeners {
  readonly join: (listen: Listen) => void
  readonly died: (process: Process) => void
  readonly frames: () => number
}

const rejoinMs = 2000

export const listeners = (running: () => Process | undefined, { random, fail, trace }: Ground): Listeners => {
  const joined = new Map<() => void, Process>()
  let frames = 0

  const join = (listen: Listen, after?: string): void => {
    const process = running()
    const route = process?.door?.upgrades.find(({ path }) => path === '/v1/stream')
    let last = after
    const again = (): void => {
      if (listen.behaves === 'reads') clock.after(rejoinMs, () => join(listen, last))
    }
    if (process?.alive !== true || route === undefined) return again()
    let buffered = 0
    let closed = false
    let expected: string | undefined
    let hear: () => void = () => {}
    const end = (): void => {
      if (closed) return
      closed = true
      joined.delete(end)
      if (process.alive) hear()
      again()
    }
    const take = (text: string): void => {
      const { sequence, gap } = JSON.parse(text) as Frame
      frames += 1
      if (gap !== undefined) {
        expected = undefined
        return
      }
      if (sequence === undefined) return fail('copies', 'a frame without a sequence')
      if (expected !== undefined && sequence !== expected) return fail('copies', `frame ${sequence} came where ${expected} was due`)
      const dash = sequence.lastIndexOf('-')
      expected = `${sequence.slice(0, dash)}-${Number(sequence.slice(dash + 1)) + 1}`
      last = sequence
    }
    const socket: ServedSocket = {
      send: (frame) => {
        if (closed || !process.alive) return
        if (listen.behaves === 'reads') take(frame.toString())
        else buffered += frame.length
      },
      bufferedBytes: () => buffered,
      terminate: end,
      onClose: (told) => {
        hear = told
      },
    }
    joined.set(end, process)
    trace(`a client that ${listen.behaves} listens`)
    route.upgrade({} as IncomingMessage, socket as unknown as Duplex, Buffer.alloc(0), new URLSearchParams(last === undefined ? {} : { after: last }))
    if (listen.behaves === 'vanishes') clock.after(random.between(100, 3000), end)
  }
  return {
    join,
    died: (process) => {
      for (const [end, of] of [...joined]) if (of === process) end()
    },
    frames: () => frames,
  }
}
