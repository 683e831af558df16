import { lastValueFrom, merge, Subject, takeUntil } from 'rxjs'
import type { Observable } from 'rxjs'
import { openWebSocket } from '../connections/web-socket.js'
import type { Settings } from '../settings.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'
import { daemonUrl } from './daemon-client.js'

export interface TailOptions {
  /** How many of those already delivered come first. */
  readonly last: number
  /** Ends after so many; 0 is never. */
  readonly count: number
  /** Whole frames, instead of the messages alone. */
  readonly json: boolean
}

/** The message out of its frame, byte for byte. */
const messageIn = (frame: string): string => {
  const start = frame.indexOf('"message":')
  return start < 0 ? frame : frame.slice(start + '"message":'.length, -1)
}

/** Prints what is delivered, as it is, until stopped. */
export const tailCommand = async (settings: Settings, { last, count, json }: TailOptions, console: Console, stop: Observable<unknown>): Promise<number> => {
  const url = daemonUrl(settings)
  const token = settings.httpToken
  const enough = new Subject<void>()
  let seen = 0
  const frames = openWebSocket(
    `${url.replace(/^http/, 'ws')}/v1/tail?last=${last}`,
    (frame) => {
      if (count > 0 && seen >= count) return
      seen += 1
      console.out(json ? frame : messageIn(frame))
      if (seen === count) enough.next()
    },
    token === undefined ? {} : { headers: { authorization: `Bearer ${token}` } },
  )
  try {
    await lastValueFrom(frames.pipe(takeUntil(merge(stop, enough))), { defaultValue: undefined })
    return exitCodes.ok
  } catch (error) {
    const refused = ['ECONNREFUSED', 'ENOTFOUND'].includes((error as { code?: string }).code ?? '')
    console.err(refused ? `No daemon answers at ${url}: start one with 'backhaul run'` : `${url}: ${(error as Error).message}`)
    return refused ? exitCodes.unavailable : exitCodes.failed
  }
}
