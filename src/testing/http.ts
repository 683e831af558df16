import { NEVER, takeUntil, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import type { IngestReply, IngestRequest } from '../sources/http.js'
import type { Row } from './rows.js'
import type { Stage } from './stage.js'

/** What a client posts, and for how long it waits. */
export interface ScriptedRequest {
  readonly body: string
  /** @default `application/json`, and the letter as `Idempotency-Key`, which makes it the message's id */
  readonly headers?: IngestRequest['headers']
  /** Leaves after so many frames without waiting for its reply. @default never */
  readonly leavesAfter?: number
}

/** An HTTP client by script. */
export interface ScriptedHttp {
  /** `a` 2xx, `A` refused for good (4xx but 429), `0` nothing was kept (429, 503), `?` unknown (504), at the frame of the reply. */
  readonly replies: Row
  /** The reply to each letter. */
  readonly reply: (letter: string) => IngestReply | undefined
}

const replyLetter = (letter: string, status: number): string =>
  status === 429 || status === 503 ? '0' : status === 504 ? '?' : status < 300 ? letter : letter.toUpperCase()

/**
 * A client that posts as its marbles say to `ingest`, of `httpSource` or of a route of your
 * own; what each letter posts stands in `requests`, else it is the record `{"letter":"a"}`.
 */
export const scriptedHttp =
  (stage: Stage) =>
  (row: string, ingest: (request: IngestRequest) => Observable<IngestReply>, requests: Readonly<Record<string, ScriptedRequest>> = {}): ScriptedHttp => {
    const who = stage.name('http')
    const { row: replies, say } = stage.open(`${who}.replies`)
    const known = new Map<string, IngestReply>()
    stage.given(who, row)
    const post = (letter: string): void => {
      const usual = { 'content-type': 'application/json', 'idempotency-key': letter }
      const { body, headers = usual, leavesAfter } = requests[letter] ?? { body: JSON.stringify({ letter }) }
      stage.say(who, `posts ${letter}`, letter)
      const leaves = leavesAfter === undefined ? NEVER : timer(leavesAfter)
      ingest({ headers, body: Buffer.from(body) })
        .pipe(takeUntil(leaves))
        .subscribe((reply) => {
          known.set(letter, reply)
          stage.say(who, `is told ${reply.status} for ${letter}`, letter)
          say(replyLetter(letter, reply.status))
        })
    }
    stage.helpers.hot(row).subscribe(post)
    return { replies, reply: (letter) => known.get(letter) }
  }
