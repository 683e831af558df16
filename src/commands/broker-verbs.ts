/** The verbs of `backhaul broker`: which tools each runs, waits for and asks about. */
import { catchError, concat, connect, defer, EMPTY, ignoreElements, interval, map, merge, of, reduce, retry, switchMap, take, takeUntil, tap, throwError, timer } from 'rxjs'
import type { Observable, SchedulerLike } from 'rxjs'
import { findTool, runTool, shown } from '../connections/rabbitmqctl.js'
import type { Host, RunOptions, ToolName } from '../connections/rabbitmqctl.js'
import { exitCodes, Ended, stateOf, stateText, reasonOf, ended, jsonIn } from './broker-result.js'
import type { Result, State } from './broker-result.js'

/** Not yet: asked again after a pause. */
class NotYet extends Error {
  override readonly name = 'NotYet'
}

const installHints = [
  'RabbitMQ is not installed, or its tools are not on the PATH. To install it:',
  '  Debian, Ubuntu  sudo apt-get install rabbitmq-server',
  '  macOS           brew install rabbitmq',
  '  Windows         choco install rabbitmq   (elsewhere than Program Files: set RABBITMQ_SBIN)',
].join('\n')

interface Queue {
  readonly name: string
  readonly messages: number
  readonly messages_ready: number
}

export interface Given {
  readonly node?: string
  readonly vhost: string
  readonly wait: number
  readonly dryRun?: boolean
  readonly json?: boolean
  readonly yes?: boolean
}

const columns = ['name', 'messages', 'messages_ready', 'messages_unacknowledged', 'consumers']
const pauseMs = 500
const progressMs = 2_000
const stopLimitMs = 60_000

/** Each does its work when it is subscribed; a number among what it emits is an exit code. */
export interface Verbs {
  readonly status: () => Observable<unknown>
  readonly start: () => Observable<unknown>
  readonly stop: () => Observable<unknown>
  readonly startApp: () => Observable<unknown>
  readonly stopApp: () => Observable<unknown>
  readonly restart: () => Observable<unknown>
  readonly reset: () => Observable<unknown>
  readonly listQueues: () => Observable<unknown>
  readonly purgeQueue: (name: string) => Observable<unknown>
}

/** What each verb runs, on one host with one set of options. */
export const verbsOn = (host: Host, scheduler: SchedulerLike, given: Given): Verbs => {
  const onNode = given.node === undefined ? [] : ['-n', given.node]
  const inVhost = ['-p', given.vhost]
  const tell = given.json ? host.err : host.out

  const tool = (name: ToolName): string => {
    const file = findTool(host, name)
    if (file === undefined) throw new Ended(exitCodes.unavailable, installHints)
    return file
  }

  const run = (
    name: ToolName, args: readonly string[], how: RunOptions & { quiet?: boolean; silent?: boolean } = {},
  ): Observable<Result> =>
    defer(() => {
      const file = tool(name)
      const words = name === 'rabbitmqctl' ? [...onNode, ...args] : args
      if (!how.silent) tell(`$ ${shown(host, file, words, how.env)}`)
      return runTool(host, file, words, how).pipe(
        tap((said) => {
          if (how.quiet || how.silent || 'exit' in said) return
          if (said.from === 'stdout') tell(said.line)
          else host.err(said.line)
        }),
        reduce(
          (result: Result, said) =>
            'exit' in said
              ? { ...result, exit: said.exit }
              : {
                  ...result,
                  lines: [...result.lines, said.line],
                  stdout: said.from === 'stdout' ? [...result.stdout, said.line] : result.stdout,
                },
          { exit: 1, stdout: [], lines: [] },
        ),
      )
    })

  const must = (...args: readonly string[]): Observable<Result> =>
    run('rabbitmqctl', args).pipe(
      tap((result) => {
        if (result.exit !== 0) throw ended(result)
      }),
    )

  /** rabbitmq-server has no option for the node's name: a new node takes it from its environment. */
  const named = given.node === undefined ? {} : { env: { RABBITMQ_NODENAME: given.node } }
  const launch = run('rabbitmq-server', ['-detached'], { leavesServer: true, ...named }).pipe(
    tap((result) => {
      if (result.exit !== 0) throw new Ended(exitCodes.failed, reasonOf(result))
    }),
  )

  const logsIn = (): string =>
    host.env['RABBITMQ_LOG_BASE'] ?? (host.platform === 'win32' ? '%APPDATA%\\RabbitMQ\\log' : '/var/log/rabbitmq')

  /** Tries until it does not say `NotYet`; tells every two seconds how long it has been. */
  const patiently = <T>(what: string, limitMs: number, attempt: (first: boolean) => Observable<T>): Observable<T> =>
    defer(() => {
      const began = scheduler.now()
      let attempts = 0
      const done = defer(() => attempt(attempts++ === 0)).pipe(
        retry({
          delay: (error) => {
            if (!(error instanceof NotYet)) return throwError(() => error as unknown)
            if (scheduler.now() - began < limitMs) return timer(pauseMs, scheduler)
            return throwError(() => new Ended(exitCodes.failed, `Gave up ${what} after ${limitMs / 1000} s; its log is in ${logsIn()}.`))
          },
        }),
      )
      const progress = interval(progressMs, scheduler).pipe(
        tap(() => host.err(`${what}: ${Math.round((scheduler.now() - began) / 1000)} s`)),
        ignoreElements(),
      )
      return done.pipe(
        connect((result) => merge(progress.pipe(takeUntil(result.pipe(catchError(() => of(undefined))))), result)),
      )
    })

  /** The node needs a moment to be known at all, and `await_startup` does not wait for that. */
  const awaitStartup = defer(() => {
    let seen = false
    const limitMs = given.wait * 1000
    return patiently('waiting for RabbitMQ to start', limitMs, (first) =>
      run('rabbitmqctl', ['await_startup', '--timeout', `${given.wait}`], first ? { quiet: true } : { silent: true }).pipe(
        map((result) => {
          const state = stateOf(result)
          if (state === 'running') return result
          if (state === 'failed' && !/timeout|timed out/i.test(result.lines.join('\n'))) throw ended(result)
          if (seen && state === 'node-stopped') {
            throw new Ended(exitCodes.failed, `RabbitMQ came up and ended again; its log is in ${logsIn()}.`)
          }
          seen ||= state === 'app-stopped'
          throw new NotYet()
        }),
      ),
    )
  })

  const gone = patiently('waiting for the node to end', stopLimitMs, (first) =>
    run('rabbitmqctl', ['ping'], first ? { quiet: true } : { silent: true }).pipe(
      tap((result) => {
        if (result.exit === 0) throw new NotYet()
      }),
    ),
  )

  const say = (line: string): Observable<never> =>
    defer(() => {
      tell(line)
      return EMPTY
    })

  const agreed = (question: () => string): Observable<true> =>
    defer(() => (given.yes ? of('yes') : host.ask(`${question()} Type yes: `))).pipe(
      take(1),
      map((answer) => {
        if (answer.trim() !== 'yes') throw new Ended(exitCodes.refused, 'Nothing was done.')
        return true as const
      }),
    )

  /** Before anything runs: a script that forgot `--yes` must not find things half done. */
  const canAsk = defer(() => {
    if (given.yes || host.isTerminal) return EMPTY
    return throwError(() => new Ended(exitCodes.refused,
      'This destroys data, and there is no terminal to ask on: nothing was done. Say --yes to do it.'))
  })

  const queues = (how: { quiet: boolean }): Observable<readonly Queue[]> =>
    run('rabbitmqctl', ['-q', '--formatter', 'json', 'list_queues', ...inVhost, ...columns], how).pipe(
      map((result) => {
        if (result.exit !== 0) throw ended(result)
        const list = jsonIn(result.stdout)
        if (!Array.isArray(list)) throw new Ended(exitCodes.failed, 'rabbitmqctl gave no JSON: RabbitMQ 3.7 or newer is needed.')
        return list as readonly Queue[]
      }),
    )

  const probe = run('rabbitmqctl', ['status'], { quiet: true }).pipe(
    map((result) => {
      const state = stateOf(result)
      if (state === 'failed') throw ended(result)
      return state
    }),
  )

  const bringUp = (state: State): Observable<unknown> => {
    if (state === 'running') return say('RabbitMQ is running already.')
    const first = state === 'node-stopped' ? launch : must('start_app')
    return concat(first, awaitStartup, say('RabbitMQ is running.'))
  }

  const statusJson = run('rabbitmqctl', ['-q', '--formatter', 'json', 'status'], { quiet: true }).pipe(
    tap((result) => {
      const state = stateOf(result)
      if (state === 'failed') throw ended(result)
      const running = state === 'running'
      host.out(JSON.stringify({ running, state, ...(running ? { status: jsonIn(result.stdout) ?? null } : {}) }))
      if (!running) throw ended(result)
    }),
  )

  const dashSafe = (name: string): readonly string[] => (name.startsWith('-') ? ['--', name] : [name])

  const purge = (name: string): Observable<unknown> =>
    queues({ quiet: true }).pipe(
      switchMap((list) => {
        const queue = list.find((each) => each.name === name)
        if (queue === undefined) throw new Ended(exitCodes.failed, `There is no queue '${name}' in vhost '${given.vhost}'.`)
        const out = queue.messages - queue.messages_ready
        const holds = `'${name}' holds ${queue.messages} messages` + (out > 0 ? `, of which ${out} are out with consumers and stay.` : '.')
        return concat(
          say(holds),
          agreed(() => `Purging destroys ${queue.messages_ready} of them for ever.`),
          must('purge_queue', ...inVhost, ...dashSafe(name)),
        )
      }),
    )

  const reset = concat(
    agreed(() => 'Reset destroys every queue, message, user and setting of this node.'),
    must('stop_app'),
    // Whether or not the reset worked: a node is not left with its application stopped.
    must('reset').pipe(catchError((error: unknown) => concat(must('start_app').pipe(ignoreElements()), throwError(() => error)))),
    must('start_app'),
  )

  const plan = (...lines: readonly (readonly [ToolName, readonly string[], string?])[]): Observable<never> =>
    defer(() => {
      for (const [name, args, when] of lines) {
        const words = name === 'rabbitmqctl' ? [...onNode, ...args] : args
        const env = name === 'rabbitmq-server' ? named.env : undefined
        host.out(`$ ${shown(host, tool(name), words, env)}${when === undefined ? '' : `  # ${when}`}`)
      }
      return EMPTY
    })
  const planUp = [
    ['rabbitmq-server', ['-detached'], 'when the node is not running'],
    ['rabbitmqctl', ['start_app'], 'when only its application is stopped'],
    ['rabbitmqctl', ['await_startup', '--timeout', `${given.wait}`]],
  ] as const
  const planDown = [['rabbitmqctl', ['stop']], ['rabbitmqctl', ['ping'], 'until the node is gone']] as const
  const one = (...args: readonly string[]): Observable<unknown> =>
    given.dryRun ? plan(['rabbitmqctl', args]) : must(...args)

  return {
    status: () => {
      if (!given.json) return given.dryRun ? one('status') : concat(one('status'), say(stateText.running))
      return given.dryRun ? one('-q', '--formatter', 'json', 'status') : statusJson
    },
    start: () => (given.dryRun ? plan(['rabbitmqctl', ['status']], ...planUp) : probe.pipe(switchMap(bringUp))),
    stop: () => (given.dryRun ? plan(...planDown) : concat(must('stop'), gone, say('The node has ended.'))),
    startApp: () => one('start_app'),
    stopApp: () => one('stop_app'),
    restart: () => {
      if (given.dryRun) return plan(['rabbitmqctl', ['status']], ...planDown, planUp[0], planUp[2])
      const down = (state: State): Observable<unknown> => (state === 'node-stopped' ? EMPTY : concat(must('stop'), gone))
      return probe.pipe(switchMap((state) => concat(down(state), bringUp('node-stopped'))))
    },
    reset: () =>
      given.dryRun
        ? plan(['rabbitmqctl', ['stop_app']], ['rabbitmqctl', ['reset']], ['rabbitmqctl', ['start_app']])
        : concat(canAsk, reset),
    listQueues: () => {
      if (!given.json) return one('list_queues', ...inVhost, ...columns)
      if (given.dryRun) return one('-q', '--formatter', 'json', 'list_queues', ...inVhost, ...columns)
      return queues({ quiet: true }).pipe(tap((list) => host.out(JSON.stringify(list))))
    },
    purgeQueue: (name: string) => (given.dryRun ? one('purge_queue', ...inVhost, ...dashSafe(name)) : concat(canAsk, purge(name))),
  }
}
