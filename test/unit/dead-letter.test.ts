import { describe, expect, it } from 'vitest'
import { fromAmqp, toAmqp } from '../../src/connections/amqp-message.js'
import { buried, letterOf, revived, summaryOf } from '../../src/dead-letter.js'
import { decodeMessage, digestOf, encodeHeaders, maxPropertiesBytes, uncarriable } from '../../src/message.js'
import type { Message } from '../../src/message.js'

const verdict = { reason: 'no JSON', stage: 'check', attempts: 2, firstSeen: 0, letter: 'l1' }
const body = Buffer.from([0, 255, 1])
const ours: Message = { id: 'a', body, properties: { site: 'north' }, digest: digestOf(body) }
const foreign: Message = { id: 'a', body, properties: { site: 'north' } }
const throughAmqp = (message: Message): Message => {
  const { messageId, headers } = toAmqp(message)
  const { redelivered, ...same } = fromAmqp({ content: message.body, fields: { deliveryTag: 1, redelivered: false }, properties: { messageId, headers } })
  expect(redelivered).toBe(false)
  return same
}

describe('a dead letter', () => {
  it('gives back the message as it was before it was one, and marks it', () => {
    for (const message of [ours, foreign]) {
      const dead = buried(message, verdict)
      expect(dead.properties).not.toEqual(message.properties)
      expect(revived(dead)).toEqual({ ...message, replayed: letterOf(dead) })
    }
  })
  it('keeps the producer’s own properties of its names, and gives them back', () => {
    const properties = { 'backhaul-reason': 'own', 'backhaul-letter': 'own too', 'backhaul-kept-backhaul-reason': 'odd', 'backhaul-other': 'stays' }
    const dead = buried({ ...ours, properties }, verdict)
    expect(summaryOf(dead)).toEqual({ id: 'a', reason: 'no JSON', stage: 'check', attempts: 2, firstSeen: '1970-01-01T00:00:00.000Z', size: 3 })
    expect(revived(dead).properties).toEqual(properties)
    const again = buried(revived(dead), { ...verdict, letter: 'l2' })
    expect(revived(again).properties).toEqual(properties)
  })
  it('is told as far as it goes when another program put it there', () => {
    expect(summaryOf(foreign)).toEqual({ id: 'a', reason: '', stage: '', attempts: 0, firstSeen: '', size: 3 })
  })
  it('of a Backhaul’s own is the same one when a crash has it kept twice', () => {
    expect(letterOf(buried(ours, verdict))).toBe(letterOf(buried(ours, { ...verdict, firstSeen: 5, attempts: 1, letter: 'l2' })))
  })
  it('is another one with another id, other bytes, and when it was put back and rejected again', () => {
    const first = letterOf(buried(ours, verdict))
    const all = [first, letterOf(buried({ ...ours, id: 'b' }, verdict)), letterOf(buried({ ...ours, body: Buffer.from('{}') }, verdict)), letterOf(buried({ ...ours, replayed: first }, verdict)), letterOf(buried(foreign, verdict))]
    expect(new Set(all).size).toBe(5)
  })
  it('of another program is never taken for another one that is alike in all it was given', () => {
    expect(letterOf(buried(foreign, verdict))).not.toBe(letterOf(buried(foreign, { ...verdict, letter: 'l2' })))
  })
  it('keeps its mark in both queues, and a producer’s property of that name', () => {
    const replayed: Message = { ...revived(buried({ ...ours, properties: { 'backhaul-replayed': 'own', site: 'north' } }, verdict)) }
    expect(throughAmqp(replayed)).toEqual(replayed)
    expect(decodeMessage(replayed.body, encodeHeaders(replayed))).toEqual(replayed)
    const never: Message = { ...foreign, properties: { 'backhaul-replayed': 'own' } }
    expect(throughAmqp(never)).toEqual(never)
  })
  it('leaves properties behind that no queue carries beside what is known, and says so', () => {
    const properties = { site: 'x'.repeat(maxPropertiesBytes - 100) }
    expect(uncarriable({ ...foreign, properties })).toBeUndefined()
    const dead = buried({ ...foreign, properties }, verdict)
    expect(uncarriable(dead)).toBeUndefined()
    expect(summaryOf(dead).reason).toBe('no JSON (its properties, 61350 bytes, could not be kept)')
    expect(revived(dead)).toMatchObject({ id: 'a', body, properties: {} })
  })
})

describe('what another program wrote', () => {
  it('can be sent on: bytes that are no text have grown, and are no id and no name then', () => {
    const grown = '\ufffd'.repeat(200)
    const read = fromAmqp({ content: body, fields: { deliveryTag: 1, redelivered: false }, properties: { messageId: grown, headers: { [grown]: 'x', site: 'north' } } })
    expect(read.properties).toEqual({ site: 'north' })
    expect(read.id).not.toBe(grown)
    expect(uncarriable(read)).toBeUndefined()
  })
  it('has no digest and no mark that are too long to be remembered by the thousand', () => {
    const long = 'x'.repeat(256)
    const read = fromAmqp({ content: body, fields: { deliveryTag: 1, redelivered: false }, properties: { messageId: 'a', headers: { 'backhaul-digest': long, 'backhaul-replayed': { letter: long } } } })
    expect([read.digest, read.replayed]).toEqual([undefined, undefined])
  })
})
