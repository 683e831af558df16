/** Rows about too much: too many deaths over the same window, too many messages. */
import amqp from 'amqplib'
import { once } from 'node:events'
import { eventually, pause } from './wait.js'
import { holdsTheLast, overtakesItsSpool, refusesWithYes } from './sabotage.js'

const channelTo = async (amqpUrl) => {
  const connection = await amqp.connect(amqpUrl)
  connection.on('error', () => {})
  const channel = await connection.createChannel()
  channel.on('error', () => {})
  return { connection, channel }
}

/**
 * A consumer that takes the worker's window and dies with it: RabbitMQ counts one more delivery of each. A smaller
 * window would change the order: what such a consumer gives back, a quorum queue puts behind the rest of what it
 * was given back before (RabbitMQ 3.10).
 */
const window = 1000
const dieWithWindow = async (amqpUrl, queue) => {
  const { connection, channel } = await channelTo(amqpUrl)
  const { stream } = connection.connection
  const gone = once(stream, 'close')
  let taken = 0
  await channel.prefetch(window)
  await channel.consume(queue, () => (taken += 1))
  await eventually('it has a window', () => taken >= window, 30_000)
  stream.destroy()
  await gone
}

/** One message after a silence of two seconds, and nothing after it that could push it on. @type {import('./rows.js').Row} */
const lone = {
  id: 'R50',
  fault: 'a message, and then silence',
  counts: { short: 4, long: 1000 },
  bar: 'delivered within a second, without help from a later one',
  load: { sources: 1, batch: 1, perSecond: 0.5 },
  sabotage: holdsTheLast,
  atMost: { deliveredMs: 1000 },
  faults: async ({ ledger, outstanding, count }) => {
    let deliveredMs = 0
    for (let bites = 0; bites < count; bites += 1) {
      const before = ledger.accepted()
      await eventually('it is accepted', () => ledger.accepted() > before)
      const began = Date.now()
      await eventually('it arrives', () => outstanding() <= 0, 5000).catch(() => undefined)
      deliveredMs = Math.max(deliveredMs, Date.now() - began)
    }
    return { bites: count, deliveredMs }
  },
}

/** How many leave the spool for each that comes, from the first that leaves it to its end. */
const drained = async ({ ledger, ingest, witness }) => {
  const inSpool = async () => (await ingest.metrics())('backhaul_spooled_messages')
  const before = witness.unique()
  await eventually('it drains', () => witness.unique() > before, 60_000)
  const [accepted, deep] = [ledger.accepted(), await inSpool()]
  await eventually('the spool is empty', async () => (await inSpool()) === 0, 900_000)
  const came = ledger.accepted() - accepted
  return (deep + came) / came
}

/** Small devices: with a heap of its default size Node takes memory for as long as there is some. */
const smallHeap = { NODE_OPTIONS: '--max-semi-space-size=4 --max-old-space-size=96' }

/** @type {import('./rows.js').Row} */
const backlog = {
  id: 'R38',
  fault: 'RabbitMQ is away until 15,000 messages (--long: 1,000,000) lie in the spool, and they drain while others come; a heap of 96 MiB',
  counts: { short: 1, long: 1 },
  bar: '0 lost, 0 reordered, at least two drained for each that comes, at most 150 MiB resident',
  load: { sources: 4, batch: 50, perSecond: 1500 },
  settings: smallHeap,
  sabotage: overtakesItsSpool,
  atMost: { rssMiB: 150, starts: 1 },
  atLeast: { drainRatio: 2 },
  faults: async (world) => {
    const { brokers, ingest, ledger, flowing, bite, long } = world
    let peak = 0
    const watch = setInterval(() => (peak = Math.max(peak, ingest.rss())), 200)
    try {
      await flowing()
      await brokers.kill('rabbitmq')
      const most = ledger.accepted() + (long ? 1_000_000 : 15_000)
      await bite(() => eventually('the backlog', () => ledger.accepted() >= most, 900_000))
      await brokers.start('rabbitmq')
      const drainRatio = await drained(world)
      await flowing()
      return { drainRatio, rssMiB: Math.round(peak / 2 ** 20), starts: ingest.starts() }
    } finally {
      clearInterval(watch)
    }
  },
}

/** @type {import('./rows.js').Row} */
const overload = {
  id: 'R55',
  fault: 'far more than can go through: 64 senders that do not wait',
  counts: { short: 1, long: 1 },
  bar: '0 lost of what was accepted, some refused, at most 300 MiB resident',
  load: { sources: 64, batch: 100, pad: 900, insist: false, perSecond: 0 },
  sabotage: refusesWithYes,
  atMost: { rssMiB: 300 },
  atLeast: { refused: 1 },
  faults: async ({ ingest, flowing, bite, long }) => {
    await flowing()
    let rss = 0
    await bite(async () => {
      for (const end = Date.now() + (long ? 600_000 : 8000); Date.now() < end; await pause(200)) rss = Math.max(rss, ingest.rss())
    })
    return { rssMiB: Math.round(rss / 2 ** 20), starts: ingest.starts() }
  },
}

/** @type {readonly import('./rows.js').Row[]} */
export const loads = [
  backlog,
  lone,
  { ...lone, id: 'R50e', fault: 'embedded queue: a message, and then silence', settings: { BACKHAUL_AMQP_URL: '' } },
  {
    id: 'R05',
    fault: 'a consumer dies 25 times with the same window, quorum queue',
    counts: { short: 25, long: 100 },
    bar: '0 lost: the queue that Backhaul makes counts no message to death',
    split: true,
    settings: { BACKHAUL_QUEUE_TYPE: 'quorum' },
    sabotage: {
      name: 'control: a queue with a delivery limit of 20, and no dead letters, was there before',
      row: {
        settings: {},
        prepare: async ({ brokers, queue }) => {
          const { connection, channel } = await channelTo(brokers.amqpUrl)
          await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 20 } })
          await connection.close()
        },
      },
    },
    faults: async ({ worker, brokers, queue, flowing, taking, bite, count }) => {
      await flowing()
      await worker.kill()
      await taking(window + 200)
      for (let death = 0; death < count; death += 1) await bite(() => dieWithWindow(brokers.amqpUrl, queue))
      await worker.start()
      await flowing()
    },
  },
  overload,
  { ...overload, id: 'R55s', fault: `${overload.fault}; a heap of 96 MiB`, bar: '0 lost of what was accepted, some refused, at most 200 MiB resident, no restart', settings: smallHeap, atMost: { rssMiB: 200, starts: 1 } },
]
