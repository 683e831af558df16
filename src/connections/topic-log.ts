import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'
import { Observable } from 'rxjs'
import type { Subscriber } from 'rxjs'
import type { Connection, Writer } from '../delivery.js'
import type { Message } from '../message.js'
import { makeFolder } from '../make-folder.js'
import { reconnect } from './reconnect.js'
import type { LinkState } from './reconnect.js'

export interface TopicLogSettings {
  readonly file: string
  /** The Pulsar key that each message would have had. */
  readonly key: string
  /** Beyond this the log takes no more, and the queue holds. */
  readonly maxBytes: number
  readonly onState?: (state: LinkState) => void
}

/** The topic log has reached its limit. Move it away, or raise the limit; it is tried again by itself. */
export class TopicLogFull extends Error {
  override readonly name = 'TopicLogFull'
  readonly code = 'BACKHAUL_TOPIC_LOG_FULL'
  constructor(readonly file: string) {
    super(`${file} is full: send it on with 'backhaul publish --topic-log', move it away, or raise topicLogMaxBytes`)
  }
}

const line = ({ id, properties, body }: Message, key: string): Buffer =>
  Buffer.from(`${JSON.stringify({ id, key, properties, payload: body.toString() })}\n`)

/** A crash can leave half a line: it was never confirmed, so it is cut off. */
const wholeLines = async (file: FileHandle): Promise<number> => {
  const { size } = await file.stat()
  const piece = Buffer.alloc(64 * 1024)
  for (let end = size; end > 0; ) {
    const start = Math.max(0, end - piece.length)
    const { bytesRead } = await file.read(piece, 0, end - start, start)
    const last = piece.subarray(0, bytesRead).lastIndexOf(0x0a)
    if (last >= 0) return start + last + 1
    end = start
  }
  return 0
}

/** A nearly full disk takes a part, and says how much. */
const writeWhole = async (file: FileHandle, bytes: Buffer, position: number): Promise<void> => {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done)
    if (bytesWritten === 0) throw new Error('nothing was written')
    done += bytesWritten
  }
}

interface Write {
  readonly bytes: Buffer
  readonly done: Subscriber<never>
}

const attempt = ({ file: path, key, maxBytes }: TopicLogSettings, proven: () => void): Observable<Writer<Message>> =>
  new Observable((subscriber) => {
    let writes: Write[] = []
    let size = 0
    let flushing = false
    let file: FileHandle | undefined

    const flush = async (log: FileHandle): Promise<void> => {
      if (flushing) return
      flushing = true
      while (writes.length > 0 && !subscriber.closed) {
        const group = writes
        writes = []
        const bytes = Buffer.concat(group.map((write) => write.bytes))
        await writeWhole(log, bytes, size)
        await log.datasync()
        size += bytes.length
        proven()
        for (const { done } of group) done.complete()
      }
      flushing = false
      if (subscriber.closed) await log.close()
    }
    const fail = (error: unknown): void => subscriber.error(error)
    const start = async (): Promise<void> => {
      await makeFolder(dirname(path))
      const log = await open(path, 'a+', 0o600).then(async (created) => (await created.close(), open(path, 'r+')))
      size = await wholeLines(log)
      await log.truncate(size)
      if (subscriber.closed) return log.close()
      file = log
      if (size >= maxBytes) throw new TopicLogFull(path)
      subscriber.next(
        (message) =>
          new Observable<never>((done) => {
            const bytes = line(message, key)
            const waiting = writes.reduce((sum, write) => sum + write.bytes.length, 0)
            if (size + waiting + bytes.length > maxBytes) return fail(new TopicLogFull(path))
            writes.push({ bytes, done })
            flush(log).catch(fail)
          }),
      )
    }
    start().catch(fail)
    return () => {
      if (!flushing) file?.close().catch(() => undefined)
    }
  })

/**
 * The stand-in for Pulsar when no address is set: one JSON line for each message,
 * `{"id","key","properties","payload"}`, the payload being the message's text.
 *
 * A write completes when its line is synced; one sync serves all that wait for it.
 */
export const topicLogWriter = (settings: TopicLogSettings): Connection<Message> =>
  reconnect((proven) => attempt(settings, proven), settings.onState === undefined ? {} : { onState: settings.onState })
