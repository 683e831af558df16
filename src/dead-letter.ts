import { hash } from 'node:crypto'
import { maxNameBytes, maxPropertiesBytes, propertiesBytes } from './message.js'
import type { Message } from './message.js'

/** The names of what is known about a dead letter, among its properties. */
const names = {
  reason: 'backhaul-reason',
  stage: 'backhaul-stage',
  attempts: 'backhaul-attempts',
  firstSeen: 'backhaul-first-seen',
  /** Its own number: tells two apart that are alike in everything else. */
  letter: 'backhaul-letter',
} as const
const added: readonly string[] = Object.values(names)
/** In front of the name of a producer's own property that would be overwritten. */
const keptPrefix = 'backhaul-kept-'

const renamed = (properties: Message['properties'], rename: (name: string) => string): Record<string, string> =>
  Object.fromEntries(Object.entries(properties).map(([name, value]) => [rename(name), value]))

/** What is said of a dead letter when it is kept. */
export interface Verdict {
  readonly reason: string
  readonly stage: string
  readonly attempts: number
  /** In milliseconds since 1970. */
  readonly firstSeen: number
  readonly letter: string
}

/**
 * A dead letter as a message: the same bytes and id, and what is known about it as properties.
 * A producer's own property of such a name is kept under another one. Where they do not fit
 * beside ours, the producer's stay behind, and the reason says so: a letter that no queue
 * carries would hold up all others.
 */
export const buried = (message: Message, { reason, stage, attempts, firstSeen, letter }: Verdict): Message => {
  const own = renamed(message.properties, (name) => (added.includes(name) || name.startsWith(keptPrefix) ? `${keptPrefix}${name}` : name))
  const known = {
    [names.reason]: reason,
    [names.stage]: stage,
    [names.attempts]: String(attempts),
    [names.firstSeen]: new Date(firstSeen).toISOString(),
    [names.letter]: letter,
  }
  const properties = { ...own, ...known }
  if (propertiesBytes(properties) <= maxPropertiesBytes && Object.keys(own).every((name) => Buffer.byteLength(name) <= maxNameBytes)) return { ...message, properties }
  return { ...message, properties: { ...known, [names.reason]: `${reason} (its properties, ${propertiesBytes(message.properties)} bytes, could not be kept)` } }
}

/**
 * Which dead letter this is, for ever the same: 22 characters of a hash.
 *
 * Of a message that a Backhaul accepted: its id, its bytes and which letter it was before. So a
 * letter that a crash kept twice is one letter. Of any other program's, which may use one id for
 * many, also the number that it got when it was kept: two of them are never taken for one.
 */
export const letterOf = ({ id, body, digest, replayed = '', properties }: Message): string => {
  const kept = digest === undefined ? added.map((name) => properties[name] ?? '') : []
  const head = JSON.stringify([id, digest !== undefined, replayed, ...kept])
  return hash('sha256', Buffer.concat([Buffer.from(`${head}\n`), body]), 'base64url').slice(0, 22)
}

/** What its producer sent with it. */
export const sentProperties = ({ properties }: Message): Message['properties'] =>
  renamed(Object.fromEntries(Object.entries(properties).filter(([name]) => !added.includes(name))), (name) =>
    name.startsWith(keptPrefix) ? name.slice(keptPrefix.length) : name,
  )

/** A dead letter as a message again: as its producer sent it, and marked as the letter that it was. */
export const revived = (dead: Message): Message => {
  const { id, body, digest } = dead
  return {
    id,
    body,
    properties: sentProperties(dead),
    ...(digest === undefined ? {} : { digest }),
    replayed: letterOf(dead),
  }
}

/** What people see of a dead letter. */
export interface DeadSummary {
  readonly id: string
  readonly reason: string
  readonly stage: string
  readonly attempts: number
  /** ISO 8601. */
  readonly firstSeen: string
  /** Bytes of its body. */
  readonly size: number
}

/** Anyone may have put it there: what nobody said is empty, or 0. */
export const summaryOf = ({ id, body, properties }: Message): DeadSummary => ({
  id,
  reason: properties[names.reason] ?? '',
  stage: properties[names.stage] ?? '',
  attempts: Number(properties[names.attempts] ?? 0) || 0,
  firstSeen: properties[names.firstSeen] ?? '',
  size: body.length,
})
