/** Dead letters as a forwarder leaves them, put straight into their store. */
import { from, lastValueFrom, map, take, toArray } from 'rxjs'
import type { AmqpQueueType } from '../../src/connections/amqp-queue.js'
import { amqpWriter } from '../../src/connections/amqp-writer.js'
import { embeddedStore } from '../../src/connections/embedded-store.js'
import type { Connection } from '../../src/delivery.js'
import { digestOf } from '../../src/message.js'
import type { Message } from '../../src/message.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { deadLetterSink } from '../../src/sinks/dead-letters.js'
import { embeddedQueueWriter } from '../../src/sinks/embedded-queue.js'

export const firstSeenOf = (n: number): string => new Date(Date.UTC(2026, 0, 1) + n).toISOString()

/** Numbered letters; every third is another program's, without a digest. */
export const lettersOf = (count: number, name = 'letter'): readonly DeadLetter<Message>[] =>
  Array.from({ length: count }, (_, n) => {
    const body = Buffer.from(`{"n":${n},"name":"${name}"}`)
    const ours = n % 3 === 2 ? {} : { digest: digestOf(body) }
    const value: Message = { id: `${name}-${n}`, body, properties: { site: `site ${n}`, 'backhaul-reason': 'the producer’s own' }, ...ours }
    return { value, reason: `reason ${n}`, stage: 'pulsar', attempts: 1 + (n % 2), firstSeen: Date.UTC(2026, 0, 1) + n }
  })

const bury = async (connection: Connection<Message>, letters: readonly DeadLetter<Message>[]): Promise<void> => {
  if (letters.length === 0) return
  const deliveries = from(letters).pipe(map((value) => ({ value, settle: () => {} })))
  const receipts = await lastValueFrom(deliveries.pipe(deadLetterSink(connection), take(letters.length), toArray()))
  for (const { outcome } of receipts) if (outcome.kind !== 'accepted') throw new Error('not kept')
}

/** Into `dead/` of a data folder that nobody has open. */
export const buryInFolder = async (folder: string, letters: readonly DeadLetter<Message>[]): Promise<void> => {
  const { engine, closed } = embeddedStore(`${folder}/dead`, { maxBytes: 2 ** 30 })
  await bury(embeddedQueueWriter(engine), letters)
  await lastValueFrom(closed, { defaultValue: undefined })
}

export const buryInRabbit = (amqpUrl: string, queue: string, letters: readonly DeadLetter<Message>[], queueType: AmqpQueueType = 'auto'): Promise<void> =>
  bury(amqpWriter({ urls: [amqpUrl], queue: `${queue}.dead`, queueType }), letters)
