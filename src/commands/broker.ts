/** `backhaul broker …`: RabbitMQ's own tools, with the waiting, the asking and the exit codes done. */
import { Command, InvalidArgumentError, Option } from 'commander'
import { asyncScheduler, catchError, defer, EMPTY, filter, ignoreElements, lastValueFrom, of } from 'rxjs'
import type { Observable, SchedulerLike } from 'rxjs'
import type { Host } from '../connections/rabbitmqctl.js'
import { exitCodes, Ended } from './broker-result.js'
import { verbsOn } from './broker-verbs.js'
import type { Given, Verbs } from './broker-verbs.js'

export interface BrokerDeps {
  readonly host: Host
  /** Called once with the exit code, when the command has ended. */
  readonly exit: (code: number) => void
  readonly scheduler?: SchedulerLike
}

const defaults = { vhost: '/', wait: 120 } as const

/**
 * A word that a tool can be given. Packages wrap rabbitmqctl in a script that hands its arguments to
 * a shell once more, where `$`, a backquote and a backslash would be run instead of passed on.
 */
const safeWord = (host: Host, what: string) => (word: string): string => {
  if (/[\0-\x1f\x7f]/.test(word)) throw new InvalidArgumentError(`${what} must not have control characters.`)
  if (host.platform !== 'win32' && /[$`\\]/.test(word)) {
    throw new InvalidArgumentError(`${what} must not have $, \` or \\: rabbitmqctl's wrapper would run them in a shell.`)
  }
  return word
}

const nodeName = (word: string): string => {
  if (/^[A-Za-z0-9_][\w-]*(@[A-Za-z0-9][\w.-]*)?$/.test(word)) return word
  throw new InvalidArgumentError('A node is name or name@host, of letters, digits, _ and -.')
}

const seconds = (word: string): number => {
  if (/^[1-9]\d{0,4}$/.test(word)) return Number(word)
  throw new InvalidArgumentError('Expected whole seconds, from 1.')
}

/**
 * The sub-command `broker`: status, start, stop, start-app, stop-app, restart, reset, list-queues and
 * purge-queue, through rabbitmqctl and rabbitmq-server. Each command line is shown before it runs.
 *
 * Exit codes: 0 done · 1 the tool failed · 2 refused, or used wrongly · 3 the node or its application
 * is not running · 69 the tools are not installed.
 *
 * **Fails**: a wrong option calls `exit(2)` and rejects `parseAsync` with commander's own error.
 *
 * **Example**: `program.addCommand(brokerCommand({ host: nodeHost(process), exit }))`
 */
export const brokerCommand = ({ host, exit, scheduler = asyncScheduler }: BrokerDeps): Command => {
  const perform = async (given: Given, verb: (verbs: Verbs) => Observable<unknown>): Promise<void> => {
    const codes = defer(() => verb(verbsOn(host, scheduler, given))).pipe(
      ignoreElements(),
      catchError((error: unknown) => {
        host.err(error instanceof Error ? error.message : String(error))
        return of(error instanceof Ended ? error.code : exitCodes.failed)
      }),
      filter((code) => typeof code === 'number'),
    )
    exit(await lastValueFrom(codes, { defaultValue: exitCodes.ok }))
  }

  const settled = (command: Command): Command =>
    command
      .configureOutput({ writeOut: (text) => host.out(text.trimEnd()), writeErr: (text) => host.err(text.trimEnd()) })
      .exitOverride((error) => {
        exit(error.exitCode === 0 ? exitCodes.ok : exitCodes.refused)
        throw error
      })

  const options = {
    json: new Option('--json', 'JSON on stdout, everything else on stderr'),
    yes: new Option('--yes', 'do not ask'),
    vhost: new Option('--vhost <name>', 'the virtual host').default(defaults.vhost).argParser(safeWord(host, 'A virtual host')),
    wait: new Option('--wait <seconds>', 'the longest to wait for the start').default(defaults.wait).argParser(seconds),
  }
  const verb = (name: string, about: string, act: (verbs: Verbs) => Observable<unknown>, ...extra: readonly Option[]): Command => {
    const command = settled(new Command(name)).description(about)
      .addOption(new Option('-n, --node <name>', 'the Erlang node').argParser(nodeName))
      .addOption(new Option('--dry-run', 'print the command lines, run none'))
    for (const option of extra) command.addOption(option)
    return command.action(() => perform({ ...defaults, ...command.opts<Partial<Given>>() }, act))
  }
  const purgeQueue = verb('purge-queue', 'destroy the messages of a queue', () => EMPTY, options.yes, options.vhost)
    .argument('<queue>', 'its name', safeWord(host, 'A queue name'))
  purgeQueue.action((name: string) => perform({ ...defaults, ...purgeQueue.opts<Partial<Given>>() }, (verbs) => verbs.purgeQueue(name)))

  return [
    verb('status', 'whether RabbitMQ runs, and how it is', (verbs) => verbs.status(), options.json),
    verb('start', 'start the node, or its application, and wait for it', (verbs) => verbs.start(), options.wait),
    verb('stop', 'end the node', (verbs) => verbs.stop()),
    verb('start-app', 'start RabbitMQ in the running node', (verbs) => verbs.startApp()),
    verb('stop-app', 'stop RabbitMQ, leave the node running', (verbs) => verbs.stopApp()),
    verb('restart', 'end the node, start it again and wait for it', (verbs) => verbs.restart(), options.wait),
    verb('reset', 'destroy everything on the node', (verbs) => verbs.reset(), options.yes),
    verb('list-queues', 'the queues and their depths', (verbs) => verbs.listQueues(), options.json, options.vhost),
    purgeQueue,
  ].reduce(
    (broker, command) => broker.addCommand(command),
    settled(new Command('broker')).description("run RabbitMQ on this machine, with RabbitMQ's own tools"),
  )
}
