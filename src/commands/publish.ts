import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { firstByteKind, splitArray } from '../json.js'
import { createPublisher } from '../pipelines/publisher.js'
import type { PublisherSettings } from '../pipelines/publisher.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'

export interface PublishCommand {
  readonly publisher: PublisherSettings
  /** A file of JSON lines, one object, or one array; `-` is standard input. */
  readonly file: string
  readonly stdin: Readable
  /** The file is a local topic log: each line's payload goes, under its own id. */
  readonly topicLog: boolean
  readonly json: boolean
}

interface Record {
  readonly body: string | Buffer
  readonly id?: string
  readonly properties?: { readonly [name: string]: string }
}

const fromTopicLog = (line: string): Record => {
  const { id, properties, payload } = JSON.parse(line) as { id: string; properties: { [name: string]: string }; payload: string }
  return { id, properties, body: payload }
}

/** JSON lines one by one; a text that is not lines of objects is read whole: one object, or an array. */
async function* records({ file, stdin, topicLog }: PublishCommand): AsyncGenerator<Record> {
  const input = file === '-' ? stdin : createReadStream(file)
  let whole: string[] | undefined
  for await (const line of createInterface({ input, crlfDelay: Infinity })) {
    if (whole === undefined && line.trim() === '') continue
    if (topicLog) yield fromTopicLog(line)
    else if (whole === undefined && isWhole(line)) yield { body: line }
    else (whole ??= []).push(line)
  }
  if (whole === undefined) return
  const body = Buffer.from(whole.join('\n'))
  if (firstByteKind(body) === 'array') for (const element of splitArray(body)) yield { body: element }
  else yield { body }
}

const isWhole = (line: string): boolean => {
  try {
    return !Array.isArray(JSON.parse(line))
  } catch {
    return false
  }
}

/** Publishes a file or standard input; exit 0 when everything is durable. */
export const publishCommand = async (command: PublishCommand, console: Console): Promise<number> => {
  const { publish, close } = createPublisher({ timeoutMs: 60_000, ...command.publisher })
  const window = command.publisher.window ?? 1000
  const out = new Set<Promise<void>>()
  let durable = 0
  let failures = 0
  let position = 0
  for await (const { body, ...options } of records(command)) {
    position += 1
    const at = position
    const one: Promise<void> = publish(body, options)
      .then((id) => {
        durable += 1
        if (command.json) console.out(JSON.stringify({ record: at, id }))
        if (console.isTerminal && durable % 1000 === 0) console.err(`${durable} durable`)
      })
      .catch((error: unknown) => {
        failures += 1
        const { code, message, maybeSent } = error as { code?: string; message: string; maybeSent?: boolean }
        console.err(`record ${at}: ${message} (${code ?? 'failed'}${maybeSent === true ? ', may have been sent' : ''})`)
      })
      .finally(() => out.delete(one))
    out.add(one)
    if (out.size >= window) await Promise.race(out)
  }
  await Promise.all(out)
  await close()
  if (!command.json) console.out(`${durable} durable${failures > 0 ? `, ${failures} failed` : ''}`)
  return failures > 0 ? exitCodes.failed : exitCodes.ok
}
