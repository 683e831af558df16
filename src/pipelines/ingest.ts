import { defer, EMPTY, merge, Subject, takeUntil, tap } from 'rxjs'
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
  /** Spool → queue; cancelled when the doors are done, for what it has not moved stays in the spool. */
  readonly drain?: Observable<Receipt>
}

/** Doors → queue. A yes at the door is the queue's own. */
export const ingest = ({ sources, queue, deadLetters, drain = EMPTY }: IngestParts): Observable<Receipt> =>
  defer(() => {
    const over = new Subject<void>()
    const doors = merge(...sources).pipe(rescue(queue, deadLetters), tap({ complete: () => over.next() }))
    return merge(doors, drain.pipe(takeUntil(over)))
  })
