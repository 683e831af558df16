import { map } from 'rxjs'
import { buried } from '../dead-letter.js'
import type { Connection, Sink } from '../delivery.js'
import { newId } from '../message.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'
import type { DeadLetter } from '../operators/rescue.js'

/**
 * Keeps dead letters in a queue, as `buried` shapes them. Accepted means that the queue has them.
 * Written twice, after a lost connection, a letter is the same one.
 */
export const deadLetterSink = (connection: Connection<Message>): Sink<DeadLetter<Message>> => {
  const letters = new WeakMap<DeadLetter<Message>, string>()
  const numberOf = (dead: DeadLetter<Message>): string => {
    const letter = letters.get(dead) ?? newId()
    letters.set(dead, letter)
    return letter
  }
  const written = connection.pipe(
    map((write) => write && ((dead: DeadLetter<Message>) => write(buried(dead.value, { ...dead, letter: numberOf(dead) })))),
  )
  return (source) => deliver(written, { sink: 'dead-letters' })(source)
}
