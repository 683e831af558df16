/**
 * One row, once: names of its own, a witness, the daemons, the sender; then the row's faults; then, when the faults
 * have stopped, the verdict. Waits have the deadlines of Vector's harness: 180 s for health, 120 s for what is left.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { makeDaemon } from './daemon.js'
import { judge } from './judge.js'
import { followLedger } from './ledger.js'
import { eventually } from './wait.js'
import { openWitness } from './witness.js'

const senderFile = fileURLToPath(new URL('./sender.js', import.meta.url))
const healthMs = 180_000
const drainMs = 120_000
/** In the long form half a million may be left when the faults stop, and has so much longer: a thousand a second at least must come through. */
const longDrainMsEach = 1
/** In the long form: a row may last for an hour, and all that arrives is in memory until it is judged. */
const longPerSecond = 500
let number = 0

const startSender = (task) => {
  const child = spawn(process.execPath, [senderFile, JSON.stringify(task)], { stdio: ['ignore', 'inherit', 'inherit'] })
  const gone = once(child, 'exit')
  const atExit = () => child.kill('SIGKILL')
  process.once('exit', atExit)
  void gone.then(() => process.off('exit', atExit))
  return {
    stop: async () => {
      child.kill('SIGTERM')
      await eventually('the sender has its answers', () => child.exitCode !== null, 60_000)
      await gone
    },
    /** Nothing is sent meanwhile, and no answer is noted. */
    whileStill: async (work) => {
      child.kill('SIGSTOP')
      try {
        return await work()
      } finally {
        child.kill('SIGCONT')
      }
    },
    kill: () => child.kill('SIGKILL'),
  }
}

/** `split`: ingest and forward in processes of their own. */
const startDaemons = async ({ split = false, settings = {} }, { dist, folder, common }) => {
  const all = { ...common, ...settings }
  const make = (name, roles) => makeDaemon({ dist, folder: join(folder, name), settings: { ...all, BACKHAUL_ROLES: roles } })
  // Without RabbitMQ all roles share one embedded queue.
  const together = all.BACKHAUL_AMQP_URL === '' ? 'ingest,forward,broadcast' : 'ingest,forward'
  const ingest = await make('ingest', split ? 'ingest' : together)
  const worker = split ? await make('worker', 'forward') : ingest
  const both = split ? [ingest, worker] : [ingest]
  await Promise.all(both.map(({ start }) => start()))
  return { ingest, worker, all: both }
}

/** What one daemon that was never restarted says of itself, at rest: in, and out. */
const booksOf = async (daemon, queue) => {
  const metric = await daemon.metrics()
  const sum = (...names) => names.reduce((total, name) => total + metric(`backhaul_${name}`), 0)
  return {
    in: sum('accepted_total', 'foreign_total'),
    out: sum('delivered_total', 'dead_lettered_total', 'purged_total', 'spooled_messages') + metric('backhaul_queued_messages', `queue="${queue}"`),
    repeats: metric('backhaul_repeats_dropped_total'),
  }
}

/** After everything else one more message must be taken, and come through behind all that is left. */
const freshMessage = async ({ ingest }, witness, run, left) => {
  const id = `${run}.fresh`
  await eventually('a fresh message is accepted', async () => {
    const reply = await fetch(`${ingest.url}/v1/messages`, { method: 'POST', headers: { 'content-type': 'application/json', 'idempotency-key': id }, body: '{"fresh":true}' }).catch(() => undefined)
    return reply?.status === 202
  }, healthMs)
  await eventually('the fresh message arrives', () => witness.has(id), drainMs + left * longDrainMsEach)
  return id
}

export const runOnce = async (row, { brokers, dist, count, quick = false, long = false }) => {
  number += 1
  const run = `${row.id}-${process.pid}-${number}`.toLowerCase()
  const queue = `faults-${run}`
  const topic = `persistent://public/default/faults-${run}`
  const folder = mkdtempSync(join(tmpdir(), 'backhaul-faults-'))
  const common = { BACKHAUL_AMQP_URL: brokers.amqpUrl, BACKHAUL_PULSAR_URL: brokers.pulsarUrl, BACKHAUL_QUEUE: queue, BACKHAUL_PULSAR_TOPIC: topic }
  const file = join(folder, 'ledger')
  const ledger = followLedger(file)
  const began = Date.now()
  const open = []
  try {
    const witness = await openWitness(brokers.pulsarUrl, topic)
    open.push(() => witness.close())
    const prepared = await row.prepare?.({ brokers, queue, topic, folder })
    if (prepared?.close) open.push(prepared.close)
    const daemons = await startDaemons(row, { dist, folder, common: { ...common, ...prepared?.settings } })
    open.push(() => Promise.all(daemons.all.map(({ kill }) => kill())))
    const isReady = () => eventually('every daemon is ready', async () => (await Promise.all(daemons.all.map(({ ready }) => ready()))).every(Boolean), quick ? 30_000 : healthMs)
    await isReady()
    // What is declared is written down: RabbitMQ 3.10 forgets a queue when it is killed within two seconds of its declaration.
    await brokers.rabbitmqctl('eval', 'mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].')
    const sender = startSender({ url: daemons.ingest.url, run, ledger: file, ...(long ? { perSecond: longPerSecond } : {}), ...row.load })
    open.push(() => sender.kill())

    let bites = 0
    const outstanding = () => ledger.accepted() - witness.unique()
    const flowing = async (more = 200) => {
      const [accepted, delivered] = [ledger.accepted(), witness.unique()]
      await eventually('messages flow', () => ledger.accepted() >= accepted + more && witness.unique() >= delivered + more, drainMs)
    }
    const taking = async (more = 200) => {
      const accepted = ledger.accepted()
      await eventually('messages are taken', () => ledger.accepted() >= accepted + more, 60_000)
    }
    /** Does it at a moment at which something is accepted and not delivered: then it can hurt. */
    const bite = async (fault) => {
      await eventually('something is accepted and not delivered', () => outstanding() > 0, 60_000)
      const result = await fault()
      bites += 1
      return result
    }
    const extra = (await row.faults({ ...daemons, brokers, queue, topic, ledger, witness, flowing, taking, bite, outstanding, count, isReady, run, sender, long, longMessages: row.longMessages, ...prepared?.world })) ?? {}

    await sender.stop()
    const stalled = []
    const fresh = await isReady().then(() => freshMessage(daemons, witness, run, long ? outstanding() : 0)).catch((error) => void stalled.push(error.message))
    const accepted = [...ledger.messages().values()].filter(({ yes }) => yes > 0)
    // The fresh message came behind all of it: what is not here by then is lost, or out of order.
    await eventually('all that was accepted arrives', () => accepted.every(({ id }) => witness.has(id)), 3000).catch(() => undefined)
    const counts = judge(ledger.messages(), witness.deliveries().filter(({ id }) => id !== fresh))
    const once = daemons.all.length === 1 && daemons.ingest.starts() === 1
    const books = once && stalled.length === 0 ? await restingBooks(daemons.ingest, queue) : undefined
    return { ...counts, stalled: stalled.length, why: stalled.join(), bites, books, ...extra, seconds: Math.round((Date.now() - began) / 1000) }
  } finally {
    for (const close of open.reverse()) await close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** RabbitMQ tells its depth with a delay. */
const restingBooks = async (daemon, queue) => {
  let books
  await eventually('the books balance', async () => {
    books = await booksOf(daemon, queue)
    return books.in <= books.out + books.repeats
  }, 15_000).catch(() => undefined)
  return books
}
