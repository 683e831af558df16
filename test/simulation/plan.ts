/** A run as data, drawn from its seed: what is sent, who listens, and what goes wrong. It can be replayed and cut down. */
import type { Point } from './ground.js'
import { randomOf } from './random.js'
import type { Random } from './random.js'

export interface Post {
  readonly kind: 'post'
  readonly at: number
  /** Who sends: one request after the other. */
  readonly from: number
  readonly records: readonly number[]
  /** Its Idempotency-Key, so that it can be repeated under the same ids. */
  readonly key: string | undefined
  readonly retries: number
  readonly fillBytes: number
  readonly poison: 'refused' | 'deadly' | 'nonsense' | undefined
}

export interface Listen {
  readonly kind: 'listen'
  readonly at: number
  readonly behaves: 'reads' | 'stalls' | 'vanishes'
}

interface Lasting {
  readonly at: number
  readonly ms: number
  /** It strikes when this next happens, instead of at its time. */
  readonly when: Point | undefined
}

export type Fault =
  | (Lasting & { readonly kind: 'crash' | 'stop' | 'power-cut' })
  | (Lasting & { readonly kind: 'rabbitmq-kill' | 'rabbitmq-freeze' | 'rabbitmq-slow' | 'rabbitmq-block' | 'rabbitmq-cut' | 'rabbitmq-mute' })
  | (Lasting & { readonly kind: 'rabbitmq-delete-queue' | 'rabbitmq-cancel' | 'rabbitmq-close-channels' | 'rabbitmq-refuse' })
  | (Lasting & { readonly kind: 'pulsar-kill' | 'pulsar-freeze' | 'pulsar-slow' | 'pulsar-cut' | 'pulsar-mute' | 'pulsar-fail' | 'pulsar-unload' })
  | (Lasting & { readonly kind: 'pulsar-refuse'; readonly status: number })
  | (Lasting & { readonly kind: 'disk-full' | 'disk-slow' | 'disk-bad-syncs' | 'disk-bad-writes' })
  | (Lasting & { readonly kind: 'clock-jump'; readonly by: number })

export type PlanEvent = Post | Listen | Fault

export interface Plan {
  readonly seed: number
  readonly middle: 'rabbitmq' | 'embedded'
  readonly rabbitVersion: string
  readonly window: number
  readonly patienceMs: number
  readonly segmentBytes: number
  readonly reserveBytes: number
  /** By then every fault is over and everything has been sent for the first time. */
  readonly lengthMs: number
  readonly events: readonly PlanEvent[]
}

const rabbitPoints: readonly Point[] = ['publish', 'confirm', 'receive', 'ack']
const pulsarPoints: readonly Point[] = ['frame', 'receipt']
const diskPoints: readonly Point[] = ['write', 'sync']

const faultOf = (random: Random, middle: Plan['middle'], at: number): Fault => {
  const points: readonly Point[] = ['reply', ...pulsarPoints, ...(middle === 'rabbitmq' ? rabbitPoints : diskPoints)]
  const when = (from: readonly Point[]): Point | undefined => (random.chance(0.7) ? random.pick(from) : undefined)
  const short = (): number => random.between(50, 3000)
  const long = (): number => (random.chance(0.3) ? random.between(10_000, 45_000) : random.between(200, 8000))
  const process = random.pick(['crash', 'crash', 'stop', 'power-cut'] as const)
  const pulsar = random.pick(['pulsar-kill', 'pulsar-freeze', 'pulsar-slow', 'pulsar-cut', 'pulsar-mute', 'pulsar-fail', 'pulsar-unload', 'pulsar-refuse'] as const)
  const rabbit = random.pick([
    'rabbitmq-kill',
    'rabbitmq-kill',
    'rabbitmq-freeze',
    'rabbitmq-slow',
    'rabbitmq-block',
    'rabbitmq-cut',
    'rabbitmq-mute',
    'rabbitmq-delete-queue',
    'rabbitmq-cancel',
    'rabbitmq-close-channels',
    'rabbitmq-refuse',
  ] as const)
  const disk = random.pick(['disk-full', 'disk-slow', 'disk-bad-syncs', 'disk-bad-writes'] as const)
  const kind = random.pick([process, process, pulsar, pulsar, middle === 'rabbitmq' ? rabbit : disk, middle === 'rabbitmq' ? rabbit : disk, 'clock-jump'] as const)
  if (kind === 'clock-jump') return { kind, at, ms: 0, when: when(points), by: random.pick([-3_600_000, -60_000, -1000, 1000, 60_000, 3_600_000, 31_536_000_000]) }
  if (kind === 'pulsar-refuse') return { kind, at, ms: long(), when: when(pulsarPoints), status: random.pick([401, 403, 404, 409, 500, 503]) }
  if (kind === 'crash' || kind === 'stop' || kind === 'power-cut') return { kind, at, ms: short(), when: when(points) }
  if (kind.startsWith('pulsar')) return { kind, at, ms: long(), when: when(pulsarPoints) }
  if (kind.startsWith('rabbitmq')) return { kind, at, ms: long(), when: when(rabbitPoints) }
  return { kind, at, ms: long(), when: when(diskPoints) }
}

const postsOf = (random: Random, lengthMs: number, faults: readonly Fault[]): readonly Post[] => {
  const producers = random.between(1, 5)
  const count = random.between(15, 70)
  const posts: Post[] = []
  let number = 0
  const poisoned = random.chance(0.15)
  const fillBytes = random.chance(0.05) ? random.between(20_000, 120_000) : random.between(0, 400)
  for (let index = 0; index < count; index += 1) {
    // Most of it is sent around the faults, for there it can be hurt.
    const near = faults.length > 0 && random.chance(0.75) ? random.pick(faults).at : undefined
    const at = near === undefined ? random.between(0, lengthMs) : Math.min(lengthMs, Math.max(0, near + random.between(-400, 2000)))
    const size = random.chance(0.7) ? 1 : random.between(2, 8)
    const records = Array.from({ length: size }, () => (number += 1))
    const poison = poisoned && random.chance(0.05) ? random.pick(['refused', 'deadly', 'nonsense'] as const) : undefined
    const keyed = random.chance(0.7)
    posts.push({ kind: 'post', at, from: random.between(1, producers), records, key: keyed ? `k${index}` : undefined, retries: keyed ? random.pick([0, 3, 8]) : 0, fillBytes, poison })
  }
  return posts
}

export const planOf = (seed: number): Plan => {
  const random = randomOf(seed, 1)
  const middle = random.chance(0.5) ? 'rabbitmq' : 'embedded'
  const lengthMs = random.between(10_000, 60_000)
  const faults: Fault[] = []
  const count = random.chance(0.03) ? 0 : random.between(1, 6)
  for (let index = 0; index < count; index += 1) {
    // Every other one comes while an earlier one lasts, or soon after: that is where the hard cases are.
    const before = faults.length > 0 && random.chance(0.5) ? random.pick(faults) : undefined
    const at = before === undefined ? random.between(500, lengthMs) : Math.min(lengthMs, before.at + random.between(0, Math.min(before.ms, 8000) + 1500))
    faults.push(faultOf(random, middle, at))
  }
  const listeners = Array.from({ length: random.between(0, 3) }, (): Listen => ({ kind: 'listen', at: random.between(0, lengthMs), behaves: random.pick(['reads', 'stalls', 'vanishes']) }))
  const posts = postsOf(random, lengthMs, faults)
  return {
    seed,
    middle,
    rabbitVersion: random.pick(['3.13.7', '4.1.2']),
    window: random.pick([1, 3, 10, 50, 1000]),
    patienceMs: random.pick([1000, 5000, 60_000]),
    segmentBytes: random.pick([4096, 16_384, 262_144]),
    reserveBytes: random.pick([0, 4096]),
    lengthMs: lengthMs + 1000,
    events: [...faults, ...listeners, ...posts].sort((a, b) => a.at - b.at),
  }
}

export const isFault = (event: PlanEvent): event is Fault => event.kind !== 'post' && event.kind !== 'listen'

const seconds = (ms: number): string => `${(ms / 1000).toFixed(3)} s`

/** One line for a person. */
export const describe = (event: PlanEvent): string => {
  if (event.kind === 'post') {
    const { records, key, retries, from, poison, fillBytes } = event
    return `${seconds(event.at)}  client ${from} sends ${records.length === 1 ? 'record' : 'records'} ${records.join(' ')}${key === undefined ? '' : ` under ${key}, ${retries} retries`}${poison === undefined ? '' : `, ${poison}`}, ${fillBytes} bytes each`
  }
  if (event.kind === 'listen') return `${seconds(event.at)}  a WebSocket client that ${event.behaves}`
  const more = event.kind === 'clock-jump' ? ` by ${seconds(event.by)}` : event.kind === 'pulsar-refuse' ? ` with ${event.status}` : ''
  return `${seconds(event.at)}  ${event.kind}${more}${event.when === undefined ? '' : `, at the next ${event.when}`}${event.ms === 0 ? '' : `, for ${seconds(event.ms)}`}`
}
