import { of } from 'rxjs'
import type { Observable } from 'rxjs'
import type { Receipt, Sink, Source } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'
import { rescue } from '../operators/rescue.js'
import type { DeadLetter } from '../operators/rescue.js'

/** Takes what cannot be sent, and counts it: a copy has no dead letters of its own. */
const dropAndCount = (dropped: (count: number) => void): Sink<DeadLetter<Message>> =>
  deliver(
    of(() => {
      dropped(1)
      return of(undefined)
    }),
    { sink: 'dropped', state: 'sent' },
  )

/** A copy queue → whoever listens: WebSocket clients, or UDP targets. */
export const broadcast = (source: Source<Message>, sink: Sink<Message>, dropped: (count: number) => void): Observable<Receipt> =>
  source.pipe(rescue(sink, dropAndCount(dropped)))
