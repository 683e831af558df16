/** Rows in which processes of Backhaul die, stop or freeze. */
import { repeatedly } from './repeatedly.js'
import { eventually, pause } from './wait.js'
import { answersEarly, forwardsEarly, stopsDeaf } from './sabotage.js'

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

/** @type {readonly import('./rows.js').Row[]} */
export const processes = [
  {
    id: 'R01',
    fault: 'kill -9 of ingest under load',
    counts: { short: 5, long: 50 },
    longMessages: 1_000_000,
    bar: '0 lost, serving again in 2 s',
    split: true,
    load: { sources: 4, batch: 50 },
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
  {
    id: 'R03',
    fault: 'kill -9 of ingest, worker and RabbitMQ in one step',
    counts: { short: 1, long: 10 },
    bar: '0 lost',
    split: true,
    sabotage: answersEarly,
    faults: repeatedly(async ({ ingest, worker, brokers }) => {
      await Promise.all([ingest.kill(), worker.kill(), brokers.kill('rabbitmq')])
      await Promise.all([again(ingest), again(worker), brokers.start('rabbitmq')])
    }),
  },
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
    fault: 'Backhaul frozen (SIGSTOP)',
    counts: { short: 1, long: 10 },
    bar: '0 lost',
    faults: repeatedly(async ({ ingest, long }) => {
      ingest.signal('SIGSTOP')
      await pause(long ? 60_000 : 5000)
      ingest.signal('SIGCONT')
    }),
  },
]
