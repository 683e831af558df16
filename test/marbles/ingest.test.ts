/** A process with only the door: its dead letters go to RabbitMQ and have no spool, for the forwarder's process has that folder. */
import { map } from 'rxjs'
import { describe } from 'vitest'
import type { Connection } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { deliver } from '../../src/operators/deliver.js'
import { ingest } from '../../src/pipelines/ingest.js'
import { deadLetterSink } from '../../src/sinks/dead-letters.js'
import { message } from '../../src/testing.js'
import { marbles } from './marbles.js'

const values = { a: message('a'), b: message('b'), c: message('c') }
const byId = (connection: Connection<string>): Connection<Message> => connection.pipe(map((write) => write && (({ id }: Message) => write(id))))

describe('what the queue refuses at the door while RabbitMQ is away', () => {
  marbles('gets its yes when RabbitMQ has it as a dead letter, and not before; the others do not wait', ({ source, far, run, rows }) => {
    const door = source('  abc', { values })
    const rabbit = far('-------w')
    const queue = far(' w', { b: 'refused' })
    run(ingest({ sources: [door.deliveries], queue: deliver(byId(queue.connection), { sink: 'queue' }), deadLetters: deadLetterSink(byId(rabbit.connection)) }))
    rows([rabbit.writes, ' -------b'], [door.settled, ' -a-c----b'])
  })
  marbles('has no yes when the process ends first: its sender still has it', ({ source, far, run, rows }) => {
    const door = source('  abc', { values })
    const rabbit = far('-')
    const queue = far(' w', { b: 'refused' })
    run(ingest({ sources: [door.deliveries], queue: deliver(byId(queue.connection), { sink: 'queue' }), deadLetters: deadLetterSink(byId(rabbit.connection)) }), '-----!')
    rows([door.settled, '-a-c-*'])
  })
})
