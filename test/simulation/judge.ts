/** What must hold of every run, whatever happened in it. */
import type { Books } from '../../src/books.js'
import type { Sent } from './producers.js'
import type { Kept } from './pulsar.js'

export interface Verdict {
  readonly kind: string
  readonly what: string
}

export interface Evidence {
  readonly sent: ReadonlyMap<number, Sent>
  readonly topic: readonly Kept[]
  readonly dead: readonly number[]
  /** Deleted by an operator, with their queue. */
  readonly destroyed: ReadonlySet<number>
  readonly onlyStops: boolean
}

const some = (numbers: readonly number[]): string => `${numbers.slice(0, 5).join(', ')}${numbers.length > 5 ? `, … (${numbers.length})` : ''}`

/** taken = accepted + rejected + released + unsettled, and no more out than the window. */
export const judgeBooks = ({ pipelines }: Books, window: number): Verdict | undefined => {
  for (const [name, { taken, accepted, rejected, released, unsettled }] of pipelines) {
    if (taken !== accepted + rejected + released + unsettled || unsettled < 0)
      return { kind: 'books', what: `${name}: ${taken} taken, ${accepted} accepted, ${rejected} rejected, ${released} released, ${unsettled} unsettled` }
    if (unsettled > window) return { kind: 'window', what: `${name}: ${unsettled} unsettled, window ${window}` }
  }
  return undefined
}

export const isPoison = ({ post, index }: Sent): boolean => post.poison !== undefined && index === 0

/** Accepted, and neither in the topic nor known to be elsewhere. */
export const missing = ({ sent, topic, dead, destroyed }: Evidence): readonly number[] => {
  const arrived = new Set([...topic.map(({ record }) => record), ...dead, ...destroyed])
  return [...sent.values()].filter(({ yes, record }) => yes !== undefined && !arrived.has(record)).map(({ record }) => record)
}

const lost = (evidence: Evidence): Verdict | undefined => {
  const gone = missing(evidence)
  return gone.length === 0 ? undefined : { kind: 'lost', what: `accepted, and nowhere: ${some(gone)}` }
}

const repeats = ({ sent, topic }: Evidence): Verdict | undefined => {
  const owners = new Map<string, number>()
  for (const { record, id, payload } of topic) {
    const known = sent.get(record)
    if (known === undefined) return { kind: 'foreign', what: `record ${record} was never sent` }
    const owner = owners.get(id)
    if (id === '' || (owner !== undefined && owner !== record)) return { kind: 'id', what: `records ${owner} and ${record} came under one id, ${id}` }
    owners.set(id, record)
    if (known.post.key !== undefined && !known.ids.has(id)) return { kind: 'id', what: `record ${record} came under ${id}, not ${[...known.ids].join(' or ')}` }
    if (known.attempts === 1 && known.post.key === undefined) {
      if (known.ids.size > 0 && !known.ids.has(id)) return { kind: 'id', what: `record ${record} came under ${id}, but ${[...known.ids].join()} was answered` }
      known.ids.add(id)
    }
    if (!payload.startsWith(known.body.slice(0, -1))) return { kind: 'bytes', what: `record ${record} came as ${payload.slice(0, 100)}` }
  }
  return undefined
}

const order = ({ sent, topic, destroyed }: Evidence): Verdict | undefined => {
  const first = new Map<number, number>()
  topic.forEach(({ record }, at) => first.has(record) || first.set(record, at))
  const arrivals = [...first.keys()].map((record) => sent.get(record) as Sent)
  let earliest: Sent | undefined // the yes that came first, of all that arrived later
  for (const record of arrivals.reverse()) {
    if (earliest?.yes !== undefined && record.sent !== undefined && earliest.yes < record.sent)
      return { kind: 'order', what: `record ${record.record} arrived before ${earliest.record}, which had its yes before ${record.record} was sent` }
    if (record.yes !== undefined && !destroyed.has(record.record) && (earliest?.yes === undefined || record.yes < earliest.yes)) earliest = record
  }
  for (const { post } of sent.values()) {
    const places = post.records.filter((record) => first.has(record) && !destroyed.has(record)).map((record) => first.get(record) as number)
    if (places.some((place, i) => i > 0 && place < (places[i - 1] as number))) return { kind: 'order', what: `the records ${some(post.records)} of one request arrived in another order` }
  }
  return undefined
}

/** A clear no means that nothing was kept. */
const refusals = ({ sent, topic, dead }: Evidence): Verdict | undefined => {
  const kept = new Set([...topic.map(({ record }) => record), ...dead])
  const wrong = [...sent.values()].filter(({ record, surelyRefused }) => surelyRefused && kept.has(record)).map(({ record }) => record)
  return wrong.length === 0 ? undefined : { kind: 'refused', what: `refused with "nothing was kept", and kept: ${some(wrong)}` }
}

const burials = ({ sent, dead }: Evidence): Verdict | undefined => {
  const wrong = dead.filter((record) => !isPoison(sent.get(record) as Sent))
  return wrong.length === 0 ? undefined : { kind: 'buried', what: `in the dead letters without a reason: ${some(wrong)}` }
}

/** With both brokers there, a stop doubles nothing. */
const doubles = ({ topic, sent, onlyStops }: Evidence): Verdict | undefined => {
  if (!onlyStops) return undefined
  const seen = new Set<number>()
  for (const { record } of topic) {
    if (seen.has(record) && sent.get(record)?.attempts === 1) return { kind: 'doubled', what: `record ${record}, though both brokers answered` }
    seen.add(record)
  }
  return undefined
}

export const judge = (evidence: Evidence): Verdict | undefined => {
  for (const rule of [lost, repeats, order, refusals, burials, doubles]) {
    const verdict = rule(evidence)
    if (verdict !== undefined) return verdict
  }
  return undefined
}
