/** Pulsar with deduplication, a queue that gives again what was not answered, and a disk for the numbers: all in virtual time. */
import { concat, EMPTY, ignoreElements, Observable, of, Subject, Subscription, tap, timer } from 'rxjs'
import type { NumberJournal } from '../../src/connections/number-journal.js'
import type { NumberRecord } from '../../src/connections/numbers.js'
import { pulsarNumberedWriter } from '../../src/connections/pulsar-numbered.js'
import type { NumberedWriterSettings } from '../../src/connections/pulsar-numbered.js'
import { HandshakeRefused, SocketClosed } from '../../src/connections/web-socket.js'
import type { OpenWebSocket } from '../../src/connections/web-socket.js'
import type { Delivery } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'

interface Frame {
  readonly properties: { readonly messageId: string }
  readonly context: string
}
const repeatId = 'CP///////////wEQ////////////ATAA'

/** One topic of a Pulsar that drops repeats, as measured: by producer name and number, batches as a whole, and a refused frame takes no number. */
export const deduplicatingPulsar = (random: () => number = () => 0.5, refuses: (id: string) => boolean = () => false) => {
  const stored: string[] = []
  const highest = new Map<string, number>()
  const names: string[] = [] // of each socket that was opened
  const taken = new Set<string>()
  const sockets = new Set<(error: Error) => void>()
  let up = true

  const open: OpenWebSocket = (url, heard) =>
    new Observable((subscriber) => {
      const query = new URL(url).searchParams
      const name = query.get('producerName') ?? `chance-${names.length}`
      if (!up) return subscriber.error(new Error('ECONNREFUSED'))
      if (taken.has(name)) return subscriber.error(new HandshakeRefused(409, 'already connected'))
      names.push(name)
      taken.add(name)
      const initial = query.get('initialSequenceId')
      let number = initial === null ? (highest.get(name) ?? -1) : Number(initial)
      const batched = query.get('batchingEnabled') !== 'false'
      let droppingBatch = false // its first number was a repeat
      const onTheWay: Frame[] = []
      let over = false
      const life = new Subscription()
      /** Stores or drops, and gives the answer. */
      const take = ({ context, properties: { messageId } }: Frame): object => {
        if (refuses(messageId)) return { result: 'send-error:7', errorMsg: 'refused by script', context }
        number += 1
        const repeat = number <= (highest.get(name) ?? -1)
        if (repeat || (batched && droppingBatch)) {
          droppingBatch = batched
          highest.set(name, Math.max(number, highest.get(name) ?? -1))
          return { result: 'ok', messageId: repeatId, context }
        }
        highest.set(name, number)
        stored.push(messageId)
        return { result: 'ok', messageId: 'CAE=', context }
      }
      const arrive = (): void => {
        const frame = onTheWay.shift()
        if (frame === undefined || over) return
        const answer = JSON.stringify({ errorCode: 0, ...take(frame) })
        life.add(timer(1 + Math.floor(random() * 3)).subscribe(() => heard(answer)))
      }
      const lose = (error: Error): void => subscriber.error(error)
      sockets.add(lose)
      subscriber.next({ send: (text) => (onTheWay.push(JSON.parse(text) as Frame), life.add(timer(2).subscribe(arrive))), bufferedBytes: () => 0 })
      return () => {
        over = true
        life.unsubscribe()
        sockets.delete(lose)
        // What was on its way arrives up to somewhere, and nobody hears of it.
        const last = up ? Math.floor(random() * (onTheWay.length + 1)) : 0
        for (const frame of onTheWay.splice(0, last)) take(frame)
        timer(Math.floor(random() * 50)).subscribe(() => taken.delete(name))
      }
    })
  return {
    open,
    stored,
    names,
    highest,
    lose: () => [...sockets].forEach((end) => end(new SocketClosed(1006, ''))),
    power: (on: boolean): void => {
      up = on
      if (!on) for (const end of [...sockets]) end(new SocketClosed(1006, ''))
    },
  }
}
export type DeduplicatingPulsar = ReturnType<typeof deduplicatingPulsar>

/** What a killed process leaves of its numbers: those that were synced. */
export const numberDisk = (syncMs = 1) => {
  let durable: readonly NumberRecord[] = []
  const open = () => {
    let alive = true
    const found = durable
    const journal: NumberJournal = {
      found,
      append: (records) =>
        concat(
          timer(syncMs).pipe(
            tap(() => {
              if (alive) durable = [...durable, ...records]
            }),
            ignoreElements(),
          ),
          EMPTY,
        ),
      close: () => EMPTY,
    }
    return { journal, kill: () => (alive = false) }
  }
  return { open, records: () => durable, restore: (older: readonly NumberRecord[]) => (durable = older) }
}
export type NumberDisk = ReturnType<typeof numberDisk>

export const message = (id: string, more: Partial<Message> = {}): Message => ({ id, body: Buffer.from(`{"id":"${id}"}`), properties: {}, digest: `digest of ${id}`, ...more })

/** A queue in order; what is outside when its reader dies comes again, in its old place, unless somebody else holds it for a while. */
export const queueOf = (foreign: (id: string) => boolean = () => false) => {
  const waiting: { id: string; redelivered: boolean; at: number }[] = []
  const outside = new Map<string, { id: string; redelivered: boolean; at: number }>()
  const heldBack: { id: string; redelivered: boolean; at: number }[] = []
  const dead: string[] = []
  let put = 0
  let give: ((delivery: Delivery<Message>) => void) | undefined
  let window = 0
  const pump = (): void => {
    while (give !== undefined && outside.size < window) {
      const next = waiting.shift()
      if (next === undefined) return
      outside.set(next.id, next)
      const reader = give
      const { id, body, properties, redelivered, digest } = message(next.id, { redelivered: next.redelivered })
      give({
        value: { id, body, properties, ...(redelivered === undefined ? {} : { redelivered }), ...(foreign(id) || digest === undefined ? {} : { digest }) },
        settle: ({ kind }) => {
          if (give !== reader) return
          outside.delete(next.id)
          if (kind === 'rejected') dead.push(next.id)
          pump()
        },
      })
    }
  }
  return {
    dead,
    put: (id: string): void => {
      waiting.push({ id, redelivered: false, at: (put += 1) })
      pump()
    },
    read: (to: (delivery: Delivery<Message>) => void, size: number): void => {
      give = to
      window = size
      pump()
    },
    /** The reader is gone. `keeps` says what another program grabs for now. */
    leave: (keeps: (id: string) => boolean = () => false): void => {
      give = undefined
      for (const one of outside.values()) (keeps(one.id) ? heldBack : waiting).push({ ...one, redelivered: true })
      outside.clear()
      waiting.sort((a, b) => a.at - b.at)
    },
    /** That program gives back what it held: it comes again where it was. */
    giveBack: (): void => {
      waiting.push(...heldBack.splice(0))
      waiting.sort((a, b) => a.at - b.at)
      pump()
    },
    left: () => waiting.length + outside.size + heldBack.length,
  }
}
export type Queue = ReturnType<typeof queueOf>

let runs = 0
const alive = new Set<Subscription>()
/** Virtual time ends when nothing is left to do. */
export const endAll = (): void => {
  for (const one of alive) one.unsubscribe()
  alive.clear()
}
/** A forwarder: reads the queue, writes to Pulsar under numbers. `kill` is SIGKILL; `stop` lets it end. */
export const forwarder = (
  { queue, pulsar, disk }: { queue: Queue; pulsar: DeduplicatingPulsar; disk: NumberDisk },
  { window = 20, ...settings }: Partial<NumberedWriterSettings> = {},
) => {
  const { journal, kill } = disk.open()
  const connection = pulsarNumberedWriter({
    url: 'ws://pulsar',
    topic: 'persistent://public/default/t',
    key: 'device',
    folder: '/numbers',
    open: pulsar.open,
    journal: () => of(journal),
    allowed: of(true),
    newRun: () => (runs += 1).toString(16).padStart(16, '0'),
    window,
    ...settings,
  })
  // As `whileOpen` holds it: a run of the pipeline may end and another begin on one connection.
  const running = connection.subscribe()
  let run = Subscription.EMPTY
  const begin = (): void => {
    const deliveries = new Subject<Delivery<Message>>()
    run = deliveries.pipe(pulsarSink(connection, { window })).subscribe()
    running.add(run)
    queue.read((delivery) => deliveries.next(delivery), window)
  }
  alive.add(running)
  begin()
  return {
    kill: (keeps?: (id: string) => boolean): void => {
      kill()
      queue.leave(keeps)
      running.unsubscribe()
    },
    stop: (): void => {
      queue.leave()
      running.unsubscribe()
    },
    /** Gives everything back, on the same connection, and takes it again. */
    release: (): void => {
      if (running.closed) return
      queue.leave()
      run.unsubscribe()
      begin()
    },
  }
}
