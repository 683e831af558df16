import { merge } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Receipt, Sink, Source } from '../delivery.js'
import type { Message } from '../message.js'
import { rescue } from '../operators/rescue.js'
import type { DeadLetter } from '../operators/rescue.js'

export interface IngestParts {
  /** Doors whose messages have been checked and enriched: what a door refuses never gets here. */
  readonly sources: readonly Source<Message>[]
  readonly queue: Sink<Message>
  readonly deadLetters: Sink<DeadLetter<Message>>
}

/** Doors → queue. A yes at the door is the queue's own. */
export const ingest = ({ sources, queue, deadLetters }: IngestParts): Observable<Receipt> =>
  merge(...sources).pipe(rescue(queue, deadLetters))
