import { Subscription } from 'rxjs'
import type { Observable } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import type { RunHelpers } from 'rxjs/testing'
import type { Answered } from '../delivery.js'
import { scriptedAmqp } from './amqp.js'
import { scriptedFar } from './far.js'
import { scriptedHttp } from './http.js'
import { isObject, letterBook } from './letters.js'
import { scriptedPulsar } from './pulsar.js'
import { aligned, rowBook } from './rows.js'
import type { ExpectedRow, Row } from './rows.js'
import { scriptedSource } from './source.js'
import type { Stage, Unsettled } from './stage.js'
import { timeline } from './timeline.js'
import { scriptedWebSocket } from './web-socket.js'

export interface MarblesOptions {
  /** What still goes on then is cut off, and judged as it stands: in virtual milliseconds. @default 100000 */
  readonly untilMs?: number
}

/** What the body of a run gets: RxJS's own helpers, and these. */
export interface Marbles extends RunHelpers {
  /**
   * Deliveries as their marbles say, and the row of their answers; `|` ends them, `#` is an error
   * of the source. Made with the ledger that every source of Backhaul uses.
   *
   * **Orders**: as the marbles; what finds no room waits, and goes when an answer makes some.
   * **Holds**: at most `window` (1000) outside.
   */
  readonly source: ReturnType<typeof scriptedSource>
  /**
   * A connection as its marbles say: a letter is a writer that connects, `x` its loss; the last of
   * them is replayed. A write is answered by the plan for its letter, in ms, or by the one for
   * this try: `{ a: 3, b: ['failed', 1], c: 'refused', d: 'silent' }`; else confirmed after 1 ms.
   */
  readonly far: ReturnType<typeof scriptedFar>
  /**
   * RabbitMQ as its marbles say, behind the real `amqpWriter`, `amqpReader` and `rabbitmqSource`:
   * `o` it is there, `x` it is lost, `c` it closes every channel, `b` and `u` it blocks publishers
   * and lets them again, `!` it cancels every consumer.
   *
   * **Example** `amqp('o---x 300ms o', { a: 'returned', b: 'multiple' }, { arrivals: 'ab-c' })`
   */
  readonly amqp: ReturnType<typeof scriptedAmqp>
  /**
   * Pulsar's WebSocket producer as its marbles say, behind the real `pulsarWriter`: `o` it is
   * there, `x` it is lost, `f` it is frozen, `u` it goes on.
   *
   * **Example** `pulsar('o---f 5s u', { a: 'refused', b: 'too large' })`
   */
  readonly pulsar: ReturnType<typeof scriptedPulsar>
  /** A client that posts as its marbles say to `httpSource(…).ingest`; a letter is a request, and the id of its message. */
  readonly http: ReturnType<typeof scriptedHttp>
  /** A client of a `stream`, as its marbles say: `s` it stops reading, `r` it reads again, `x` it leaves. */
  readonly webSocket: ReturnType<typeof scriptedWebSocket>
  /** The run's time as a `now`: milliseconds since 1970, from `start` at frame 0. @default 1970-01-01T00:00:00Z */
  readonly clock: (start?: string) => () => number
  /**
   * Subscribes a pipeline in frame 0, or as the marbles `subscription` say (`--^---!`), and gives the
   * row of what it emits: receipts as their value's letter, in capitals when it was rejected. An
   * error that no row expects fails the run.
   */
  readonly run: <R>(pipeline: Observable<R & Answered<R>>, subscription?: string) => Row
  /**
   * What is expected, row by row: `rows([far.writes, 'a-b'], [far.demand('a'), '^--!'])`. Judged
   * when the run is over, or at `flush`. **Fails** at once with a `TypeError` for what is no row.
   */
  readonly rows: (...expected: readonly ExpectedRow[]) => void
  /** What has happened so far, in words; after `flush`, all of it. */
  readonly timeline: () => string
}

/** A run that was not as expected. The message holds the rows, what is unsettled, and the timeline. */
class MarblesFailed extends Error {
  override readonly name = 'MarblesFailed'
}

const promiseHint = 'If a step of it waits for a promise: promises do not run in virtual time, an array or an observable does.'

/** Deliveries that nobody answered, and answered ones that were expected not to be. */
const debts = (expected: string, unsettled: readonly Unsettled[], lastSeen: (letter: string) => string | undefined): readonly string[] => {
  const allowed = [...expected.replaceAll(' ', '')]
  const unexpected = unsettled.filter(({ letter }) => {
    const at = allowed.indexOf(letter)
    if (at >= 0) allowed.splice(at, 1)
    return at < 0
  })
  return [
    ...unexpected.map(({ letter, given }) => `  ${letter} is unsettled: ${given}; ${lastSeen(letter) ?? 'seen by no far end'}`),
    ...allowed.map((letter) => `  ${letter} was expected to stay unsettled, and did not`),
  ]
}

/** A test's own assertion failed in the body: it is told with the timeline. */
const withTimeline = (error: unknown, text: string): unknown => {
  // Not by class: in a test runner an assertion's error may come from another realm.
  if (!isObject(error) || error instanceof MarblesFailed || text === '') return error
  const { message, stack } = error
  if (typeof message !== 'string') return error
  const told = `${message}\n\n${text}`
  error['message'] = told
  if (typeof stack === 'string') error['stack'] = stack.replace(message, () => told)
  return error
}

/**
 * Runs `body` in a virtual time of its own, a frame of marbles being a millisecond, and then
 * throws if a row is not as expected, a pipeline failed unexpectedly, or a delivery was left
 * unsettled that is not in `unsettled`. The message shows expected and actual rows aligned,
 * names each unsettled delivery with where it was last seen, and tells the run as a timeline.
 * It returns nothing, and works in any test runner.
 *
 * RxJS's timers and schedulers are virtual in there, and `Math.random` gives 0; promises,
 * `setTimeout` and sockets are not virtual: what waits for them waits for ever, and an async
 * body is a `TypeError`.
 *
 * **Example**
 * ```js
 * test('a reading is settled when the far end has it', () =>
 *   marbles(({ source, far, run, rows }) => {
 *     const readings = source('a-b---|')
 *     const pulsar = far('     w------', { b: 3 })
 *     run(readings.deliveries.pipe(deliver(pulsar.connection, { sink: 'pulsar' })))
 *     rows(
 *       [pulsar.writes, '      a-b'],
 *       [readings.settled, '   -a---b'],
 *     )
 *   }))
 * ```
 */
export const marbles = (body: (m: Marbles) => void, { untilMs = 100_000 }: MarblesOptions = {}): void => {
  const scheduler: TestScheduler = new TestScheduler((actual, expected) => book.compare(actual, expected))
  const now = (): number => scheduler.frame
  const letters = letterBook()
  const book = rowBook(now, letters.of)
  const story = timeline(now)
  const names = new Map<string, number>()
  const owed: (() => readonly string[])[] = []
  const failures = new Map<Row, unknown>()
  const running = new Subscription()
  const name = (kind: string): string => {
    const count = (names.get(kind) ?? 0) + 1
    names.set(kind, count)
    return count === 1 ? kind : `${kind} ${count}`
  }
  const judge = (problems: readonly string[] = []): void => {
    const { differ, lines } = book.judge()
    const all = differ ? ['the rows are not as expected (a letter, a dash or a group is 1 ms)', aligned(lines)] : []
    if (problems.length > 0) all.push('not as it should be at the end of the run', ...problems)
    if (all.length === 0) return
    const failed = new MarblesFailed(`${all.join('\n')}\n\n${story.text()}`)
    Error.captureStackTrace(failed, marbles)
    throw failed
  }
  const act = (helpers: RunHelpers): void => {
    scheduler.maxFrames = untilMs
    const flush = (): void => {
      helpers.flush()
      judge()
    }
    const owes = (expected: string, unsettled: () => readonly Unsettled[]): void => {
      owed.push(() => debts(expected, unsettled(), story.lastSeen))
    }
    const stage: Stage = { ...letters, ...book, ...story, scheduler, helpers, name, owes }
    const run: Marbles['run'] = (pipeline, subscription) => {
      const who = name('run')
      const { row, say } = book.open(who)
      const { subscribedFrame, unsubscribedFrame } = TestScheduler.parseMarblesAsSubscriptions(subscription ?? null, true)
      let current: Subscription | undefined
      const begin = (): void => {
        current = pipeline.subscribe({
          next: (value) => say(letters.of(value)),
          error: (error: unknown) => {
            failures.set(row, error)
            stage.say(who, `fails: ${String(error)}`)
            say('#')
          },
          complete: () => {
            stage.say(who, 'completes')
            say('|')
          },
        })
        running.add(current)
      }
      const end = (): void => {
        stage.say(who, 'is unsubscribed')
        current?.unsubscribe()
      }
      scheduler.schedule(begin, Number.isFinite(subscribedFrame) ? subscribedFrame : 0)
      if (Number.isFinite(unsubscribedFrame)) scheduler.schedule(end, unsubscribedFrame)
      return row
    }
    const clock: Marbles['clock'] = (start = '1970-01-01T00:00:00Z') => () => Date.parse(start) + now()
    const ends = {
      source: scriptedSource(stage),
      far: scriptedFar(stage),
      amqp: scriptedAmqp(stage),
      pulsar: scriptedPulsar(stage),
      http: scriptedHttp(stage),
      webSocket: scriptedWebSocket(stage),
    }
    const returned: unknown = body({ ...helpers, ...ends, flush, clock, run, rows: (...expected) => book.expect(expected), timeline: story.text })
    if (isObject(returned) && typeof returned['then'] === 'function') throw new TypeError('marbles: the body must not be async, for promises do not run in virtual time')
    helpers.flush()
    const failed = [...failures].filter(([row]) => !book.expected(row)).map(([, error]) => `  a pipeline failed: ${String(error)}`)
    const unsettled = owed.flatMap((look) => look())
    const hint = unsettled.some((line) => line.endsWith('seen by no far end')) ? [`  ${promiseHint}`] : []
    judge([...failed, ...unsettled, ...hint])
    running.unsubscribe()
  }
  const { random } = Math
  Math.random = () => 0
  try {
    scheduler.run(act)
  } catch (error) {
    throw withTimeline(error, story.text())
  } finally {
    Math.random = random
  }
}
