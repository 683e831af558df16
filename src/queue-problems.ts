/** What is known about a queue of RabbitMQ, and what of it breaks a promise. No I/O in here. */

export type ArgumentValue = string | number | boolean
export type Arguments = Readonly<Record<string, ArgumentValue>>

/** What policies add to a queue's own arguments: `max-length`, not `x-max-length`. */
export interface Policies {
  readonly definition: Arguments
  /** The names of the policies that it comes from. */
  readonly names: readonly string[]
}

export interface QueueFacts {
  readonly queue: string
  readonly serverVersion: string
  readonly arguments: Arguments
  /** Flags that lose messages by themselves. */
  readonly flags: readonly ('not-durable' | 'auto-delete' | 'exclusive')[]
  /** Left out when nobody here can see them. */
  readonly policies?: Policies
}

export const alarmKinds = [
  'max-length', 'max-length-bytes', 'message-ttl', 'expires', 'delivery-limit', 'not-durable', 'auto-delete', 'exclusive', 'stream',
] as const
export type AlarmKind = (typeof alarmKinds)[number]

/** An alarm drops messages that were accepted; a warning is odd, and drops none by itself. */
export interface Problem {
  readonly severity: 'alarm' | 'warning'
  readonly kind: AlarmKind | 'max-priority'
  /** One line without the queue's name. */
  readonly text: string
  readonly remedy: string
}

interface Found {
  readonly value: ArgumentValue
  readonly from: 'argument' | 'policy'
  readonly where: string
}

const newQueue = 'an argument cannot be changed: let the queue run empty, delete it, and Backhaul makes it anew'

const finder = ({ arguments: given, policies }: QueueFacts) => (name: string): readonly Found[] => {
  const own = given[`x-${name}`]
  const byPolicy = policies?.definition[name]
  const names = (policies?.names ?? []).map((policy) => `'${policy}'`).join(', ')
  return [
    ...(own === undefined ? [] : [{ value: own, from: 'argument' as const, where: `argument x-${name} ${own}` }]),
    ...(byPolicy === undefined ? [] : [{ value: byPolicy, from: 'policy' as const, where: `policy ${names}: ${name} ${byPolicy}` }]),
  ]
}

/** RabbitMQ takes the smaller number of the two. */
const smaller = (found: readonly Found[]): Found | undefined =>
  [...found].sort((a, b) => Number(a.value) - Number(b.value))[0]

const remedyFor = ({ from }: Found, policy: string): string => (from === 'argument' ? newQueue : policy)

const clear = 'take it out of the policy (rabbitmqctl set_policy or clear_policy)'

const limits = (facts: QueueFacts): readonly Problem[] => {
  const find = finder(facts)
  // For words the argument wins over the policy.
  const overflow = String(find('overflow')[0]?.value ?? 'drop-head')
  const quorum = facts.arguments['x-queue-type'] === 'quorum'
  const refuses = overflow === 'reject-publish' || (overflow === 'reject-publish-dlx' && !quorum)
  return (['max-length', 'max-length-bytes'] as const).flatMap((kind): readonly Problem[] => {
    const limit = smaller(find(kind))
    if (limit === undefined) return []
    const unit = kind === 'max-length' ? 'messages' : 'bytes'
    if (refuses)
      return [{
        severity: 'warning',
        kind,
        text: `refuses what comes beyond ${limit.value} ${unit} (${limit.where}, ${overflow}): the spool keeps it; on a queue that is longer, such a limit drops the excess when it is set`,
        remedy: 'set such a limit only while the queue is shorter, or none',
      }]
    return [{
      severity: 'alarm',
      kind,
      text: `drops its oldest messages beyond ${limit.value} ${unit} (${limit.where}, overflow ${overflow})`,
      remedy: remedyFor(limit, `${clear}, or, while the queue is shorter than that, set overflow reject-publish`),
    }]
  })
}

const times = (facts: QueueFacts): readonly Problem[] =>
  ([
    ['message-ttl', (ms: ArgumentValue) => `drops messages that are older than ${ms} ms`],
    ['expires', (ms: ArgumentValue) => `is deleted with all its messages when nobody uses it for ${ms} ms`],
  ] as const).flatMap(([kind, text]): readonly Problem[] => {
    const found = smaller(finder(facts)(kind))
    return found === undefined
      ? []
      : [{ severity: 'alarm', kind, text: `${text(found.value)} (${found.where})`, remedy: remedyFor(found, clear) }]
  })

/** RabbitMQ 4: a negative one yields to one that is not, and none at all is 20. RabbitMQ 3: the smaller one, negative or not. */
const deliveryLimit = (facts: QueueFacts): readonly Problem[] => {
  if (facts.arguments['x-queue-type'] !== 'quorum') return []
  const find = finder(facts)
  const found = find('delivery-limit')
  const four = Number.parseInt(facts.serverVersion, 10) >= 4
  const least = smaller(found)
  const least4 = smaller(found.filter(({ value }) => Number(value) >= 0))
  const remedy = 'set delivery-limit -1 by a policy, or let the queue run empty, delete it, and Backhaul makes it anew without a limit'
  if (!four && least !== undefined && Number(least.value) < 0)
    return [{
      severity: 'alarm',
      kind: 'delivery-limit',
      text: `drops a message at its first return (${least.where}): RabbitMQ 3 does not read a negative limit as none`,
      remedy: remedyFor(least, clear),
    }]
  const limit = four ? least4 : least
  if (limit === undefined && (!four || found.length > 0)) return []
  const exchange = find('dead-letter-exchange')[0]
  const unless = facts.policies === undefined && limit === undefined ? '; a policy that says otherwise is not visible here' : ''
  const where = limit === undefined ? `RabbitMQ 4 has a delivery limit of 20 where none is set${unless}` : limit.where
  const times = `after ${Number(limit?.value ?? 20)} returns`
  return exchange === undefined
    ? [{ severity: 'alarm', kind: 'delivery-limit', text: `drops a message ${times} (${where}; no dead letter exchange)`, remedy: four ? remedy : remedyFor(limit as Found, clear) }]
    : [{
        severity: 'warning',
        kind: 'delivery-limit',
        text: `moves a message to the exchange '${exchange.value}' ${times} (${where}): it does not reach Pulsar from there`,
        remedy: four ? remedy : remedyFor(limit as Found, clear),
      }]
}

const flagTexts = {
  'not-durable': 'is not durable: a restart of RabbitMQ empties it',
  'auto-delete': 'is deleted with all its messages when its last consumer goes',
  exclusive: 'belongs to one connection of another program, and is deleted with it',
} as const

/**
 * What of a queue breaks a promise, worst first; nothing when it keeps what it has confirmed.
 *
 * RabbitMQ tells a publisher yes and drops the message nevertheless where a limit, a time or a
 * count says so: each of these is an alarm. A limit that refuses is honest, and a warning.
 */
export const problemsOf = (facts: QueueFacts): readonly Problem[] => {
  const flags = facts.flags.map((kind): Problem => ({ severity: 'alarm', kind, text: flagTexts[kind], remedy: newQueue }))
  const stream: readonly Problem[] =
    facts.arguments['x-queue-type'] === 'stream'
      ? [{ severity: 'alarm', kind: 'stream', text: 'is a stream, not a queue: it forgets by age and size, delivered or not', remedy: newQueue }]
      : []
  const priority = facts.arguments['x-max-priority']
  const overtaken: readonly Problem[] =
    priority === undefined
      ? []
      : [{ severity: 'warning', kind: 'max-priority', text: `lets messages with a priority overtake others (argument x-max-priority ${priority})`, remedy: newQueue }]
  const all = [...flags, ...stream, ...limits(facts), ...times(facts), ...deliveryLimit(facts), ...overtaken]
  return [...all.filter(({ severity }) => severity === 'alarm'), ...all.filter(({ severity }) => severity === 'warning')]
}
