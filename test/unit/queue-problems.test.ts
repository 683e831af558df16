import { describe, expect, it } from 'vitest'
import { problemsOf } from '../../src/queue-problems.js'
import type { Arguments, Policies, QueueFacts } from '../../src/queue-problems.js'

const facts = (given: Arguments, { version = '3.10.8', policy, flags = [] }: { version?: string; policy?: Arguments; flags?: QueueFacts['flags'] } = {}): QueueFacts => {
  const policies: Policies | undefined = policy === undefined ? undefined : { definition: policy, names: ['p'] }
  return { queue: 'q', serverVersion: version, arguments: given, flags, ...(policies === undefined ? {} : { policies }) }
}
const found = (...args: Parameters<typeof facts>): readonly string[] => problemsOf(facts(...args)).map(({ severity, kind }) => `${severity} ${kind}`)
const quorum = { 'x-queue-type': 'quorum' }

describe('a queue that keeps what it confirms', () => {
  it.each([
    ['plain', {}, {}],
    ['with arguments that drop nothing', { 'x-queue-mode': 'lazy', 'x-overflow': 'drop-head', 'x-dead-letter-exchange': 'd', 'x-single-active-consumer': true }, {}],
    ['quorum on RabbitMQ 3', quorum, {}],
    ['quorum without a limit on RabbitMQ 4', { ...quorum, 'x-delivery-limit': -1 }, { version: '4.0.5' }],
    ['quorum without a limit by policy on RabbitMQ 4', quorum, { version: '4.1.0', policy: { 'delivery-limit': -1 } }],
    ['with a policy that drops nothing', {}, { policy: { 'ha-mode': 'all', overflow: 'reject-publish' } }],
    ['classic, which counts no returns', { 'x-delivery-limit': 3 }, {}],
  ] as const)('is well: %s', (_title, given, how) => expect(found(given, how)).toEqual([]))
})

describe('a queue that drops what it confirmed is an alarm', () => {
  it.each([
    ['a length', { 'x-max-length': 100 }, {}, 'max-length'],
    ['a length by policy', {}, { policy: { 'max-length': 100 } }, 'max-length'],
    ['a length of zero', { 'x-max-length': 0 }, {}, 'max-length'],
    ['a length in bytes', {}, { policy: { 'max-length-bytes': 100 } }, 'max-length-bytes'],
    ['drop-head in so many words', { 'x-max-length': 1, 'x-overflow': 'drop-head' }, {}, 'max-length'],
    ['an argument drop-head, which wins over the policy', { 'x-max-length': 1, 'x-overflow': 'drop-head' }, { policy: { overflow: 'reject-publish' } }, 'max-length'],
    ['reject-publish-dlx, which a quorum queue does not know', { ...quorum, 'x-max-length': 1 }, { policy: { overflow: 'reject-publish-dlx' } }, 'max-length'],
    ['a time to live', { 'x-message-ttl': 1 }, {}, 'message-ttl'],
    ['a time to live by policy', {}, { policy: { 'message-ttl': 0 } }, 'message-ttl'],
    ['an expiry', { 'x-expires': 1 }, {}, 'expires'],
    ['an expiry by policy', {}, { policy: { expires: 1 } }, 'expires'],
    ['a delivery limit', { ...quorum, 'x-delivery-limit': 5 }, {}, 'delivery-limit'],
    ['a delivery limit by policy', quorum, { policy: { 'delivery-limit': 5 } }, 'delivery-limit'],
    ['a negative delivery limit on RabbitMQ 3', { ...quorum, 'x-delivery-limit': -1 }, {}, 'delivery-limit'],
    ['a negative delivery limit on RabbitMQ 3, dead letters or not', { ...quorum, 'x-delivery-limit': -1, 'x-dead-letter-exchange': 'd' }, {}, 'delivery-limit'],
    ['the default delivery limit of RabbitMQ 4', quorum, { version: '4.0.5' }, 'delivery-limit'],
    ['a policy against an argument without a limit, on RabbitMQ 4', { ...quorum, 'x-delivery-limit': -1 }, { version: '4.0.5', policy: { 'delivery-limit': 5 } }, 'delivery-limit'],
    ['a stream', { 'x-queue-type': 'stream' }, {}, 'stream'],
    ['not durable', {}, { flags: ['not-durable'] }, 'not-durable'],
    ['auto-delete', {}, { flags: ['auto-delete'] }, 'auto-delete'],
    ['exclusive', {}, { flags: ['exclusive'] }, 'exclusive'],
  ] as const)('%s', (_title, given, how, kind) => expect(found(given, how)).toEqual([`alarm ${kind}`]))
})

describe('what refuses or moves is a warning', () => {
  it.each([
    ['a length that refuses', { 'x-max-length': 1, 'x-overflow': 'reject-publish' }, {}, 'max-length'],
    ['a length that refuses by policy', {}, { policy: { 'max-length': 1, overflow: 'reject-publish' } }, 'max-length'],
    ['a length that refuses into dead letters', { 'x-max-length': 1, 'x-overflow': 'reject-publish-dlx' }, {}, 'max-length'],
    ['a delivery limit with dead letters', { ...quorum, 'x-delivery-limit': 5, 'x-dead-letter-exchange': 'd' }, {}, 'delivery-limit'],
    ['the default delivery limit of RabbitMQ 4 with dead letters', quorum, { version: '4.0.5', policy: { 'dead-letter-exchange': 'd' } }, 'delivery-limit'],
    ['priorities', { 'x-max-priority': 5 }, {}, 'max-priority'],
  ] as const)('%s', (_title, given, how, kind) => expect(found(given, how)).toEqual([`warning ${kind}`]))
})

describe('a problem is told', () => {
  it('with the smaller of two numbers, and where that comes from', () => {
    const [first] = problemsOf(facts({ 'x-max-length': 500 }, { policy: { 'max-length': 100 } }))
    expect(first?.text).toBe("drops its oldest messages beyond 100 messages (policy 'p': max-length 100, overflow drop-head)")
    const [second] = problemsOf(facts({ 'x-max-length': 50 }, { policy: { 'max-length': 100 } }))
    expect(second?.text).toContain('argument x-max-length 50')
    expect(second?.remedy).toContain('delete it')
  })
  it('alarms first, all of them', () => {
    const all = found({ 'x-max-priority': 5, 'x-message-ttl': 5, 'x-max-length': 1, 'x-overflow': 'reject-publish' }, { policy: { expires: 9 }, flags: ['not-durable'] })
    expect(all).toEqual(['alarm not-durable', 'alarm message-ttl', 'alarm expires', 'warning max-length', 'warning max-priority'])
  })
  it('says of the default delivery limit that a policy may differ, where policies are not visible', () => {
    expect(problemsOf(facts(quorum, { version: '4.0.5' }))[0]?.text).toContain('not visible here')
    expect(problemsOf(facts(quorum, { version: '4.0.5', policy: {} }))[0]?.text).not.toContain('not visible here')
  })
})
