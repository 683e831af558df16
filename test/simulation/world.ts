/** One run: a machine with the daemon, its brokers and its disk, from the first start to the judgement. */
import { firstValueFrom, toArray, mergeMap } from 'rxjs'
import { openSegmentLog } from '../../src/connections/segment-log.js'
import { clock } from './clock.js'
import { ask, dataFolder, startProcess } from './daemon.js'
import type { Process } from './daemon.js'
import { simulatedDisk } from './disk.js'
import { faults } from './faults.js'
import type { Machine, Strikes } from './faults.js'
import { numberOf } from './ground.js'
import type { Ground, Point } from './ground.js'
import { isPoison, judge, judgeBooks, missing } from './judge.js'
import type { Evidence, Verdict } from './judge.js'
import { listeners } from './listeners.js'
import { isFault } from './plan.js'
import type { Fault, Plan, Post } from './plan.js'
import { producers } from './producers.js'
import { simulatedPulsar } from './pulsar.js'
import { simulatedRabbit } from './rabbitmq.js'
import { randomOf } from './random.js'

export interface Result {
  readonly seed: number
  readonly verdict: Verdict | undefined
  readonly virtualMs: number
  readonly events: number
  /** The same for the same plan, to the last thing that happened. */
  readonly fingerprint: string
  readonly strikes: Strikes
  readonly records: number
  readonly repeats: number
  readonly frames: number
  readonly starts: number
}

/** After the last fault: how long until all that was accepted has arrived. Back-offs and rests of a minute are in it. */
const stallMs = 300_000
/** Nothing is under way any more, and something is missing for so long: it is lost. */
const lostMs = 20_000
const pollMs = 500
const stopMs = 5000
const exitMs = 1000
const restartMs = 1000

/** A forwarder that has lost patience tries one message again, on a socket that still owes answers. */
const mostUnanswered = ({ window, patienceMs }: Plan): number => window + 60_000 / patienceMs + 1

let rejected: (error: unknown) => void = () => {}
/** What nobody catches ends a real process. */
export const watchRejections = (): void => {
  process.on('unhandledRejection', (error) => rejected(error))
}

const fingerprints = () => {
  let hash = 0x811c9dc5
  return {
    add: (text: string): void => {
      for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
    },
    text: (): string => (hash >>> 0).toString(16).padStart(8, '0'),
  }
}

export const simulate = async (plan: Plan, say?: (line: string) => void): Promise<Result> => {
  const random = randomOf(plan.seed, 2)
  const print = fingerprints()
  let verdict: Verdict | undefined
  const fail = (kind: string, what: string): void => {
    verdict ??= { kind, what }
  }
  const broken = (error: unknown): void => fail('uncaught', error instanceof Error ? (error.stack ?? error.message) : String(error))
  rejected = broken
  clock.reset(randomOf(plan.seed, 3), broken)

  const trace = (what: string): void => {
    const line = `${clock.now()} ${what}`
    print.add(line)
    say?.(`${(clock.now() / 1000).toFixed(4).padStart(9)}  ${what}`)
  }
  let strikeAt: (at: Point) => void = () => {}
  const ground: Ground = { random, trace, fail, point: (at) => strikeAt(at) }
  const strikes: Strikes = new Map()
  const rabbit = simulatedRabbit(plan.rabbitVersion, ground)
  const pulsar = simulatedPulsar(ground)
  const disk = simulatedDisk(ground)
  const log = (level: string, fields: object, text: string): void => say?.(`${(clock.now() / 1000).toFixed(4).padStart(9)}  log ${level}: ${text} ${JSON.stringify(fields)}`)

  let running: Process | undefined
  let starts = 0
  let delivered = 0
  let stopping = false
  let stopDeadline = Number.POSITIVE_INFINITY
  let restartIn: number | undefined = restartMs
  const posting = producers(() => running, ground)
  const listening = listeners(() => running, ground)

  const check = (of: Process): void => {
    const wrong = judgeBooks(of.books, plan.window)
    if (wrong !== undefined) fail(wrong.kind, wrong.what)
  }
  /** The process is no more: what it had in memory is gone, its sockets are closed by the system. */
  const gone = (ended: Process): void => {
    if (running !== ended) return
    check(ended)
    delivered += ended.books.delivered
    running = undefined
    ended.alive = false
    stopDeadline = Number.POSITIVE_INFINITY
    clock.running(undefined)
    rabbit.died(ended)
    pulsar.died(ended)
    posting.died(ended)
    listening.died(ended)
  }
  const start = (): void => {
    if (running !== undefined) return
    starts += 1
    stopping = false
    stopDeadline = Number.POSITIVE_INFINITY
    trace(`process ${starts} starts`)
    const failuresBefore = disk.failures()
    const started: Process = startProcess(starts, plan, { rabbit, pulsar, disk, log }, (error) => {
      if (!started.alive) return
      trace(`process ${started.number} ${error === undefined ? 'is done' : 'gives up'}`)
      stopDeadline = Number.POSITIVE_INFINITY
      // A disk that fails may end it; a supervisor starts it again.
      if (error !== undefined && disk.failures() === failuresBefore) broken(error)
      if (error === undefined && !stopping) fail('ended', 'the daemon completed without having been stopped')
      clock.after(exitMs, () => {
        if (running !== started) return
        gone(started)
        if (restartIn !== undefined) clock.after(restartIn, start)
      })
    })
    running = started
  }
  const crash = (how: 'kill' | 'power', downMs: number): void => {
    if (running !== undefined) {
      trace(`process ${running.number} is killed`)
      gone(running)
    }
    if (how === 'power') {
      trace('the power fails')
      disk.powerCut()
      rabbit.kill()
      clock.after(downMs / 2, rabbit.start)
    }
    clock.after(downMs, start)
  }
  const stop = (downMs: number | undefined): void => {
    if (running === undefined || stopping) return
    trace(`process ${running.number} is asked to stop`)
    stopping = true
    restartIn = downMs
    stopDeadline = clock.now() + stopMs
    const asked = running
    // A signal never comes in the midst of what a process does.
    clock.after(0.1, () => asked.alive && asked.stop.next())
  }
  const machine: Machine = { rabbit, pulsar, disk, log, crash, stop, queue: 'publicQueue' }
  const inFlight = ({ kind }: Fault): number => {
    const { unconfirmed, unacked } = rabbit.inFlight()
    if (kind.startsWith('rabbitmq')) return unconfirmed + unacked
    if (kind.startsWith('pulsar')) return pulsar.inFlight()
    if (kind.startsWith('disk')) return posting.waiting() + disk.dirtyBytes()
    return posting.waiting() + unconfirmed + unacked + pulsar.inFlight() + disk.dirtyBytes()
  }
  const trouble = faults(machine, plan.lengthMs, random, strikes, inFlight)
  strikeAt = trouble.point

  const watch = (): void => {
    if (running !== undefined) check(running)
    const late = posting.overdue()
    if (late.length > 0) fail('stall', `no answer to a request with ${late.join(' ')}`)
    if (clock.now() > stopDeadline) fail('stall', `not stopped within ${stopMs} ms`)
    clock.after(pollMs, watch)
  }
  clock.after(pollMs, watch)
  start()
  for (const event of plan.events) {
    if (isFault(event)) trouble.plan(event)
    else if (event.kind === 'post') clock.at(event.at, () => posting.post(event))
    else clock.at(event.at, () => listening.join(event))
  }
  const failed = (): boolean => verdict !== undefined

  const dead: number[] = []
  const evidence = (): Evidence => ({
    sent: posting.sent,
    topic: pulsar.topic,
    dead,
    destroyed: rabbit.destroyed,
    torn: plan.events.some(({ kind }) => kind === 'power-cut'),
    onlyStops: plan.events.every((event) => !isFault(event) || event.kind === 'stop') && plan.events.every((event) => event.kind !== 'post' || event.poison !== 'deadly'),
  })
  const unsettled = (): number => [...(running?.books.pipelines.values() ?? [])].reduce((sum, { unsettled: out }) => sum + out, 0)
  const open = (): readonly number[] => missing(evidence()).filter((record) => !isPoison(posting.sent.get(record) as never))
  let depth: number | undefined
  const quiet = (): boolean => running !== undefined && running.door !== undefined && !stopping && depth === 0 && posting.idle() && unsettled() === 0 && open().length === 0

  await clock.run(plan.lengthMs, failed)
  trouble.heal()
  trace('everything works again')
  if (running === undefined) start()
  let settled = false
  let drainedSince = Number.POSITIVE_INFINITY
  const poll = (): void => {
    if (settled) return
    settled = quiet()
    const drained = running !== undefined && !stopping && depth === 0 && posting.idle() && unsettled() === 0
    drainedSince = drained ? Math.min(drainedSince, clock.now()) : Number.POSITIVE_INFINITY
    if (!settled && clock.now() - drainedSince > lostMs) fail('lost', `accepted, and nowhere: ${open().slice(0, 5).join(' ')}`)
    depth = undefined
    const asked = running
    if (asked !== undefined)
      ask(asked, '/v1/queues').then(
        (reply) => {
          const { queues = [] } = (reply?.body ?? {}) as { queues?: { queue: string; messages?: number }[] }
          if (asked === running) depth = queues.find(({ queue }) => queue === 'publicQueue')?.messages
        },
        () => undefined,
      )
    clock.after(pollMs, poll)
  }
  clock.after(pollMs, poll)
  await clock.run(plan.lengthMs + stallMs, () => failed() || settled)
  if (!settled && !failed())
    fail('stall', `${stallMs / 1000} s after the last fault: depth ${depth}, ${unsettled()} unsettled, clients ${posting.idle() ? 'idle' : 'waiting'}, not arrived: ${open().slice(0, 5).join(' ')}`)

  // It must still work: one more record is accepted and arrives.
  const probe: Post = { kind: 'post', at: clock.now(), from: 99, records: [1_000_000], key: 'probe', retries: 10, fillBytes: 1, poison: undefined }
  if (!failed()) posting.post(probe)
  await clock.run(clock.now() + 60_000, () => failed() || (posting.idle() && quiet()) || (posting.idle() && posting.sent.get(1_000_000)?.yes === undefined))
  if (!failed() && posting.sent.get(1_000_000)?.yes === undefined) fail('stall', 'after everything had healed, a new record was not accepted')
  await clock.run(clock.now() + 30_000, () => failed() || !pulsar.topic.every(({ record }) => record !== 1_000_000))
  // Long enough for the last receipt to be acknowledged.
  await clock.run(clock.now() + 1000, failed)
  const books = running?.books
  stop(undefined)
  await clock.run(clock.now() + stopMs + exitMs + pollMs, () => failed() || running === undefined)
  if (running !== undefined) fail('stall', 'not stopped at the end')

  dead.push(...rabbit.records('publicQueue.dead'))
  const left = [...rabbit.records('publicQueue')]
  if (!failed()) {
    const reader = { alive: true }
    clock.running(reader)
    const disks = { fs: disk.fs(reader), lock: disk.lock(reader), reserveBytes: 0 }
    const read = (name: string): Promise<readonly number[]> =>
      firstValueFrom(
        openSegmentLog(`${dataFolder}/${name}`, { maxBytes: 2 ** 20, ...disks }).pipe(
          mergeMap((engine) => engine.peek(0, 100_000)),
          mergeMap((entries) => entries.map(({ body }) => numberOf(body))),
          toArray(),
        ),
      )
    let over = false
    Promise.all([read('dead'), read('spool')]).then(([buried, waiting]) => {
      dead.push(...buried)
      left.push(...waiting)
      over = true
    }, broken)
    await clock.run(clock.now() + 10_000, () => failed() || over)
    reader.alive = false
  }
  if (left.length > 0) fail('left', `delivered, and still in the queue or its spool: ${left.slice(0, 5).join(' ')}`)
  const wrong = judge(evidence())
  if (wrong !== undefined) fail(wrong.kind, wrong.what)
  if (delivered > pulsar.topic.length) fail('books', `${delivered} counted as delivered, ${pulsar.topic.length} in the topic`)
  const accepted = books?.pipelines.get('ingest')?.accepted ?? 0
  if (books !== undefined && strikes.size === 0 && accepted !== books.delivered + books.deadLettered + books.repeatsDropped)
    fail('books', `${accepted} accepted, ${books.delivered} delivered, ${books.deadLettered} dead-lettered, ${books.repeatsDropped} repeats, and nothing had happened`)
  const { unconfirmed, unacked } = rabbit.most()
  const { unanswered, buffered } = pulsar.most()
  // The door and the spool's drainer share a connection to RabbitMQ, each with a window of its own.
  if (unconfirmed > 2 * plan.window || unacked > plan.window || unanswered > mostUnanswered(plan))
    fail('window', `${unconfirmed} unconfirmed, ${unacked} unacknowledged, ${unanswered} unanswered, window ${plan.window}`)
  if (buffered > 2 ** 20 + 200_000) fail('memory', `${buffered} bytes waited for Pulsar's socket`)
  const arrived = new Set(pulsar.topic.map(({ record }) => record))
  return {
    seed: plan.seed,
    verdict,
    virtualMs: clock.now(),
    events: clock.events(),
    fingerprint: print.text(),
    strikes,
    records: posting.sent.size,
    repeats: pulsar.topic.length - arrived.size,
    frames: listening.frames(),
    starts,
  }
}
