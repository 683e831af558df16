/**
 * Which number a message carries to Pulsar. Pulsar drops a number that is not above the last it
 * stored under the producer's name, and says that it has it. So a number belongs to one message
 * for ever, and is never sent behind a higher one that may have been stored without it.
 */
import { hash } from 'node:crypto'
import type { Message } from '../message.js'

/** What is kept on disk; the key tells messages apart. */
export type NumberRecord =
  | { readonly kind: 'given'; readonly run: string; readonly number: number; readonly key: string; readonly foreign: boolean }
  /** From `number` to `to`: Pulsar has it; or the number must never be sent again. */
  | { readonly kind: 'stored' | 'dead'; readonly run: string; readonly number: number; readonly to: number }

/** A number, and the run that it counts in: each start of the forwarder counts anew, under a producer name of its own. */
export interface Place {
  readonly run: string
  readonly number: number
}

export interface Entry extends Place {
  readonly key: string
  readonly foreign: boolean
  state: 'open' | 'stored' | 'dead'
}

/** What to do with a message that is to be written. */
export type Step =
  /** Send it next; `fresh` was never sent before. The records first. */
  | { readonly kind: 'send'; readonly entry: Entry; readonly fresh: boolean; readonly records: readonly NumberRecord[] }
  /** It cannot come next on this socket: once nothing is out, open another. */
  | { readonly kind: 'turn' }
  /** Pulsar has it. */
  | { readonly kind: 'stored' }
  /** It was sent on this socket, and its answer is still to come. */
  | { readonly kind: 'out'; readonly entry: Entry }

export interface NumberBook {
  /** A new socket: where it must begin to count. */
  readonly begin: () => Place
  readonly next: (message: Message) => Step
  readonly stored: (entry: Entry) => void
  /** Pulsar will never have it: the number dies. */
  readonly refused: (entry: Entry) => readonly NumberRecord[]
  /** Pulsar knows this run's name better than we do: count anew under another, and send what is out again. */
  readonly renew: () => readonly NumberRecord[]
  /** What was stored since this was last asked. */
  readonly news: () => readonly NumberRecord[]
  /** Everything that is remembered, for a fresh file. */
  readonly all: () => readonly NumberRecord[]
}

/** Our own messages are told apart as everywhere: by id and digest. Others by id and bytes. */
const keyOf = ({ id, body, digest }: Message): string =>
  hash('sha256', digest === undefined ? `f${hash('sha256', body, 'hex')}${id}` : `o${digest}${id}`, 'hex').slice(0, 32)

/** Neighbours in one record. */
const ranges = (kind: 'stored' | 'dead', entries: readonly Entry[]): NumberRecord[] => {
  const found: { kind: 'stored' | 'dead'; run: string; number: number; to: number }[] = []
  for (const { run, number } of entries) {
    const last = found.at(-1)
    if (last !== undefined && last.run === run && last.to + 1 === number) last.to = number
    else found.push({ kind, run, number, to: number })
  }
  return found
}

/**
 * Gives each message its number: the one that it had, when that is known and safe; else the
 * next one of this run. Every doubt costs a repeat, never a message.
 *
 * A message is found again by id and digest. One without our digest only when the queue says
 * that it gave it out before, and when no other like it is remembered.
 *
 * **Orders**: on a socket, one number after the other without a gap. What is left behind by the
 * first number of a socket, and not known to be stored, dies: the higher one may be stored without it.
 * **Holds**: the last `keep` numbers; it must be more than can be unanswered in the queue.
 */
export const numberBook = (records: readonly NumberRecord[], newRun: () => string, keep: number): NumberBook => {
  const entries = new Map<string, Entry>() // by run and number, as given
  const byKey = new Map<string, Entry[]>()
  const byMessage = new WeakMap<Message, Entry>()
  const flight = new Set<Entry>() // sent on the present socket and unanswered, in order
  let news: Entry[] = [] // stored, and not yet told
  let run = newRun()
  let top = 0 // the last number of this run
  let wanted: Place | undefined // what the next socket is opened for
  let at: Place = { run, number: 1 } // what comes next on this socket
  let begun = false // something was sent on it

  const nameOf = (place: Place): string => `${place.run}/${place.number}`
  const forget = (name: string, entry: Entry): void => {
    entries.delete(name)
    const alike = byKey.get(entry.key)?.filter((one) => one !== entry) ?? []
    if (alike.length === 0) byKey.delete(entry.key)
    else byKey.set(entry.key, alike)
  }
  const add = (entry: Entry): void => {
    entries.set(nameOf(entry), entry)
    byKey.set(entry.key, [...(byKey.get(entry.key) ?? []), entry])
    if (entries.size <= keep) return
    for (const [name, oldest] of entries) {
      forget(name, oldest)
      break
    }
  }
  for (const record of records)
    if (record.kind === 'given') {
      const { run: of, number, key, foreign } = record
      add({ run: of, number, key, foreign, state: 'open' })
    } else
      for (let number = record.number; number <= record.to; number += 1) {
        const entry = entries.get(nameOf({ run: record.run, number }))
        if (entry !== undefined) entry.state = record.kind
      }
  // What was sent last and not answered comes again first.
  const open = [...entries.values()].filter(({ state }) => state === 'open')
  wanted = open.find((entry) => entry.run === open.at(-1)?.run)

  const known = (message: Message): Entry | undefined => {
    const same = byMessage.get(message)
    if (same !== undefined) return same
    const alike = byKey.get(keyOf(message)) ?? []
    if (message.digest !== undefined) return alike.at(-1)
    return message.redelivered === true && alike.length === 1 ? alike[0] : undefined
  }
  const die = (dying: readonly Entry[]): NumberRecord[] => {
    for (const entry of dying) entry.state = 'dead'
    return ranges('dead', dying)
  }
  const leftBehind = ({ run: of, number }: Place): readonly Entry[] =>
    begun ? [] : [...entries.values()].filter((entry) => entry.run === of && entry.number < number && entry.state === 'open')

  return {
    begin: () => {
      const [first] = flight
      at = first ?? wanted ?? { run, number: top + 1 }
      wanted = undefined
      begun = false
      flight.clear()
      return at
    },
    next: (message) => {
      const found = known(message)
      if (found?.state === 'stored') return { kind: 'stored' }
      if (found !== undefined && flight.has(found)) return { kind: 'out', entry: found }
      const old = found?.state === 'open' ? found : undefined
      const place = old ?? { run, number: top + 1 }
      if (place.run !== at.run || place.number !== at.number) {
        wanted = place
        return { kind: 'turn' }
      }
      const dead = die(leftBehind(place))
      const entry = old ?? { ...place, key: keyOf(message), foreign: message.digest === undefined, state: 'open' }
      if (old === undefined) {
        top += 1
        add(entry)
      }
      byMessage.set(message, entry)
      flight.add(entry)
      begun = true
      at = { run: place.run, number: place.number + 1 }
      const { key, foreign } = entry
      const given: readonly NumberRecord[] = old === undefined ? [{ kind: 'given', ...place, key, foreign }] : []
      return { kind: 'send', entry, fresh: old === undefined, records: [...dead, ...given] }
    },
    stored: (entry) => {
      flight.delete(entry)
      entry.state = 'stored'
      news.push(entry)
    },
    refused: (entry) => {
      flight.delete(entry)
      return die([entry])
    },
    renew: () => {
      const dead = die([...entries.values()].filter((entry) => entry.run === run && entry.state === 'open'))
      flight.clear()
      run = newRun()
      top = 0
      return dead
    },
    news: () => {
      const told = ranges('stored', news)
      news = []
      return told
    },
    all: () => {
      const every = [...entries.values()]
      const of = (state: Entry['state']): readonly Entry[] => every.filter((entry) => entry.state === state)
      const given = every.map(({ run: own, number, key, foreign }): NumberRecord => ({ kind: 'given', run: own, number, key, foreign }))
      return [...given, ...ranges('stored', of('stored')), ...ranges('dead', of('dead'))]
    },
  }
}
