import { map, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import { describe, expect } from 'vitest'
import { accepted, rejected, released } from '../../src/delivery.js'
import type { Outcome } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { httpSource } from '../../src/sources/http.js'
import type { IngestReply } from '../../src/sources/http.js'
import { intake } from '../../src/sources/intake.js'
import { marbles, settleAfter } from './marbles.js'

/** A door with a deadline of 9 ms; ids count from 0. */
const start = (window = 9) => {
  const door = intake<Message>({ window })
  let next = 0
  const { ingest } = httpSource({ prepare: (body) => body, deadlineMs: 9, newId: () => String(next++) }, door)
  const post = (body: string): Observable<IngestReply> => ingest({ headers: {}, body: Buffer.from(body) })
  const ids = map(({ value }: { value: Message }) => value.id)
  return { door, post, ids }
}
const status = map((reply: IngestReply) => String(reply.status))
const verdicts = map(({ body }: IngestReply) => (body as { results: { status: string }[] }).results.map((result) => result.status.charAt(0)).join(''))
const names = { y: '202', n: '422', r: '503', u: '504', m: 'ur', v: 'aru' }

describe('httpSource', () => {
  marbles('says 202 when the queue has it, and not before', ({ expectObservable }) => {
    const { door, post } = start()
    expectObservable(door.deliveries.pipe(settleAfter(3), map(({ id }) => id))).toBe('0')
    expectObservable(post('{}').pipe(status)).toBe('---(y|)', names)
  })
  marbles('says 202 to a batch when the queue has the last of it', ({ expectObservable }) => {
    const { door, post } = start(1)
    expectObservable(door.deliveries.pipe(settleAfter(3), map(({ id }) => id))).toBe('0--1')
    expectObservable(post('[{},{}]').pipe(status)).toBe('------(y|)', names)
  })
  for (const [outcome, letter] of [[rejected('no', 'test'), 'n'], [released(false), 'r'], [released(true), 'u']] as const)
    marbles(`says ${names[letter]} at once to what is ${outcome.kind}${letter === 'u' ? ' with its fate unknown' : ''}`, ({ expectObservable }) => {
      const { door, post, ids } = start()
      expectObservable(door.deliveries.pipe(tap(({ settle }) => settle(outcome)), ids)).toBe('0')
      expectObservable(post('{}').pipe(status)).toBe('(w|)', { w: names[letter] })
    })
  marbles('at its deadline tells what is out as unknown and withdraws what waits; an answer after that goes nowhere', ({ expectObservable, flush }) => {
    const { door, post, ids } = start(1)
    const late: ((outcome: Outcome) => void)[] = []
    expectObservable(door.deliveries.pipe(tap(({ settle }) => late.push(settle)), ids)).toBe('0')
    expectObservable(post('[{},{}]').pipe(verdicts)).toBe('9ms (m|)', names)
    flush()
    late.forEach((settle) => settle(accepted))
    expect(late, 'what was withdrawn never enters').toHaveLength(1)
  })
  marbles('tells each verdict at its place', ({ expectObservable }) => {
    const { door, post, ids } = start()
    const answers: readonly Outcome[] = [accepted, rejected('no', 'test'), released(true)]
    expectObservable(door.deliveries.pipe(tap(({ value, settle }) => settle(answers[Number(value.id)] as Outcome)), ids)).toBe('(012)')
    expectObservable(post('[{},{},{}]').pipe(verdicts)).toBe('(v|)', names)
  })
})
