import { map, pipe } from 'rxjs'
import { describe, expect } from 'vitest'
import { Rejection } from '../../src/delivery.js'
import type { Receipt } from '../../src/delivery.js'
import { deliver } from '../../src/operators/deliver.js'
import { each } from '../../src/operators/each.js'
import { rescue } from '../../src/operators/rescue.js'
import type { DeadLetter } from '../../src/operators/rescue.js'
import { marbles } from './kit.js'

const letters = map(({ sink, value }: Receipt) => (sink === 'dead' ? (value as DeadLetter<string>).value.toUpperCase() : (value as string)))
const check = each<string, string>(
  (value) => {
    if (value === 'b') throw new Rejection('bad')
    return [value]
  },
  { stage: 'check' },
)

describe('rescue', () => {
  for (const [row, expected] of [['|', '|'], ['-', '-'], ['a|', '-(a|)']] as const)
    marbles(`ends as its source does: ${row}`, ({ queue, far, expectObservable }) => {
      const dead = deliver<DeadLetter<string>>(far('w').connection as never, { sink: 'dead' })
      expectObservable(queue(row).deliveries.pipe(rescue(deliver(far('w').connection, { sink: 'main' }), dead), letters)).toBe(expected)
    })
  marbles('accepts what was rejected when the dead letters have it, and not before', ({ queue, far, expectObservable, expectRow, flush }) => {
    const letterbox = far('---w')
    const { deliveries, settled, counts } = queue('abc')
    expectRow(settled, '                            -a-cb')
    const dead = deliver<DeadLetter<string>>(letterbox.connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(pipe(check, deliver(far('w').connection, { sink: 'main' })), dead), letters)).toBe('-a-cB')
    flush()
    expect(counts).toMatchObject({ accepted: 3, rejected: 0 })
    expect(letterbox.first).toEqual([{ value: 'b', reason: 'bad', stage: 'check', attempts: 1, firstSeen: 1 }])
  })
  marbles('releases what the dead letters reject: it stays where it was', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('b')
    expectRow(settled, '                    *')
    const dead = deliver<DeadLetter<string>>(far('w', { '[object Object]': 'refused' }).connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(pipe(check, deliver(far('w').connection, { sink: 'main' })), dead), letters)).toBe('B')
  })
  marbles('keeps what the writer refuses with the sink as its stage, and the order of the others', ({ queue, far, expectObservable, expectRow, flush }) => {
    const letterbox = far('w')
    const { deliveries, settled } = queue('a-cd')
    expectRow(settled, '                    -a-cd')
    const dead = deliver<DeadLetter<string>>(letterbox.connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(deliver(far('w', { c: 'refused' }).connection, { sink: 'main' }), dead), map(({ sink, outcome }) => (sink === 'dead' ? 'D' : outcome.kind[0] as string)))).toBe('-arDa')
    flush()
    expect(letterbox.first).toMatchObject([{ value: 'c', reason: 'refused', stage: 'main' }])
  })
  marbles('completes after the last dead letter is kept, when its source is stopped', ({ queue, far, hot, expectObservable }) => {
    const dead = deliver<DeadLetter<string>>(far('-----w').connection as never, { sink: 'dead' })
    expectObservable(queue('b', { stop: hot('-s') }).deliveries.pipe(rescue(pipe(check, deliver(far('w').connection, { sink: 'main' })), dead), letters)).toBe('------(B|)')
  })
  marbles('releases all when it is unsubscribed, the dead letters under way too', ({ queue, far, expectObservable, expectRow }) => {
    const { deliveries, settled } = queue('ab')
    expectRow(settled, '                    ---(**)')
    const dead = deliver<DeadLetter<string>>(far('-').connection as never, { sink: 'dead' })
    expectObservable(deliveries.pipe(rescue(pipe(check, deliver(far('-').connection, { sink: 'main' })), dead), letters), '---!').toBe('')
  })
})
