/**
 * A type that cannot be forgotten: each `@ts-expect-error` is a pipeline that would leave its
 * deliveries unsettled, and does not compile (`npm run types`). What types cannot say fails in
 * the kit, with the name of the delivery.
 */
import { filter, merge, of } from 'rxjs'
import type { Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { batch, bestEffort, deliver, each, fanOut, ingest, rescue, whileOpen } from '../../src/index.js'
import type { Connection, DeadLetter, Delivery, IngestParts, Message, Operator, Sink } from '../../src/index.js'
import { marbles } from '../../src/testing.js'
import type { Marbles } from '../../src/testing.js'

const step: Operator<string, string> = each((value: string) => [value])
const options = { dropped: () => undefined }

/** Never called: it only has to compile, or not. */
const pipelines = (m: Marbles, source: Observable<Delivery<string>>, connection: Connection<string>, sink: Sink<string>, dead: Sink<DeadLetter<string>>) => {
  m.run(source.pipe(step, sink))
  // @ts-expect-error a run ends in a sink, not in a step
  m.run(source.pipe(step))
  // @ts-expect-error nor does a part of it
  m.run(merge(source.pipe(sink), source))
  // @ts-expect-error a batch is a delivery too
  m.run(source.pipe(batch(2, 9)))

  whileOpen(connection, (scope) => source.pipe(deliver(scope.connection, { sink: 'far' })))
  // @ts-expect-error what runs while the connection is open settles what it is given
  whileOpen(connection, () => source.pipe(step))

  fanOut(sink, bestEffort(sink, options))
  // @ts-expect-error a branch is a sink: a step would leave its part unsettled
  fanOut(sink, step)
  // @ts-expect-error the same for what has no say
  bestEffort(step, options)

  rescue(sink, dead)
  // @ts-expect-error what is rescued is a sink
  rescue(step, dead)
  // @ts-expect-error and so are the dead letters
  rescue(sink, step)

  const parts: Omit<IngestParts, 'queue'> = { sources: [], deadLetters: deliver<DeadLetter<Message>>(of(), { sink: 'dead' }) }
  ingest({ ...parts, queue: deliver<Message>(of(), { sink: 'queue' }) })
  // @ts-expect-error a queue is a sink
  ingest({ ...parts, queue: each((message: Message) => [message]) })

  const forgotten = (value: string): Delivery<string> => ({
    value,
    // @ts-expect-error a delivery is answered with an outcome, not with nothing
    settle: (): string => forgotten(value).settle(),
  })
  return forgotten
}

describe('a pipeline that leaves deliveries unsettled', () => {
  it('does not compile, where types can say it', () => {
    expect(pipelines).toBeTypeOf('function')
  })
  it('fails in the kit otherwise, and the delivery is named', () => {
    const forgetful = ({ source, far, run }: Marbles) => {
      run(source('ab').deliveries.pipe(filter(({ value }) => value === 'a'), deliver(far('w').connection, { sink: 'far' })))
    }
    expect(() => marbles(forgetful)).toThrow('b is unsettled: given by source at 1 ms; seen by no far end')
  })
})
