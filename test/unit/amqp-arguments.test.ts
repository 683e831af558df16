import fc from 'fast-check'
import { defer, lastValueFrom, NEVER, of, throwError } from 'rxjs'
import type { Observable } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { queueArguments } from '../../src/connections/amqp-arguments.js'
import type { SeenQueue } from '../../src/connections/amqp-arguments.js'
import type { AmqpChannel, AmqpLink } from '../../src/connections/amqp-port.js'
import type { Arguments, ArgumentValue } from '../../src/queue-problems.js'

interface ModelQueue {
  readonly arguments: Arguments
  /** Those that this type of queue compares, in its order. */
  readonly compared: readonly string[]
  readonly durable?: boolean
}

const classic = ['x-expires', 'x-message-ttl', 'x-dead-letter-exchange', 'x-dead-letter-routing-key', 'x-max-length', 'x-max-length-bytes', 'x-max-priority', 'x-overflow', 'x-queue-mode', 'x-queue-type']
const quorum = ['x-dead-letter-exchange', 'x-expires', 'x-max-length', 'x-max-length-bytes', 'x-max-in-memory-length', 'x-overflow', 'x-queue-type', 'x-quorum-initial-group-size', 'x-delivery-limit', 'x-message-ttl']

const typed = (value: ArgumentValue): string => `the value '${value}' of type '${typeof value === 'number' ? 'signedint' : typeof value === 'boolean' ? 'bool' : 'longstr'}'`
const refusal = (code: number, text: string): Error => Object.assign(new Error(`Operation failed: QueueDeclare; ${code} with message "${text}"`), { code })

/** RabbitMQ as 3.10.8 was seen to answer. A declaration of a missing queue that RabbitMQ would not refuse makes one. */
const rabbit = (queues: Map<string, ModelQueue>) => {
  const made: string[] = []
  let channels = 0
  const invalid = (given: Arguments): string | undefined => {
    const negative = ['x-expires', 'x-message-ttl', 'x-max-length', 'x-max-length-bytes'].find((name) => Number(given[name]) < 0)
    if (negative !== undefined) return `invalid arg '${negative}' for queue 'q' in vhost '/': {value_negative,-1}`
    if (![undefined, 'drop-head', 'reject-publish'].includes(given['x-overflow'] as undefined)) return "invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow"
    if (![undefined, 'classic', 'quorum', 'stream'].includes(given['x-queue-type'] as undefined)) return "invalid arg 'x-queue-type' for queue 'q' in vhost '/'"
    return undefined
  }
  const declare = (name: string, given: Arguments): Observable<unknown> => {
    const queue = queues.get(name)
    if (queue === undefined) {
      const why = invalid(given)
      if (why !== undefined) return throwError(() => refusal(406, `PRECONDITION_FAILED - ${why}`))
      made.push(name)
      queues.set(name, { arguments: given, compared: classic })
      return of({})
    }
    if (queue.durable === false) return throwError(() => refusal(406, `PRECONDITION_FAILED - inequivalent arg 'durable' for queue '${name}' in vhost '/': received 'true' but current is 'false'`))
    const differs = queue.compared.find((each) => queue.arguments[each] !== given[each])
    if (differs === undefined) return of({})
    const [theirs, ours] = [queue.arguments[differs], given[differs]]
    const said =
      theirs !== undefined && ours !== undefined
        ? `received '${ours}' but current is '${theirs}'`
        : `received ${ours === undefined ? 'none' : typed(ours)} but current is ${theirs === undefined ? 'none' : typed(theirs)}`
    return throwError(() => refusal(406, `PRECONDITION_FAILED - inequivalent arg '${differs}' for queue '${name}' in vhost '/': ${said}`))
  }
  const channel = {
    declare: (name: string, given: Arguments) => defer(() => declare(name, given)),
    check: (name: string) => defer(() => (queues.has(name) ? of({ messages: 0, consumers: 0 }) : throwError(() => refusal(404, 'NOT_FOUND')))),
  } as unknown as AmqpChannel
  const link: AmqpLink = { serverVersion: '3.10.8', blocked: NEVER, channel: () => defer(() => ((channels += 1), of(channel))) }
  return { link, made, channels: () => channels }
}

const seen = (queue: ModelQueue | undefined, before?: SeenQueue) => {
  const model = rabbit(new Map(queue === undefined ? [] : [['q', queue]]))
  return lastValueFrom(queueArguments(model.link, 'q', before)).then((what) => ({ what, ...model }))
}
const compared = ({ arguments: given, compared: names }: ModelQueue): Arguments => Object.fromEntries(Object.entries(given).filter(([name]) => names.includes(name)))

const number = fc.integer({ min: 0, max: 1_000_000 })
const anyArguments: fc.Arbitrary<Arguments> = fc
  .record(
    {
      'x-expires': number, 'x-message-ttl': number, 'x-max-length': number, 'x-max-length-bytes': number, 'x-max-priority': number, 'x-max-in-memory-length': number,
      'x-overflow': fc.constantFrom('drop-head', 'reject-publish'), 'x-queue-type': fc.constantFrom('classic', 'quorum'),
      'x-dead-letter-exchange': fc.constantFrom('', 'dlx', "a 'quoted' one", '17'), 'x-delivery-limit': fc.integer({ min: -1, max: 20 }), 'x-queue-mode': fc.constant('lazy'),
      'x-single-active-consumer': fc.boolean(),
    },
    { requiredKeys: [] },
  )
  .map((given) => Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)))
/** Any order: another version may compare in another one. */
const anyQueue = fc.record({
  arguments: anyArguments,
  compared: fc.oneof(fc.constant(classic), fc.constant(quorum), fc.shuffledSubarray([...new Set([...classic, ...quorum, 'x-single-active-consumer'])], { minLength: 12 })),
})

describe('asking a queue for what it is not', () => {
  it('finds every argument that RabbitMQ compares, for a classic and for a quorum queue', async () => {
    const full = { 'x-expires': 600_000, 'x-message-ttl': 5000, 'x-max-length': 100, 'x-overflow': 'drop-head', 'x-dead-letter-exchange': '', 'x-queue-mode': 'lazy' }
    expect((await seen({ arguments: full, compared: classic })).what).toMatchObject({ kind: 'seen', arguments: full, flags: [] })
    const limited = { 'x-queue-type': 'quorum', 'x-delivery-limit': 5, 'x-message-ttl': 9, 'x-max-in-memory-length': 3 }
    expect((await seen({ arguments: limited, compared: quorum })).what).toMatchObject({ kind: 'seen', arguments: limited })
    expect((await seen({ arguments: {}, compared: classic })).what).toMatchObject({ kind: 'seen', arguments: {} })
  })
  it('never makes a queue, whatever is there and whatever was known before', async () => {
    await fc.assert(
      fc.asyncProperty(anyQueue, fc.boolean(), async (queue, gone) => {
        const first = await seen(queue)
        const later = await seen(gone ? undefined : queue, first.what)
        const never = await seen(undefined)
        expect([first.made, later.made, never.made]).toEqual([[], [], []])
        expect([later.what.kind, never.what.kind]).toEqual([gone ? 'missing' : 'seen', 'missing'])
      }),
      { numRuns: 500 },
    )
  })
  it('sees what limits and drops, in the orders of the queues that are known', async () => {
    await fc.assert(
      fc.asyncProperty(anyArguments, fc.constantFrom(classic, quorum), async (given, names) => {
        const queue = { arguments: given, compared: names }
        expect((await seen(queue)).what).toMatchObject({ kind: 'seen', arguments: compared(queue) })
      }),
      { numRuns: 500 },
    )
  })
  it('needs one question for a queue that has not changed, and sees every change', async () => {
    await fc.assert(
      fc.asyncProperty(anyArguments, anyArguments, fc.constantFrom(classic, quorum), async (one, other, names) => {
        const first = await seen({ arguments: one, compared: names })
        const again = await seen({ arguments: one, compared: names }, first.what)
        expect(again.channels()).toBe(1)
        expect(again.what).toEqual(first.what)
        const changed = { arguments: other, compared: names }
        expect((await seen(changed, first.what)).what).toMatchObject({ kind: 'seen', arguments: compared(changed) })
      }),
      { numRuns: 300 },
    )
  })
  it('tells a queue that is not durable, and one that is not there', async () => {
    expect((await seen({ arguments: { 'x-max-length': 1 }, compared: classic, durable: false })).what).toMatchObject({ kind: 'seen', flags: ['not-durable'] })
    expect((await seen(undefined)).what).toEqual({ kind: 'missing' })
  })
  it('says so when it may not ask, and fails when the connection is lost', async () => {
    const refusing = (error: Error): AmqpLink => ({ serverVersion: '4.0.0', blocked: NEVER, channel: () => of({ declare: () => throwError(() => error) } as unknown as AmqpChannel) })
    expect(await lastValueFrom(queueArguments(refusing(refusal(403, 'ACCESS_REFUSED - no')), 'q'))).toMatchObject({ kind: 'unseen', reason: expect.stringContaining('ACCESS_REFUSED') as unknown })
    expect(await lastValueFrom(queueArguments(refusing(refusal(406, 'words of another version')), 'q'))).toMatchObject({ kind: 'unseen' })
    expect(await lastValueFrom(queueArguments(refusing(refusal(405, 'RESOURCE_LOCKED')), 'q'))).toMatchObject({ kind: 'seen', flags: ['exclusive'] })
    await expect(lastValueFrom(queueArguments(refusing(new Error('the connection was lost')), 'q'))).rejects.toThrow('lost')
  })
})
