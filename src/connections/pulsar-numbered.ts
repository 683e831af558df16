import { randomBytes } from 'node:crypto'
import { defer, Observable, ReplaySubject, share, switchMap } from 'rxjs'
import type { Subscriber } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'
import type { Message } from '../message.js'
import { numberBook } from './numbers.js'
import type { Entry, NumberBook, NumberRecord } from './numbers.js'
import { openNumberJournal } from './number-journal.js'
import type { NumberJournal } from './number-journal.js'
import { PulsarUnavailable } from './pulsar-answers.js'
import { deduplicationIsOn } from './pulsar-deduplication.js'
import { pulsarProducers, tooLarge } from './pulsar-websocket.js'
import type { OpenProducer, PulsarWriterSettings, Receipt } from './pulsar-websocket.js'
import { reconnect } from './reconnect.js'

export interface NumberedWriterSettings extends PulsarWriterSettings {
  /** Where the numbers are kept. */
  readonly folder: string
  /** Emits once, or errors when the topic does not drop repeats. @default asks the broker */
  readonly allowed?: Observable<unknown>
  /** @default the disk */
  readonly journal?: (folder: string, options: { keep: number }) => Observable<NumberJournal>
  /** The producer's name is ours alone as long as nobody else draws this. @default chance */
  readonly newRun?: () => string
}

/** The socket counts one after the other: a number that does not come next needs another socket. */
class Turn extends PulsarUnavailable {
  constructor() {
    super('away', 'the numbers go on elsewhere', 0)
  }
}

/** Writes what the book says into the journal, and knows whether anything is still owed to the disk. */
const keeper = (book: NumberBook, { append }: NumberJournal) => {
  let begun = 0
  let owed = false
  const sync = (records: readonly NumberRecord[]): Observable<never> =>
    defer(() => {
      const own = (begun += 1)
      owed = true
      return new Observable<never>((subscriber) =>
        append([...book.news(), ...records], book.all).subscribe({
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            if (own === begun) owed = false
            subscriber.complete()
          },
        }),
      )
    })
  return { sync, owed: () => owed }
}
type Keeper = ReturnType<typeof keeper>

interface Asked {
  readonly message: Message
  readonly done: Subscriber<never>
}

/** Numbers what is written on one socket. What has its number is sent, whoever has left meanwhile: the count must not skip it. */
const numberedOn = (
  send: (message: Message) => Observable<Receipt>,
  book: NumberBook,
  { sync, owed }: Keeper,
  refused: WeakMap<Message, Observable<never>>,
  settings: NumberedWriterSettings,
): Observable<Writer<Message>> =>
  new Observable((subscriber) => {
    const asked: Asked[] = [] // without a number yet
    const answers = new Map<Entry, Subscriber<never>[]>() // who waits for what is out
    let syncing = false
    let pumping = false // what is asked for meanwhile comes behind, in the same batch
    let turning = false // nothing more goes out on this socket
    let trusted = false // a number that is new to us was new to Pulsar
    let renewed = false // it was not

    const away = (error: unknown): void =>
      subscriber.error(error instanceof PulsarUnavailable ? error : new PulsarUnavailable('away', `the numbers cannot be kept: ${String(error)}`, 0))
    const waiting = (entry: Entry): Subscriber<never>[] => {
      const subscribers = answers.get(entry) ?? []
      answers.set(entry, subscribers)
      return subscribers
    }
    const answered = (entry: Entry, tell: (done: Subscriber<never>) => void): void => {
      const subscribers = answers.get(entry) ?? []
      answers.delete(entry)
      subscribers.forEach(tell)
      pump()
    }
    /** The name has been used beyond what we know: none of its numbers can be believed. */
    const renew = (): void => {
      if (renewed) return
      renewed = true
      turning = true
      sync(book.renew()).subscribe({ error: away, complete: () => away(new Turn()) })
    }
    const refuse = (message: Message, entry: Entry, rejection: Rejection): void => {
      turning = true // the server did not count it
      const outcome = new ReplaySubject<never>()
      refused.set(message, outcome)
      outcome.subscribe({ error: (error: unknown) => error === rejection && answered(entry, (done) => done.error(rejection)) })
      // Not told before the number is dead on disk as well: it would come again, and be taken for stored.
      sync(book.refused(entry)).subscribe({
        error: (error: unknown) => {
          refused.delete(message)
          outcome.error(error)
          away(error)
        },
        complete: () => outcome.error(rejection),
      })
    }
    const write = (message: Message, entry: Entry, fresh: boolean): void => {
      let repeat = false
      send(message).subscribe({
        next: (receipt) => {
          repeat = receipt.repeat
        },
        error: (error: unknown) => {
          if (error instanceof Rejection) refuse(message, entry, error)
          else away(error)
        },
        complete: () => {
          if (renewed || (fresh && repeat && !trusted)) return renew()
          if (fresh) trusted = true
          book.stored(entry)
          answered(entry, (done) => done.complete())
        },
      })
    }
    const pump = (): void => {
      if (pumping || syncing || subscriber.closed) return
      pumping = true
      const records: NumberRecord[] = []
      const batch: (() => void)[] = []
      while (asked.length > 0 && !turning) {
        const { message, done } = asked[0] as Asked
        const step = done.closed ? undefined : book.next(message)
        if (step?.kind === 'turn') {
          turning = true
          break
        }
        asked.shift()
        if (step?.kind === 'stored') done.complete()
        else if (step?.kind === 'out') waiting(step.entry).push(done)
        else if (step?.kind === 'send') {
          waiting(step.entry).push(done)
          records.push(...step.records)
          batch.push(() => write(message, step.entry, step.fresh))
        }
      }
      pumping = false
      const sendAll = (): void => {
        for (const one of batch) one()
        if (turning && answers.size === 0) away(new Turn())
      }
      if (records.length === 0 && (batch.length === 0 || !owed())) return sendAll()
      syncing = true
      sync(records).subscribe({
        error: away,
        complete: () => {
          syncing = false
          if (subscriber.closed) return
          sendAll()
          pump()
        },
      })
    }
    subscriber.next((message) => {
      const reason = tooLarge(message, settings)
      if (reason !== undefined) throw new Rejection(reason, 'pulsar')
      return (
        refused.get(message) ??
        new Observable<never>((done) => {
          asked.push({ message, done })
          pump()
        })
      )
    })
  })

const numbered = (journal: NumberJournal, settings: NumberedWriterSettings, keep: number, producers: OpenProducer): Connection<Message> => {
  const { url, topic, token, onState, key, allowed = deduplicationIsOn({ url, topic, ...(token === undefined ? {} : { token }) }) } = settings
  const { newRun = () => randomBytes(8).toString('hex') } = settings
  const book = numberBook(journal.found, newRun, keep)
  const kept = keeper(book, journal)
  const refused = new WeakMap<Message, Observable<never>>()
  const attempt = (proven: () => void): Observable<Writer<Message>> =>
    defer(() => {
      const { run, number } = book.begin()
      const query = { batchingEnabled: 'false', producerName: `backhaul-${key}-${run}`, initialSequenceId: String(number - 1) }
      return producers(query, proven).pipe(
        switchMap((send) => allowed.pipe(switchMap(() => numberedOn(send, book, kept, refused, settings)))),
      )
    })
  const told: typeof onState = (state) => {
    if (state.kind === 'connected' || !(state.error instanceof Turn)) onState?.(state)
  }
  return new Observable((subscriber) => {
    subscriber.add(() => {
      // What is known to be stored needs not be asked for again.
      kept.sync([]).subscribe({ error: () => journal.close().subscribe(), complete: () => journal.close().subscribe() })
    })
    subscriber.add(reconnect(attempt, { onState: told }).subscribe(subscriber))
  })
}

/**
 * Sends to a topic over Pulsar's WebSocket API so that Pulsar's own deduplication drops what it
 * has already: each message under a number of its own, which is on disk before it is sent.
 * Not batched, for batches lose messages to deduplication.
 *
 * **Orders**: as `pulsarWebSocketWriter`.
 * **Holds**: the numbers of the last 10,000 messages, or of two windows.
 * **Fails** with `FolderInUse` when another process has the folder. Where the topic does not drop
 * repeats there is no writer, and the state says so.
 */
export const pulsarNumberedWriter = (settings: NumberedWriterSettings): Connection<Message> => {
  const { folder, window = 1000, journal = openNumberJournal } = settings
  const keep = Math.max(10_000, 2 * window)
  return defer(() => journal(folder, { keep })).pipe(
    switchMap((opened) => numbered(opened, settings, keep, pulsarProducers(settings))),
    share({ connector: () => new ReplaySubject(1), resetOnRefCountZero: true }),
  )
}
