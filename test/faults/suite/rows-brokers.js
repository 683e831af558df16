/** Rows in which RabbitMQ or Pulsar die, freeze, block, refuse or forget. One daemon lives through all of it. */
import amqp from 'amqplib'
import { rmSync } from 'node:fs'
import { repeatedly } from './repeatedly.js'
import { pause, eventually } from './wait.js'
import { answersEarly, declaresOnce, deafToRefusals, deafToReturns, forgetsHeld, forwardsEarly } from './sabotage.js'

const kill = (name) => repeatedly(async ({ brokers, taking }) => {
  await brokers.kill(name)
  await taking()
  await brokers.start(name)
})
const freeze = (name, shortMs, longMs) => repeatedly(async ({ brokers, taking, long }) => {
  await brokers.freeze(name)
  await taking()
  await pause(long ? longMs : shortMs)
  await brokers.thaw(name)
})
const alarm = (on, off) => repeatedly(async ({ brokers, taking, long }) => {
  await brokers.rabbitmqctl(...on)
  await taking()
  await pause(long ? 30_000 : 2000)
  await brokers.rabbitmqctl(...off)
})

const declare = async (amqpUrl, queue) => {
  const connection = await amqp.connect(amqpUrl)
  await (await connection.createChannel()).assertQueue(queue)
  await connection.close()
}
/** What is in the queue, ready or given out; undefined where there is no such queue. */
const depthOf = async (brokers, queue) => {
  const lines = await brokers.rabbitmqctl('list_queues', 'name', 'messages', '--silent')
  const found = lines.split('\n').map((line) => line.split('\t')).find(([name]) => name === queue)
  return found && Number(found[1])
}

/**
 * The queue is deleted at a moment at which nothing lies in it: what lay there would be gone with it, by somebody's
 * order. RabbitMQ answers "not empty" by closing the channel, so each try has its own.
 */
const deleteEmpty = async ({ amqpUrl }, queue) => {
  const connection = await amqp.connect(amqpUrl)
  connection.on('error', () => undefined)
  const tried = async () => {
    const channel = await connection.createChannel()
    channel.on('error', () => undefined)
    await channel.deleteQueue(queue, { ifEmpty: true })
    return true
  }
  try {
    await eventually('the queue is empty for a moment', () => tried().catch(() => false), 60_000)
  } finally {
    await connection.close().catch(() => undefined)
  }
}

/**
 * RabbitMQ is frozen while it has nothing, and the sender stands still: so it confirms nothing any more, and all that
 * is accepted from there on is Backhaul's alone to keep. Then it is killed, and starts with an empty folder.
 */
const wipe = async ({ brokers, queue, sender, ingest, outstanding, bite }) => {
  const metric = async (...of) => (await ingest.metrics())(...of)
  const marker = `${queue}-before`
  await declare(brokers.amqpUrl, marker)
  await sender.whileStill(async () => {
    // A sender that stands still has perhaps not noted its last answers: then more has arrived than it knows of.
    await eventually('nothing is under way', async () => {
      const unsettled = await Promise.all(['ingest', 'forward'].map((pipeline) => metric('backhaul_pipeline_unsettled', `pipeline="${pipeline}"`)))
      return outstanding() <= 0 && unsettled.every((count) => count === 0) && (await depthOf(brokers, queue)) === 0
    }, 60_000)
    await brokers.freeze('rabbitmq')
  })
  await bite(async () => {
    await brokers.kill('rabbitmq')
    rmSync(brokers.rabbitmqData, { recursive: true })
    await brokers.start('rabbitmq')
  })
  if ((await depthOf(brokers, marker)) !== undefined) throw new Error('RabbitMQ did not come back empty')
  // Under full load the spool may fill as fast as it drains.
  const isBack = async () => (await depthOf(brokers, queue)) !== undefined && (await metric('backhaul_spooled_messages')) === 0
  await sender.whileStill(() => eventually('the queue is there again, and the spool empty', isBack, 60_000))
}

/** @type {readonly import('./rows.js').Row[]} */
export const brokerRows = [
  {
    id: 'R24',
    fault: 'kill -9 of RabbitMQ under load',
    counts: { short: 1, long: 50 },
    bar: '0 lost; the spool takes what comes',
    sabotage: answersEarly,
    faults: kill('rabbitmq'),
  },
  {
    id: 'R25',
    fault: 'RabbitMQ frozen (SIGSTOP)',
    counts: { short: 1, long: 10 },
    bar: '0 lost; the spool takes what comes',
    sabotage: answersEarly,
    faults: freeze('rabbitmq', 4000, 60_000),
  },
  {
    id: 'R26',
    fault: 'memory alarm of RabbitMQ',
    counts: { short: 1, long: 20 },
    bar: '0 lost, none doubled that was sent once',
    sabotage: forgetsHeld,
    atMost: { doubledUnasked: 0 },
    faults: alarm(['set_vm_memory_high_watermark', '0.0000001'], ['set_vm_memory_high_watermark', '0.4']),
  },
  {
    id: 'R27',
    fault: 'disk alarm of RabbitMQ',
    counts: { short: 1, long: 20 },
    bar: '0 lost, none doubled that was sent once',
    sabotage: forgetsHeld,
    atMost: { doubledUnasked: 0 },
    faults: alarm(['set_disk_free_limit', '10000GB'], ['set_disk_free_limit', '50MB']),
  },
  {
    id: 'R28',
    fault: 'queue deleted under load while it is empty',
    counts: { short: 3, long: 20 },
    bar: '0 lost: what no queue received was not accepted, and what RabbitMQ confirmed while it deleted the queue is written again',
    sabotage: deafToReturns,
    load: { sources: 2, batch: 1 },
    faults: repeatedly(({ brokers, queue }) => deleteEmpty(brokers, queue), 50),
  },
  {
    id: 'R30',
    // Given to a queue that is longer, the policy itself drops what is too much (RabbitMQ 3.10: 999 of 1,000).
    fault: 'RabbitMQ refuses (reject-publish above 5,000 messages), with nobody who takes from the queue',
    counts: { short: 1, long: 20 },
    bar: '0 lost',
    split: true,
    sabotage: deafToRefusals,
    faults: repeatedly(async ({ brokers, queue, taking, ingest, worker }) => {
      const isShort = async () => (await ingest.metrics())('backhaul_spooled_messages') === 0 && (await depthOf(brokers, queue)) < 1000
      await eventually('what the last strike left has drained', isShort, 120_000)
      await brokers.rabbitmqctl('set_policy', 'full', `^${queue}$`, '{"max-length":5000,"overflow":"reject-publish"}', '--apply-to', 'queues')
      await worker.kill()
      await taking(10_000)
      await brokers.rabbitmqctl('clear_policy', 'full')
      await worker.start()
    }),
  },
  {
    id: 'R37',
    fault: 'RabbitMQ is wiped under load, and starts empty',
    counts: { short: 1, long: 20 },
    bar: '0 lost: the queue is made again, and what Backhaul held goes there; no restart',
    sabotage: declaresOnce,
    atMost: { stuck: 0, starts: 1 },
    faults: async (world) => {
      let stuck = 0
      for (let strike = 0; strike < world.count && stuck === 0; strike += 1) {
        await world.flowing()
        await wipe(world).catch((error) => {
          if (!/^not within/.test(error.message)) throw error
          console.error(`R37: ${error.message}`)
          stuck += 1
        })
      }
      return { stuck, starts: world.ingest.starts() }
    },
  },
  {
    id: 'R41',
    fault: 'kill -9 of Pulsar under load',
    counts: { short: 1, long: 20 },
    bar: '0 lost, at most the window repeated for each kill',
    sabotage: forwardsEarly,
    atMost: { repeatedPerStrike: 1000 },
    faults: kill('pulsar'),
  },
  {
    id: 'R42',
    fault: 'Pulsar frozen (SIGSTOP)',
    counts: { short: 1, long: 10 },
    bar: '0 lost',
    sabotage: forwardsEarly,
    faults: freeze('pulsar', 5000, 90_000),
  },
]
