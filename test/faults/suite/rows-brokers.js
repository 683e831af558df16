/** Rows in which RabbitMQ or Pulsar die, freeze, block, refuse or forget. One daemon lives through all of it. */
import { repeatedly } from './repeatedly.js'
import { pause, eventually } from './wait.js'
import { answersEarly, deafToRefusals, deafToReturns, forgetsHeld, forwardsEarly } from './sabotage.js'

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

/** The queue is deleted at a moment at which nothing lies in it: what lay there would be gone with it, by somebody's order. */
const deleteEmpty = (brokers, queue) =>
  eventually('the queue is empty for a moment', () => brokers.rabbitmqctl('delete_queue', queue, '--if-empty').then(() => true, () => false), 60_000)

/** @type {readonly import('./rows.js').Row[]} */
export const brokerRows = [
  {
    id: 'R24',
    fault: 'kill -9 of RabbitMQ under load',
    counts: { short: 2, long: 50 },
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
    bar: 'at most the two lost that are on their way (RabbitMQ confirms them): what no queue received was not accepted',
    sabotage: deafToReturns,
    load: { sources: 2, batch: 1 },
    lossPerStrike: 2,
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
    faults: repeatedly(async ({ brokers, queue, taking, worker }) => {
      await brokers.rabbitmqctl('set_policy', 'full', `^${queue}$`, '{"max-length":5000,"overflow":"reject-publish"}', '--apply-to', 'queues')
      await worker.kill()
      await taking(10_000)
      await brokers.rabbitmqctl('clear_policy', 'full')
      await worker.start()
    }),
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
