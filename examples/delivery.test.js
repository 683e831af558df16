import { test } from 'node:test' // or 'vitest', or '@jest/globals'
import { amqpReader, deliver, each, rabbitmqSource } from 'backhaul'
import { marbles } from 'backhaul/testing'

const onlyHot = each((reading) => (reading.celsius > 30 ? [{ ...reading, hot: true }] : []))
const values = { a: { id: 'a', celsius: 31 }, b: { id: 'b', celsius: 3 }, c: { id: 'c', celsius: 40 } }

test('a hot reading is settled when the far end has it, through a loss; a cold one at once', () =>
  marbles(({ source, far, run, rows }) => {
    const readings = source(' a-b--c-----', { values })
    const pulsar = far('      w-----x--v-', { c: ['silent', 1] })
    run(readings.deliveries.pipe(onlyHot, deliver(pulsar.connection, { sink: 'pulsar' })))
    rows(
      [pulsar.writes, '       a----c---c-'],
      [pulsar.demand('a'), '  ^!'],
      [readings.settled, '    -ab-------c'],
    )
  }))

test('what RabbitMQ takes back comes again, in order', () =>
  marbles(({ amqp, far, run, rows }) => {
    const broker = amqp('     o---x 300ms o', {}, { arrivals: 'abc' })
    const pulsar = far('      w', { b: [9, 1], c: [9, 1] })
    const queue = amqpReader({ urls: ['amqp://localhost'], open: broker.open }).channels({ queue: 'queue' })
    run(rabbitmqSource(queue).pipe(deliver(pulsar.connection, { sink: 'pulsar' })))
    rows(
      [broker.given, '        abc 302ms (bc)'],
      [pulsar.writes, '       abc 302ms (bc)'],
      [broker.accepted, '     -a 304ms (bc)'],
    )
  }))
