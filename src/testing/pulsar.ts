import { asapScheduler, BehaviorSubject, combineLatest, filter, Observable, Subject, Subscription, take, timeout, timer } from 'rxjs'
import { SocketClosed } from '../connections/web-socket.js'
import type { OpenWebSocket } from '../connections/web-socket.js'
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
  readonly payload: string
  readonly properties: Readonly<Record<string, string>>
  readonly context: string
}

const exception = (name: string): object => ({ result: 'send-error:8', errorMsg: `org.apache.pulsar.client.api.PulsarClientException$${name}: by script` })

/**
 * Pulsar as its marbles say: `o` it is there, `x` it is lost, with every socket, `f` it is
 * frozen: takes nothing, says nothing, and what is sent piles up; `u` it goes on. Its topic has
 * a message as soon as it comes. A socket that stays frozen is cut off after `silenceMs`, as
 * the real client does it, by pings.
 *
 * An attempt to connect waits for it to be there, up to `handshakeTimeoutMs`. After a loss Backhaul rests for 200 ms before it tries
 * again, then 400, …: write `o---x 300ms o`.
 */
export const scriptedPulsar =
  (stage: Stage) =>
  (row: string, plans: Plans<PulsarPlan> = {}): ScriptedPulsar => {
    const who = stage.name('pulsar')
    const { row: writes, say } = stage.open(`${who}.writes`)
    const planFor = planner<PulsarPlan>(plans, 1)
    const up = new BehaviorSubject(false)
    const frozen = new BehaviorSubject(false)
    const lost = new Subject<void>()
    const stored: string[] = []
    let sockets = 0

    const open: OpenWebSocket = (_url, receive, { silenceMs = 20_000, handshakeTimeoutMs = 10_000 } = {}) =>
      new Observable((subscriber) => {
        const timers = new Subscription()
        const waiting: (() => void)[] = [] // what a frozen peer has not taken, or not said
        let bufferedBytes = 0
        const end = (error: Error): void => subscriber.error(error)
        const whenAwake = (act: () => void): void => {
          if (frozen.value) waiting.push(act)
          else act()
        }
        const answer = (context: string, letter: string, what: string, reply: object): void =>
          whenAwake(() => {
            stage.say(who, `${what} ${letter}`, letter)
            receive(JSON.stringify({ errorCode: 0, context, ...reply }))
          })
        const takeIn = ({ context, properties }: Frame): void => {
          const letter = stage.of({ id: properties['messageId'] })
          const { plan, tries } = planFor(letter)
          stage.say(who, `${letter} is sent${tries === 1 ? '' : `, for the ${ordinal(tries)} time`}`, letter)
          say(letter)
          if (plan === 'too large') return end(new SocketClosed(1009, 'the frame is too large'))
          if (typeof plan === 'number' || plan === 'silent') stored.push(letter)
          if (plan === 'silent') return
          const reply = (): void => {
            if (plan === 'refused') answer(context, letter, 'refuses', exception('InvalidMessageException'))
            else if (plan === 'failed') answer(context, letter, 'cannot take', exception('ProducerQueueIsFullError'))
            else answer(context, letter, 'has', { result: 'ok', messageId: 'CAE=' })
          }
          timers.add(timer(typeof plan === 'number' ? plan : 1).subscribe(reply))
        }
        const connect = (): void => {
          sockets += 1
          stage.say(who, 'is connected')
          subscriber.add(() => (sockets -= 1))
          subscriber.add(lost.subscribe(() => end(new SocketClosed(1006, ''))))
          subscriber.add(
            frozen.subscribe((now) => {
              if (!now) for (const act of waiting.splice(0)) act()
            }),
          )
          subscriber.add(
            frozen.pipe(filter(Boolean)).subscribe(() => {
              const cutOff = timer(silenceMs).subscribe(() => end(new Error(`nothing heard for ${silenceMs} ms`)))
              timers.add(cutOff)
              timers.add(frozen.pipe(filter((now) => !now), take(1)).subscribe(() => cutOff.unsubscribe()))
            }),
          )
          subscriber.next({
            bufferedBytes: () => bufferedBytes,
            send: (text) => {
              if (frozen.value) bufferedBytes += text.length
              whenAwake(() => {
                bufferedBytes = 0
                takeIn(JSON.parse(text) as Frame)
              })
            },
          })
        }
        subscriber.add(timers)
        const there = combineLatest([up, frozen]).pipe(filter(([isUp, isFrozen]) => isUp && !isFrozen), take(1), timeout(handshakeTimeoutMs))
        subscriber.add(there.subscribe({ next: () => subscriber.add(asapScheduler.schedule(connect)), error: end }))
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
