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
  /** A file of JSON lines (a line may be an array), one object, or one array; `-` is standard input. */
  readonly file: string
  readonly stdin: Readable
  /** The file is a local topic log: each line's payload goes, under its own id. */
  readonly topicLog: boolean
  readonly json: boolean
}

interface Record {
  readonly body: Buffer
  readonly id?: string
  readonly properties?: { readonly [name: string]: string }
}

/** Something in the file that is no record. */
interface Problem {
  readonly line: number
  readonly problem: string
}

const fromTopicLog = (text: string, line: number): Record | Problem => {
  try {
    const { id, properties, payload } = JSON.parse(Buffer.from(text, 'latin1').toString()) as { id: string; properties: { [name: string]: string }; payload: string }
    return { id, properties, body: Buffer.from(payload) }
  } catch {
    return { line, problem: 'not a line of a topic log' } // the parser's own text quotes the payload
  }
}

/** One object, or what is in an array; undefined when the text is not JSON. */
const recordsIn = (text: string): readonly Record[] | undefined => {
  try {
    JSON.parse(text)
  } catch {
    return undefined
  }
  const body = Buffer.from(text, 'latin1')
  return firstByteKind(body) === 'array' ? splitArray(body, Number.POSITIVE_INFINITY).map((element) => ({ body: element })) : [{ body }]
}

/** The records of JSON lines, one by one. A text whose first line is not JSON by itself is read whole. */
async function* records({ file, stdin, topicLog }: PublishCommand): AsyncGenerator<Record | Problem> {
  const input = file === '-' ? stdin : createReadStream(file)
  // Byte for byte, and no line ends at U+2028: what is not UTF-8 is the door's to refuse.
  input.setEncoding('latin1')
  let line = 0
  let inLines = false
  let whole: { readonly line: number; readonly text: string[] } | undefined
  for await (const text of createInterface({ input, crlfDelay: Infinity })) {
    line += 1
    if (whole !== undefined) whole.text.push(text)
    else if (/^[ \t]*$/.test(text)) continue
    else if (topicLog) yield fromTopicLog(text, line)
    else {
      const found = recordsIn(text)
      if (found !== undefined) yield* found
      else if (!inLines) whole = { line, text: [text] }
      else if (!text.trimStart().startsWith('[')) yield { line, problem: 'not JSON' }
      else {
        yield { line, problem: 'an array over several lines can only be the whole file; nothing from here on was sent' }
        return
      }
      inLines = true
    }
  }
  if (whole === undefined) return
  const found = recordsIn(whole.text.join('\n'))
  if (found !== undefined) yield* found
  else yield { line: whole.line, problem: 'not JSON: neither by itself nor with all that follows; nothing from here on was sent' }
}

/** Publishes a file or standard input; exit 0 when everything is durable. */
export const publishCommand = async (command: PublishCommand, console: Console): Promise<number> => {
  const { publish, close } = createPublisher({ timeoutMs: 60_000, ...command.publisher })
  const window = command.publisher.window ?? 1000
  const out = new Set<Promise<void>>()
  let durable = 0
  let failures = 0
  let position = 0
  for await (const found of records(command)) {
    if ('problem' in found) {
      failures += 1
      console.err(`line ${found.line}: ${found.problem}`)
      continue
    }
    const { body, ...options } = found
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
