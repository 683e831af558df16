/** Rows in which processes of Backhaul die, stop or freeze. */
import { repeatedly } from './repeatedly.js'
import { throughProxies } from './rows-network.js'
import { eventually, pause } from './wait.js'
import { answersEarly, forwardsEarly, stopsDeaf, takesLossForYes } from './sabotage.js'

const again = async (daemon) => {
  const began = Date.now()
  await daemon.start()
  return Date.now() - began
}

/** @type {import('./rows.js').Row} */
const killedWorker = {
  id: 'R02',
  fault: 'kill -9 of the worker under load',
  counts: { short: 5, long: 100 },
  bar: '0 lost, at most the window repeated for each kill',
  split: true,
  sabotage: forwardsEarly,
  atMost: { repeatedPerStrike: 1000 },
  faults: repeatedly(async ({ worker }) => {
    await worker.kill()
    await again(worker)
  }),
}

const shown = { rabbitmq: 'RabbitMQ', pulsar: 'Pulsar' }
/** @type {(id: string, ...names: string[]) => import('./rows.js').Row} */
const killedTogether = (id, ...names) => ({
  id,
  fault: `kill -9 of ${['ingest', 'worker', ...names.map((name) => shown[name])].join(', ').replace(/, (?=\w+$)/, ' and ')} in one step`,
  counts: { short: 1, long: 10 },
  bar: '0 lost',
  split: true,
  sabotage: answersEarly,
  faults: repeatedly(async ({ ingest, worker, brokers }) => {
    await Promise.all([ingest.kill(), worker.kill(), brokers.kill(...names)])
    await Promise.all([again(ingest), again(worker), brokers.start(...names)])
  }),
})

/** Ingest, the worker and both, in turn, with the link of each that a message leaves by. */
const frozen = () => {
  let turn = 0
  return async ({ ingest, worker, amqp, pulsar, flowing, long }) => {
    const pairs = [[[ingest, amqp]], [[worker, pulsar]], [[ingest, amqp], [worker, pulsar]]][turn++ % 3]
    const all = async (act) => void (await Promise.all(pairs.map(([daemon, proxy]) => act(daemon, proxy))))
    await all((_, proxy) => proxy.set({ up: { latencyMs: 400 } }))
    await flowing()
    await all(async (daemon, proxy) => {
      const before = proxy.counts().up.swallowed
      await proxy.set({ up: { swallow: true } })
      await eventually('what is on its way vanishes', () => proxy.counts().up.swallowed > before)
      daemon.signal('SIGSTOP')
      await eventually('it stands still', () => daemon.frozen())
      await pause(long ? 60_000 : 5000)
      const { resets } = proxy.counts()
      proxy.reset()
      // After the minute of the long form the broker has hung up by itself.
      if (!long && proxy.counts().resets === resets) throw new Error('there was nobody to hang up on')
      await proxy.heal()
      daemon.signal('SIGCONT')
    })
  }
}

/** @type {readonly import('./rows.js').Row[]} */
export const processes = [
  {
    id: 'R01',
    fault: 'kill -9 of ingest under load',
    counts: { short: 5, long: 50 },
    longMessages: 1_000_000,
    bar: '0 lost, serving again in 2 s',
    split: true,
    load: { sources: 4, batch: 50, perSecond: 0 },
    atMost: { restartMs: 2000 },
    sabotage: answersEarly,
    faults: async ({ ingest, flowing, bite, count, long, ledger, longMessages }) => {
      let restartMs = 0
      for (let kill = 1; kill <= count; kill += 1) {
        await flowing()
        if (long) await eventually('its share of messages', () => ledger.accepted() >= (longMessages * kill) / count, 600_000)
        await bite(() => ingest.kill())
        restartMs = Math.max(restartMs, await again(ingest))
      }
      await flowing()
      return { restartMs }
    },
  },
  killedWorker,
  { ...killedWorker, id: 'R02q', fault: 'kill -9 of the worker under load, quorum queue', settings: { BACKHAUL_QUEUE_TYPE: 'quorum' } },
  killedTogether('R03', 'rabbitmq'),
  killedTogether('R03a', 'rabbitmq', 'pulsar'),
  {
    id: 'R04',
    fault: 'SIGTERM under load',
    counts: { short: 5, long: 100 },
    bar: '0 lost, none doubled that was sent once, exit 0 within 5 s',
    sabotage: stopsDeaf,
    atMost: { doubledUnasked: 0, badExits: 0, stopMs: 5000 },
    faults: async ({ ingest, flowing, bite, count }) => {
      let badExits = 0
      let stopMs = 0
      for (let stop = 0; stop < count; stop += 1) {
        await flowing()
        const began = Date.now()
        const { code } = await bite(() => (ingest.signal('SIGTERM'), ingest.ended()))
        stopMs = Math.max(stopMs, Date.now() - began)
        if (code !== 0) badExits += 1
        await again(ingest)
      }
      await flowing()
      return { badExits, stopMs }
    },
  },
  {
    id: 'R54',
    fault: 'Backhaul frozen (SIGSTOP): ingest, the worker, both; what is on its way is lost, and its broker has hung up when it wakes',
    counts: { short: 3, long: 30 },
    bar: '0 lost, at most the window repeated for each freeze',
    split: true,
    prepare: throughProxies,
    sabotage: takesLossForYes,
    atMost: { repeatedPerStrike: 1000 },
    faults: repeatedly(frozen()),
  },
]
