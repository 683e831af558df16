/** The contracts, against a door with callers who offer again what was not accepted, and against a far end in memory. */
import { asapScheduler, EMPTY, observeOn, of } from 'rxjs'
import type { Writer } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { deliver } from '../../src/operators/deliver.js'
import { intake } from '../../src/sources/intake.js'
import type { Intake } from '../../src/sources/intake.js'
import { sinkContract } from './sink.js'
import { sourceContract } from './source.js'

interface Record {
  readonly n: number
  readonly body: Buffer
}

sourceContract('intake, with callers who offer again what was not accepted', () => {
  const kept: Record[] = [] // by the callers, until it is accepted
  const outside = new Set<Record>()
  let door: Intake<Record> | undefined
  // Who was turned away keeps it for the next door: this one is closed.
  const offer = (record: Record): void => {
    let taken = false
    const enter = (): void => {
      taken = true
      outside.add(record)
    }
    door?.offer(record, enter).subscribe(({ kind }) => {
      outside.delete(record)
      if (kind === 'accepted') kept.splice(kept.indexOf(record), 1)
      else if (taken) offer(record)
    })
  }
  return Promise.resolve({
    source: (options) => {
      door = intake<Record>(options)
      for (const record of kept) offer(record)
      return door.deliveries
    },
    feed: (numbers) => {
      for (const n of numbers) {
        const record = { n, body: Buffer.from(JSON.stringify({ n })) }
        kept.push(record)
        offer(record)
      }
      return Promise.resolve()
    },
    waiting: () => Promise.resolve(kept.length - outside.size),
    dispose: () => Promise.resolve(),
  })
})

for (const [name, answer] of [
  ['in memory, confirming at once', EMPTY],
  ['in memory, confirming later', EMPTY.pipe(observeOn(asapScheduler))],
] as const)
  sinkContract(name, () => {
    const stored: string[] = []
    const writer: Writer<Message> = ({ body }) => {
      stored.push(body.toString())
      return answer
    }
    return Promise.resolve({
      sink: deliver(of(writer), { sink: 'memory', window: 7 }),
      received: () => Promise.resolve(stored),
      dispose: () => Promise.resolve(),
    })
  })
