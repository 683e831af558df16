import { asapScheduler, BehaviorSubject, combineLatest, EMPTY, filter, Observable, Subject, Subscription, switchMap, take, tap, timeout, timer } from 'rxjs'
import { SocketClosed } from '../connections/web-socket.js'
import type { OpenSocket, OpenWebSocket } from '../connections/web-socket.js'
import type { Row } from './rows.js'
import { obey, planner } from './stage.js'
import type { Plans, Stage } from './stage.js'
import { ordinal } from './timeline.js'

/**
 * What Pulsar says to one message: its receipt after so many frames; `refused`: this message
 * never; `failed`: not now, for the socket is of no more use; `too large`: it closes the socket,
 * as it does for a frame that it cannot bear; `silent`: it has the message, and its receipt is lost.
 */
export type PulsarPlan = number | 'refused' | 'failed' | 'too large' | 'silent'

/** Pulsar's WebSocket producer by script. */
export interface ScriptedPulsar {
  /** For `open` in the settings of `pulsarWriter`, with an address of `ws://`. */
  readonly open: OpenWebSocket
  /** The letter of each message, at the frame in which it is sent. */
  readonly writes: Row
  /** The letters of what the topic has, in order, repeats too. */
  readonly stored: () => string
  /** How many sockets are open now. */
  readonly sockets: () => number
}

interface Frame {
  readonly properties: Readonly<Record<string, string>>
  readonly context: string
}

/** One socket, as the producer behind it sees it. */
interface Session {
  /** Nothing of it happens any more once the socket is gone. */
  readonly life: Subscription
  readonly reply: (text: string) => void
  readonly close: (error: Error) => void
}

const exception = (name: string): object => ({ result: 'send-error:8', errorMsg: `org.apache.pulsar.client.api.PulsarClientException$${name}: by script` })
const replies: Readonly<Record<'refused' | 'failed' | 'stored', readonly [what: string, reply: object]>> = {
  refused: ['refuses', exception('InvalidMessageException')],
  failed: ['cannot take', exception('ProducerQueueIsFullError')],
  stored: ['has', { result: 'ok', messageId: 'CAE=' }],
}

/** Keeps what is sent, and answers by plan. */
const producer = (stage: Stage, who: string, plans: Plans<PulsarPlan>) => {
  const { row: writes, say } = stage.open(`${who}.writes`)
  const planFor = planner<PulsarPlan>(plans, 1)
  const stored: string[] = []
  const receive = (text: string, { life, reply, close }: Session): void => {
    const { context, properties } = JSON.parse(text) as Frame
    const letter = stage.of({ id: properties['messageId'] })
    const { plan, tries } = planFor(letter)
    stage.say(who, `${letter} is sent${tries === 1 ? '' : `, for the ${ordinal(tries)} time`}`, letter)
    say(letter)
    if (plan === 'too large') return close(new SocketClosed(1009, 'the frame is too large'))
    if (typeof plan === 'number' || plan === 'silent') stored.push(letter)
    if (plan === 'silent') return
    const [what, answer] = replies[typeof plan === 'number' ? 'stored' : plan]
    const tell = (): void => {
      stage.say(who, `${what} ${letter}`, letter)
      reply(JSON.stringify({ errorCode: 0, context, ...answer }))
    }
    life.add(timer(typeof plan === 'number' ? plan : 1).subscribe(tell))
  }
  return { writes, stored, receive }
}

/** A socket to a peer that can freeze: then nothing gets through, in either direction, until it goes on or is cut off. */
const openSocket = (frozen: BehaviorSubject<boolean>, session: Session, silenceMs: number, receive: (text: string) => void): OpenSocket => {
  const { life, close } = session
  const waiting: (() => void)[] = []
  let bufferedBytes = 0
  const cutOff = (): Observable<unknown> => timer(silenceMs).pipe(tap(() => close(new Error(`nothing heard for ${silenceMs} ms`))))
  const goOn = (): void => {
    bufferedBytes = 0
    for (const act of waiting.splice(0)) act()
  }
  life.add(frozen.pipe(switchMap((isFrozen) => (isFrozen ? cutOff() : EMPTY))).subscribe())
  life.add(frozen.pipe(filter((isFrozen) => !isFrozen)).subscribe(goOn))
  return {
    bufferedBytes: () => bufferedBytes,
    send: (text) => {
      if (!frozen.value) return receive(text)
      bufferedBytes += text.length
      waiting.push(() => receive(text))
    },
  }
}

/**
 * Pulsar as its marbles say: `o` it is there, `x` it is lost, with every socket, `f` it is
 * frozen: takes nothing, says nothing, and what is sent piles up; `u` it goes on. Its topic has
 * a message as soon as it comes. A socket that stays frozen is cut off after `silenceMs`, as
 * the real client does it, by pings.
 *
 * An attempt to connect waits for it to be there, up to `handshakeTimeoutMs`. After a loss
 * Backhaul rests for 200 ms before it tries again, then 400, …: write `o---x 300ms o`.
 */
export const scriptedPulsar =
  (stage: Stage) =>
  (row: string, plans: Plans<PulsarPlan> = {}): ScriptedPulsar => {
    const who = stage.name('pulsar')
    const { writes, stored, receive } = producer(stage, who, plans)
    const up = new BehaviorSubject(false)
    const frozen = new BehaviorSubject(false)
    const lost = new Subject<void>()
    let sockets = 0

    const open: OpenWebSocket = (_url, heard, { silenceMs = 20_000, handshakeTimeoutMs = 10_000 } = {}) =>
      new Observable((subscriber) => {
        const life = new Subscription()
        const close = (error: Error): void => subscriber.error(error)
        const tellAwake = (text: string): void => {
          life.add(frozen.pipe(filter((isFrozen) => !isFrozen), take(1)).subscribe(() => heard(text)))
        }
        const session: Session = { life, close, reply: tellAwake }
        const connect = (): void => {
          sockets += 1
          stage.say(who, 'is connected')
          life.add(() => (sockets -= 1))
          life.add(lost.subscribe(() => close(new SocketClosed(1006, ''))))
          subscriber.next(openSocket(frozen, session, silenceMs, (text) => receive(text, session)))
        }
        const there = combineLatest([up, frozen]).pipe(filter(([isUp, isFrozen]) => isUp && !isFrozen), take(1), timeout(handshakeTimeoutMs))
        life.add(there.subscribe({ next: () => life.add(asapScheduler.schedule(connect)), error: close }))
        return life
      })
    obey(stage, who, row, {
      o: () => up.next(true),
      x: () => {
        stage.say(who, 'is lost')
        up.next(false)
        lost.next()
        frozen.next(false)
      },
      f: () => {
        stage.say(who, 'is frozen')
        frozen.next(true)
      },
      u: () => {
        stage.say(who, 'goes on')
        frozen.next(false)
      },
    })
    return { open, writes, stored: () => stored.join(''), sockets: () => sockets }
  }
