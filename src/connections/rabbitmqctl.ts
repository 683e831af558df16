/** Finds RabbitMQ's own tools and runs them, on Linux, macOS and Windows. */
import { spawn } from 'node:child_process'
import { accessSync, constants, readdirSync, statSync } from 'node:fs'
import { posix, win32 } from 'node:path'
import { createInterface } from 'node:readline'
import { Observable } from 'rxjs'

/** What a running tool says: lines as they come, then once how it ended. */
export type Said =
  | { readonly from: 'stdout' | 'stderr'; readonly line: string }
  | { readonly exit: number }

export interface RunOptions {
  /** Windows: the arguments are already quoted; pass them on as they are. */
  readonly verbatim?: boolean
  /** The tool leaves a server behind: its end counts, whoever still holds its output. */
  readonly leavesServer?: boolean
  /** Variables on top of the host's own. */
  readonly env?: Readonly<Record<string, string>>
}

/** The machine and the person at it: everything that the broker commands touch. */
export interface Host {
  readonly platform: NodeJS.Platform
  readonly env: Readonly<Record<string, string | undefined>>
  /** A person can answer a question. */
  readonly isTerminal: boolean
  readonly run: (file: string, args: readonly string[], options?: RunOptions) => Observable<Said>
  /** Whether there is a file that may be run. */
  readonly exists: (path: string) => boolean
  /** The names in a folder; none when it cannot be read. */
  readonly list: (folder: string) => readonly string[]
  /** Emits the answer, or `''` when the input ends. */
  readonly ask: (question: string) => Observable<string>
  readonly out: (line: string) => void
  readonly err: (line: string) => void
}

export type ToolName = 'rabbitmqctl' | 'rabbitmq-server'

/** Windows does not care for the case of a variable's name; a copy of its environment does. */
const variable = ({ env }: Host, name: string): string | undefined =>
  env[name] ?? env[Object.keys(env).find((key) => key.toLowerCase() === name.toLowerCase()) ?? name]

const pathFolders = (host: Host): readonly string[] =>
  (variable(host, 'PATH') ?? '').split(host.platform === 'win32' ? ';' : ':').filter((folder) => folder !== '')

const versionOf = (folder: string): readonly number[] =>
  /^rabbitmq_server-(\d+)\.(\d+)\.(\d+)(.*)$/.exec(folder)?.slice(1, 5)
    // A pre-release comes before its release: 4.1.0-rc.1 has a fourth part, 4.1.0 has none.
    .map((part, index) => (index < 3 ? Number(part) : part === '' ? 1 : 0)) ?? []

const newestFirst = (a: string, b: string): number => {
  const [left, right] = [versionOf(a), versionOf(b)]
  const differs = left.findIndex((part, index) => part !== right[index])
  return differs < 0 ? 0 : (right[differs] ?? 0) - (left[differs] ?? 0)
}

const windowsFolders = (host: Host): readonly string[] => {
  const sbin = variable(host, 'RABBITMQ_SBIN')
  const home = variable(host, 'RABBITMQ_HOME')
  const servers = win32.join(variable(host, 'ProgramFiles') ?? 'C:\\Program Files', 'RabbitMQ Server')
  const installed = host.list(servers).filter((name) => versionOf(name).length > 0)
  return [
    ...(sbin ? [sbin] : []),
    ...(home ? [win32.join(home, 'sbin')] : []),
    ...[...installed].sort(newestFirst).map((name) => win32.join(servers, name, 'sbin')),
    ...pathFolders(host),
  ]
}

const posixFolders = (host: Host): readonly string[] =>
  [...pathFolders(host), '/usr/sbin', '/usr/lib/rabbitmq/bin', '/opt/homebrew/sbin', '/usr/local/sbin']

/**
 * The full path of one of RabbitMQ's tools, or `undefined` when it is not installed.
 *
 * Windows: `RABBITMQ_SBIN`, `RABBITMQ_HOME`, the newest version under `Program Files`, `PATH`.
 * Elsewhere: `PATH`, then the folders that packages use and that a user's `PATH` often lacks.
 */
export const findTool = (host: Host, name: ToolName): string | undefined =>
  host.platform === 'win32'
    ? windowsFolders(host).map((folder) => win32.join(folder, `${name}.bat`)).find(host.exists)
    : posixFolders(host).map((folder) => posix.join(folder, name)).find(host.exists)

/**
 * One line for cmd.exe that runs a .bat file with exactly these words.
 *
 * Two readers disagree about quotes: cmd.exe counts every one, the program's own parser
 * does not count `\"`. So the states of both are kept: white space is written where the program
 * is inside quotes, `& | < > ^ ( ) ! , ; =` where cmd.exe is. That survives the second reading, by the
 * batch file's `%*`, which carets would not. `%` cannot be escaped, but an expansion that is
 * always empty (`%cd:~,%`) keeps two of them from being a variable.
 */
export const cmdLine = (words: readonly string[]): string => {
  let line = ''
  let inCmd = false
  let inProgram = false
  let backslashes = 0
  const quote = (literal: boolean): void => {
    // Backslashes are ordinary to the program's parser, unless a quote follows them.
    line += '\\'.repeat(backslashes) + (literal ? '\\"' : '"')
    backslashes = 0
    inCmd = !inCmd
    if (!literal) inProgram = !inProgram
  }
  words.forEach((word, index) => {
    if (index > 0) line += ' '
    else if (!/^[\w:.\\-]+$/.test(word)) quote(false)
    backslashes = 0
    if (word === '') line += '""'
    for (const char of word) {
      if (char === '"') {
        quote(true)
        continue
      }
      if (/\s/.test(char) ? !inProgram : /[&|<>^()!,;=]/.test(char) && !inCmd) quote(false)
      line += char === '%' ? '%%cd:~,%' : char
      backslashes = char === '\\' ? backslashes + 1 : 0
    }
    if (inProgram) quote(false)
  })
  return line
}

const posixWord = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`

/** The words as a shell of that platform takes them: what is shown before a tool runs. */
export const shown = (
  host: Host, file: string, args: readonly string[], env: Readonly<Record<string, string>> = {},
): string => {
  const windows = host.platform === 'win32'
  const path = windows ? win32 : posix
  const words = [pathFolders(host).includes(path.dirname(file)) ? path.parse(file).name : file, ...args]
  const set = Object.entries(env).map(([name, value]) => (windows ? `set "${name}=${value}" && ` : `${name}=${value} `))
  return set.join('') + (windows ? cmdLine(words) : words.map(posixWord).join(' '))
}

/**
 * Runs a tool with exactly these arguments; emits its lines, then its exit code.
 *
 * **Fails**: when it cannot be run at all.
 */
export const runTool = (host: Host, file: string, args: readonly string[], options: RunOptions = {}): Observable<Said> => {
  if (host.platform !== 'win32' || !/\.(bat|cmd)$/i.test(file)) return host.run(file, args, options)
  const shell = variable(host, 'ComSpec') ?? 'cmd.exe'
  // The registry can turn extensions off and `!` expansion on, and run anything first: /e /v /d.
  const words = ['/e:on', '/v:off', '/d', '/s', '/c', `"${cmdLine([file, ...args])}"`]
  return host.run(shell, words, { ...options, verbatim: true })
}

const isProgram = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

const namesIn = (folder: string): readonly string[] => {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

const spawned = (env: NodeJS.ProcessEnv): Host['run'] => (file, args, options = {}) =>
  new Observable<Said>((subscriber) => {
    const child = spawn(file, args, {
      env: { ...env, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      windowsHide: true,
      windowsVerbatimArguments: options.verbatim ?? false,
    })
    const ended = (code: number | null): void => {
      subscriber.next({ exit: code ?? 1 })
      subscriber.complete()
      child.stdout.destroy()
      child.stderr.destroy()
    }
    createInterface({ input: child.stdout }).on('line', (line) => subscriber.next({ from: 'stdout', line }))
    createInterface({ input: child.stderr }).on('line', (line) => subscriber.next({ from: 'stderr', line }))
    child.once('error', (error) => subscriber.error(error))
    // A server left behind may hold the pipes, and `close` would wait for its end.
    child.once(options.leavesServer ? 'exit' : 'close', ended)
    return () => {
      if (child.exitCode === null) child.kill()
    }
  })

/** The real machine, through the parts of `process` that it needs. */
export const nodeHost = (
  process: Pick<NodeJS.Process, 'platform' | 'env'> & {
    readonly stdin: NodeJS.ReadableStream & { isTTY?: boolean }
    readonly stdout: NodeJS.WritableStream
    readonly stderr: NodeJS.WritableStream
  },
): Host => ({
  platform: process.platform,
  env: process.env,
  isTerminal: process.stdin.isTTY === true,
  run: spawned(process.env),
  exists: isProgram,
  list: namesIn,
  ask: (question) =>
    new Observable<string>((subscriber) => {
      // The question goes to stderr, so that stdout can be piped.
      const reader = createInterface({ input: process.stdin, output: process.stderr })
      reader.once('close', () => {
        subscriber.next('')
        subscriber.complete()
      })
      reader.question(question, (answer) => {
        subscriber.next(answer)
        subscriber.complete()
      })
      return () => reader.close()
    }),
  out: (line) => void process.stdout.write(`${line}\n`),
  err: (line) => void process.stderr.write(`${line}\n`),
})
