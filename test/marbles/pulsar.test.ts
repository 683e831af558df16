/** What runs against Pulsar, in virtual time: the real WebSocket writer over a scripted producer. */
import { describe, expect } from 'vitest'
import { pulsarWriter } from '../../src/connections/pulsar.js'
import type { PulsarWriterSettings } from '../../src/connections/pulsar-websocket.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'
import { message } from '../../src/testing.js'
import type { ScriptedPulsar } from '../../src/testing.js'
import { marbles } from './marbles.js'

const sinkTo = ({ open }: ScriptedPulsar, { window = 1000, ...settings }: Partial<PulsarWriterSettings> = {}) =>
  pulsarSink(pulsarWriter({ url: 'ws://scripted', topic: 'persistent://public/default/t', key: 'device', open, window, ...settings }), { window })
const messages = { values: message }

describe('pulsarWriter', () => {
  marbles('accepts at the receipt, and not before; receipts come in any order', ({ source, pulsar, run, rows, flush }) => {
    const far = pulsar('           o', { a: 6, b: 2, c: 3 })
    const { deliveries, settled } = source('abc', messages)
    run(deliveries.pipe(sinkTo(far)))
    rows([far.writes, '            abc'], [settled, '               ---b-ca'])
    flush()
    expect(far.stored()).toBe('abc')
  })
  marbles('rejects what is refused for good, that alone, and goes on', ({ source, pulsar, run, rows, flush }) => {
    const far = pulsar('           o', { a: 3, b: 'refused' })
    const { deliveries, settled } = source('abc', messages)
    const receipts = run(deliveries.pipe(sinkTo(far)))
    rows([far.writes, '            abc'], [settled, '               --B(ac)'], [receipts, '--B(ac)'])
    flush()
    expect(far.stored()).toBe('ac')
  })
  marbles('rejects what is larger than its limit without sending it, and its neighbours arrive', ({ source, pulsar, run, rows }) => {
    const far = pulsar('           o')
    const large = { a: message('a'), b: message('b', { text: 'x'.repeat(200) }), c: message('c') }
    const { deliveries, settled } = source('ab--c', { values: large })
    run(deliveries.pipe(sinkTo(far, { maxMessageBytes: 100 })))
    rows([far.writes, '            a---c'], [settled, '               -(Ba)c'])
  })
  marbles('finds the message for which Pulsar closes its socket by sending one at a time, rejects that one, and the others arrive', ({ source, pulsar, run, rows, flush }) => {
    const far = pulsar('           o', { b: ['too large', 'too large'] })
    const { deliveries, settled } = source('abc', messages)
    run(deliveries.pipe(sinkTo(far)))
    rows([far.writes, '            ab 199ms ab 199ms c'], [settled, '               202ms (aB) 197ms c'])
    flush()
    expect(far.stored()).toBe('aac')
  })
  marbles('sends again what was out when the connection was lost, in order, before anything new', ({ source, pulsar, run, rows, flush }) => {
    const far = pulsar('           o---x 300ms o', { a: ['silent', 1], c: ['silent', 1] })
    const { deliveries, settled } = source('abc-----d', messages)
    run(deliveries.pipe(sinkTo(far)))
    rows([far.writes, '            abc 302ms (acd)'], [settled, '               --b 303ms (acd)'])
    flush()
    expect(far.stored(), 'the receipts of a and c were lost, not they').toBe('abcacd')
  })
  marbles('takes any other failure for the connection’s: all of it again, in order', ({ source, pulsar, run, rows }) => {
    const far = pulsar('           o', { a: 9, b: ['failed', 1] })
    const { deliveries, settled } = source('ab', messages)
    run(deliveries.pipe(sinkTo(far)))
    rows([far.writes, '            ab 200ms (ab)'], [settled, '               203ms b 7ms a'])
  })
  marbles('waits out a freeze that is short: nothing is sent twice', ({ source, pulsar, run, rows, flush }) => {
    const far = pulsar('           o-f 5s u', { a: 5 })
    const { deliveries, settled } = source('a--b', messages)
    run(deliveries.pipe(sinkTo(far)))
    rows([far.writes, '            a 5002ms b'], [settled, '               5003ms ab'])
    flush()
    expect(far.stored()).toBe('ab')
  })
  marbles('gives a peer up that stays frozen, and one that owes its receipt for too long', ({ source, pulsar, run, rows, flush }) => {
    const [frozen, owing] = [pulsar('  o-f 12s u', { a: ['silent', 1] }), pulsar('o', { a: ['silent', 1] })]
    const [one, two] = [source('a', messages), source('a', messages)]
    run(one.deliveries.pipe(sinkTo(frozen, { silenceMs: 9000 })))
    run(two.deliveries.pipe(sinkTo(owing, { confirmTimeoutMs: 700 })))
    rows([owing.writes, '          a 899ms a'], [two.settled, '            901ms a'])
    rows([frozen.writes, '         a 12002ms a'], [one.settled, '            12004ms a'])
    flush()
    expect([frozen.sockets(), owing.sockets()]).toEqual([1, 1])
  })
  marbles('keeps to its window: demand follows receipts', ({ source, pulsar, run, rows }) => {
    const far = pulsar('           o', { a: 4, b: 4, c: 4 })
    const { deliveries, settled } = source('abc', messages)
    run(deliveries.pipe(sinkTo(far, { window: 2 })))
    rows([far.writes, '            ab--c'], [settled, '               ----ab--c'])
  })
  marbles('closes its socket when it is unsubscribed, and releases all', ({ source, pulsar, run, rows, flush }) => {
    const far = pulsar('           o', { a: 'silent' })
    const { deliveries, settled } = source('a', messages)
    run(deliveries.pipe(sinkTo(far)), '    ^--!')
    rows([far.writes, '            a'], [settled, '               ---*'])
    flush()
    expect(far.sockets()).toBe(0)
  })
})
