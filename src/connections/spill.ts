import { asyncScheduler, Observable, ReplaySubject, share, Subscription } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'
import { patience } from './patience.js'

/** What stands in while the far end is away. */
export interface Spool<T> {
  /** Appends; a write completes when it is synced, and before it can be drained. */
  readonly connection: Connection<T>
  /** How many were appended and not yet drained: the present number once it is known, then each change. */
  readonly depth: Observable<number>
}

/**
 * `direct`: writes go to the far end · `spool`: they are appended, and the spool drains ·
 * `hold`: it is nearly empty, writes wait for that · `shut`: neither can keep them.
 */
export type SpillState = 'direct' | 'spool' | 'hold' | 'shut'

export interface SpillOptions {
  /** The oldest unconfirmed write may be this old, then the spool takes over; the longest a write is held. @default 1500 */
  readonly confirmMs?: number
  /** With so few left in the spool, writes wait for its end. At least the window, or a busy source never gets back to direct. @default 1000 */
  readonly holdBelow?: number
  /** After the spool has refused: when it is tried again, in milliseconds. @default 1000 */
  readonly retryMs?: number
  /** Told each change, and why. */
  readonly onState?: (state: SpillState, reason: string) => void
}

interface Write<T> {
  readonly value: T
  readonly answer: { readonly complete: () => void; readonly error: (error: unknown) => void }
  readonly since: number
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/**
 * A connection that writes to the far end while it answers, and to a spool while it does not.
 * It only chooses the writer: whoever writes (`deliver`) writes everything unconfirmed again,
 * in order, at each change. Draining the spool into the same far end is somebody else's work.
 *
 * **Orders**: nothing goes direct while anything is in the spool, or on its way there. A write
 * that the far end had taken when it was given up may arrive twice, under the same id.
 * **Holds**: in `hold`, what it was given, each for at most `confirmMs`.
 * **Fails**: when the spool cannot be opened. Emits `undefined` while neither can keep anything.
 */
export const spill = <T>(
  connection: Connection<T>,
  spool: Spool<T>,
  { confirmMs = 1500, holdBelow = 1000, retryMs = 1000, onState = () => {} }: SpillOptions = {},
): Connection<T> =>
  new Observable<Writer<T> | undefined>((subscriber) => {
    let state: SpillState = 'shut'
    let far: Writer<T> | undefined
    let append: Writer<T> | undefined
    let depth: number | undefined // unknown until the spool is open
    let appending = 0 // on their way into the spool
    let refused: string | undefined // why the spool took no more, until it is tried again
    let stalled = false // nothing has left the spool since it took over, or since what was held had to be appended
    let retry: Subscription | undefined
    const sent = new Set<Write<T>>() // written direct and unconfirmed, in order
    const held = new Set<Write<T>>() // waiting for the end of the spool, in order
    const oldest = (writes: Set<Write<T>>) => (): number | undefined => {
      const [first] = writes
      return first?.since
    }
    const enter = (next: SpillState, reason = ''): void => {
      if (state === next) return
      state = next
      onState(next, reason)
    }

    /** Gives direct up: what is unconfirmed is written again, into the spool. */
    const giveUp = (reason: string): void => {
      if (state !== 'direct') return
      sent.clear()
      stalled = true
      divert(reason)
    }
    const confirms = patience(confirmMs, oldest(sent), () => giveUp(`no confirm for ${confirmMs} ms`))
    const direct: (send: Writer<T>) => Writer<T> = (send) => (value) =>
      new Observable((answer) => {
        const write: Write<T> = { value, answer, since: asyncScheduler.now() }
        sent.add(write)
        confirms.watch()
        answer.add(() => sent.delete(write))
        answer.add(
          send(value).subscribe({
            complete: () => answer.complete(),
            error: (error: unknown) => (error instanceof Rejection ? answer.error(error) : giveUp(reasonOf(error))),
          }),
        )
      })

    /** Not called back when its write is: it may be in the spool by then, and nothing goes direct before that is known. */
    const appended = ({ value, answer }: Write<T>): void => {
      if (append === undefined) return
      appending += 1
      const going = new Subscription()
      const over = (tell: () => void): void => {
        subscriber.remove(going)
        appending -= 1
        tell()
        choose()
      }
      subscriber.add(going)
      going.add(
        append(value).subscribe({
          complete: () => over(() => answer.complete()),
          error: (error: unknown) => over(() => (error instanceof Rejection ? answer.error(error) : shut(error))),
        }),
      )
    }
    /** Appends what was held, in order. */
    const release = (): void => {
      enter('spool', 'the spool did not drain in time')
      for (const write of [...held]) {
        held.delete(write)
        appended(write)
      }
    }
    const holds = patience(confirmMs, oldest(held), () => {
      stalled = true
      release()
    })
    const spooled: Writer<T> = (value) =>
      new Observable((answer) => {
        const write: Write<T> = { value, answer, since: asyncScheduler.now() }
        if (state !== 'hold') return appended(write)
        held.add(write)
        holds.watch()
        return () => held.delete(write)
      })

    const shut = (error: unknown): void => {
      if (state !== 'spool' && state !== 'hold') return
      refused = reasonOf(error)
      held.clear()
      retry ??= asyncScheduler.schedule(() => {
        retry = undefined
        refused = undefined
        choose()
      }, retryMs)
      enter('shut', refused)
      subscriber.next(undefined)
    }
    /** Into the spool, if it takes anything. */
    const divert = (reason: string): void => {
      if (append === undefined || depth === undefined || refused !== undefined) {
        const open = state !== 'shut'
        enter('shut', refused ?? reason)
        return open ? subscriber.next(undefined) : undefined
      }
      enter('spool', reason)
      subscriber.next(spooled)
    }
    const choose = (): void => {
      const empty = depth === 0 && appending === 0
      if (state === 'direct') return far === undefined ? giveUp('the far end is away') : undefined
      if (empty && far !== undefined) {
        held.clear()
        enter('direct')
        return subscriber.next(direct(far))
      }
      if (state === 'shut') return divert('the far end is away')
      const ending = far !== undefined && depth !== undefined && depth <= holdBelow && !stalled
      if (state === 'spool' && ending) enter('hold')
      else if (state === 'hold' && far === undefined) release()
    }

    subscriber.add(() => {
      retry?.unsubscribe()
      confirms.stop()
      holds.stop()
    })
    subscriber.add(
      spool.connection.subscribe({
        next: (writer) => {
          append = writer
          if (writer === undefined) shut(new Error('the spool is closed'))
          choose()
        },
        error: (error: unknown) => subscriber.error(error),
      }),
    )
    subscriber.add(
      spool.depth.subscribe({
        next: (now) => {
          if (depth !== undefined && now < depth) stalled = false
          depth = now
          choose()
        },
        error: (error: unknown) => subscriber.error(error),
      }),
    )
    subscriber.add(
      connection.subscribe({
        next: (writer) => {
          // A writer that follows another without a loss is a new connection all the same.
          if (state === 'direct') giveUp('the connection was lost')
          far = writer
          choose()
        },
        error: (error: unknown) => subscriber.error(error),
      }),
    )
  }).pipe(share({ connector: () => new ReplaySubject(1), resetOnRefCountZero: true }))
