/** Rows in which a network between Backhaul and its brokers is slow, cut, deaf or gone. Both stay as they are. */
import { openProxy } from '../proxy.js'
import { repeatedly } from './repeatedly.js'
import { takesLossForYes, waitsForEver } from './sabotage.js'
import { eventually, pause } from './wait.js'

const portOf = (address) => Number(new URL(address).port)

/** The daemon reaches RabbitMQ and Pulsar only through proxies, which are in the world as `amqp` and `pulsar`. */
export const throughProxies = async ({ brokers }) => {
  const amqp = await openProxy({ port: portOf(brokers.amqpUrl) })
  const pulsar = await openProxy({ port: portOf(brokers.pulsarUrl) })
  return {
    settings: { BACKHAUL_AMQP_URL: amqp.through(brokers.amqpUrl), BACKHAUL_PULSAR_URL: pulsar.through(brokers.pulsarUrl) },
    world: { amqp, pulsar },
    close: () => [amqp, pulsar].forEach((proxy) => proxy.close()),
  }
}
const bothWays = (way) => ({ up: way, down: way })

/**
 * Answers vanish on the way back while requests still go, some of them late; then the connection ends. So at each
 * end some of what is unconfirmed is there, and some is not, and nobody is told which.
 */
const answersVanish = (name, least) =>
  repeatedly(async ({ [name]: proxy }) => {
    const before = proxy.counts().down.swallowed
    await proxy.set({ up: { latencyMs: 400 }, down: { swallow: true } })
    await eventually('answers vanish', () => proxy.counts().down.swallowed >= before + least)
    await proxy.set({ up: { latencyMs: 400, swallow: true }, down: { swallow: true } })
    await eventually('requests vanish', () => proxy.counts().up.swallowed > 0)
    await proxy.heal()
  })

const badLinks = [{ sliceBytes: 1 }, { latencyMs: 500 }, { bytesPerSecond: 8000 }].map(bothWays)

/** @type {readonly import('./rows.js').Row[]} */
export const network = [
  {
    id: 'R32',
    fault: 'RabbitMQ\'s confirms are lost on the way back, then the connection is reset',
    counts: { short: 5, long: 100 },
    bar: '0 lost, at most the window repeated for each strike',
    prepare: throughProxies,
    sabotage: takesLossForYes,
    atMost: { repeatedPerStrike: 1000 },
    faults: answersVanish('amqp', 20),
  },
  {
    id: 'R33',
    fault: 'bad links, to RabbitMQ and then to Pulsar: 1 byte at a time, 500 ms each way, 8,000 bytes a second',
    counts: { short: 6, long: 60 },
    bar: '0 lost, 0 corrupt, and messages still come through',
    load: { sources: 2, batch: 5 },
    prepare: throughProxies,
    atMost: { stuck: 0 },
    sabotage: { name: 'control: confirms are waited for no longer than 150 ms', row: { settings: { BACKHAUL_CONFIRM_TIMEOUT_MS: '150' } } },
    faults: async ({ amqp, pulsar, ledger, witness, flowing, bite, count }) => {
      const links = badLinks.flatMap((faults) => [[amqp, faults], [pulsar, faults]])
      let slowestMs = 0
      let stuck = 0
      /** All that was accepted until now, and so many more. */
      const comesThrough = (more) => {
        const accepted = ledger.accepted()
        return eventually('messages come through', () => witness.unique() >= accepted + more, 60_000)
      }
      for (let strike = 0; strike < count; strike += 1) {
        const [proxy, faults] = links[strike % links.length]
        await flowing()
        await proxy.set(faults)
        await bite(async () => {
          const began = Date.now()
          await comesThrough(200).catch(() => (stuck += 1))
          slowestMs = Math.max(slowestMs, Date.now() - began)
        })
        await proxy.heal()
      }
      await flowing()
      return { slowestMs, stuck, pieces: amqp.counts().up.pieces + pulsar.counts().up.pieces }
    },
  },
  {
    id: 'R35',
    fault: 'half-open and partitioned: RabbitMQ deaf, RabbitMQ and Backhaul apart, Pulsar and Backhaul apart, with no word of it from the network',
    counts: { short: 3, long: 30 },
    bar: '0 lost, taking again within 3 s (RabbitMQ), noticed within 45 s (Pulsar)',
    load: { sources: 2, batch: 5 },
    prepare: throughProxies,
    sabotage: waitsForEver,
    atMost: { answeringMs: 3000, noticedMs: 45_000 },
    faults: async ({ amqp, pulsar, flowing, bite, ledger, ingest, count, long }) => {
      let answeringMs = 0
      let noticedMs = 0
      const since = async (began, what, holds) => {
        await eventually(what, holds, 60_000)
        return Date.now() - began
      }
      const rabbitmqGone = (faults) => async () => {
        await amqp.set(faults)
        const accepted = ledger.accepted()
        answeringMs = Math.max(answeringMs, await since(Date.now(), 'messages are taken without RabbitMQ', () => ledger.accepted() > accepted + 200))
        await pause(long ? 60_000 : 4000)
        await amqp.heal()
      }
      const pulsarGone = async () => {
        const began = Date.now()
        await pulsar.set(bothWays({ hold: true }))
        noticedMs = Math.max(noticedMs, await since(began, 'the silence of Pulsar is noticed', async () => (await ingest.metrics())('backhaul_connected', 'link="pulsar"') === 0))
        await pulsar.heal()
      }
      const strikes = [rabbitmqGone({ down: { swallow: true } }), rabbitmqGone(bothWays({ hold: true })), pulsarGone]
      for (let strike = 0; strike < count; strike += 1) {
        await flowing()
        await bite(strikes[strike % strikes.length])
      }
      await flowing()
      return { answeringMs, noticedMs }
    },
  },
  {
    id: 'R35r',
    fault: 'every connection to RabbitMQ and to Pulsar reset under load, with half a second of requests on its way',
    counts: { short: 4, long: 200 },
    bar: '0 lost, at most the window repeated for each reset',
    prepare: throughProxies,
    sabotage: takesLossForYes,
    atMost: { repeatedPerStrike: 1000 },
    faults: repeatedly(async ({ amqp, pulsar }) => {
      const before = amqp.counts().resets + pulsar.counts().resets
      await Promise.all([amqp, pulsar].map((proxy) => proxy.set({ up: { latencyMs: 100 } })))
      await pause(500)
      for (const proxy of [amqp, pulsar]) proxy.reset()
      if (amqp.counts().resets + pulsar.counts().resets < before + 2) throw new Error('there was nothing to reset')
      await Promise.all([amqp, pulsar].map((proxy) => proxy.heal()))
    }),
  },
  {
    id: 'R44',
    fault: 'Pulsar\'s receipts are lost on the way back, then the connection is reset; no deduplication',
    counts: { short: 5, long: 50 },
    bar: '0 lost, some repeated, at most the window for each strike',
    prepare: throughProxies,
    sabotage: takesLossForYes,
    atMost: { repeatedPerStrike: 1000 },
    atLeast: { duplicated: 1 },
    faults: answersVanish('pulsar', 20),
  },
]
