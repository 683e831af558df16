import fc from 'fast-check'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { VirtualTimeScheduler, asapScheduler, from, of, throwError } from 'rxjs'
import type { Observable } from 'rxjs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { brokerCommand } from '../../src/commands/broker.js'
import { cmdLine, findTool, nodeHost } from '../../src/connections/rabbitmqctl.js'
import type { Host, RunOptions, Said } from '../../src/connections/rabbitmqctl.js'

/** What cmd.exe and a program make of a command line, written from their own rules. */
const windows = {
  /** Percent expansion as on a command line (not in a batch file): `%%` is no escape, an unknown variable stays. */
  expand(line: string, env: Readonly<Record<string, string>>): string {
    let out = ''
    for (let at = 0; at < line.length; ) {
      const match = line[at] === '%' ? /^%([^%:]*)(:~[^%]*)?%/.exec(line.slice(at)) : null
      const value = match ? env[(match[1] ?? '').toUpperCase()] : undefined
      if (match && value !== undefined) {
        const [, start = '', length = ''] = /^:~(-?\d*),?(-?\d*)$/.exec(match[2] ?? '') ?? []
        const whole = match[2] === undefined
        // `:~,` has an empty length, which is zero.
        out += whole ? value : value.slice(Number(start), Number(start) + Number(length))
        at += match[0].length
      } else out += line[at++] ?? ''
    }
    return out
  },
  /** The second phase: quotes toggle, carets escape outside them, and an operator ends the command. */
  read(line: string): { text: string; injected: boolean } {
    let text = ''
    let quoted = false
    for (let at = 0; at < line.length; at++) {
      const char = line[at] ?? ''
      if (char === '"') quoted = !quoted
      else if (!quoted && char === '^') {
        text += line[++at] ?? ''
        continue
      } else if (!quoted && /[&|<>\n]/.test(char)) return { text, injected: true }
      text += char
    }
    return { text, injected: false }
  },
  /** `cmd /s /c "…"`, then `set STAR=%*` in the batch file, as RabbitMQ's own scripts have it. */
  batch(argument: string, env: Readonly<Record<string, string>>): { file: string; star: string } {
    expect(argument.startsWith('"') && argument.endsWith('"')).toBe(true)
    const first = windows.read(windows.expand(argument.slice(1, -1), env))
    expect(first.injected).toBe(false)
    const [, quotedFile, bareFile, rest = ''] = /^(?:"([^"]*)"|([^\s"/,;=]+))(?:[\s,;=]+(.*))?$/s.exec(first.text) ?? []
    const second = windows.read(`set STAR=${rest}`)
    expect(second.injected).toBe(false)
    return { file: quotedFile ?? bareFile ?? '', star: second.text.slice('set STAR='.length) }
  },
  /** CommandLineToArgvW (`three`), and the C runtime since 2008, which differ about `""`. */
  argv(line: string, rules: 'CommandLineToArgvW' | 'runtime'): readonly string[] {
    const words: string[] = []
    let word: string | undefined
    let quoted = false
    for (let at = 0; at < line.length; at++) {
      const slashes = /^\\*/.exec(line.slice(at))?.[0].length ?? 0
      if (slashes > 0 && line[at + slashes] === '"') {
        word = (word ?? '') + '\\'.repeat(Math.floor(slashes / 2))
        at += slashes
        if (slashes % 2 === 1) {
          word += '"'
          continue
        }
      }
      const char = line[at] ?? ''
      if (char === '"') {
        word ??= ''
        if (quoted && line[at + 1] === '"') {
          word += '"'
          at++
          quoted = rules === 'runtime'
        } else quoted = !quoted
      } else if (/[ \t]/.test(char) && !quoted) {
        if (word !== undefined) words.push(word)
        word = undefined
      } else word = (word ?? '') + char
    }
    return word === undefined ? words : [...words, word]
  },
}

const shellEnv = { PATH: 'C:\\secret', CD: 'C:\\here', USERNAME: 'x & calc', '': 'never' }
const arrives = (file: string, args: readonly string[]): void => {
  const { file: ran, star } = windows.batch(`"${cmdLine([file, ...args])}"`, { PATH: shellEnv.PATH, CD: shellEnv.CD, USERNAME: shellEnv.USERNAME })
  expect(ran).toBe(file)
  expect(windows.argv(star, 'runtime')).toEqual(args)
  expect(windows.argv(star, 'CommandLineToArgvW')).toEqual(args)
}

const sbin = (version: string): string => `C:\\Program Files\\RabbitMQ Server\\rabbitmq_server-${version}\\sbin`
const windowsTool = `${sbin('4.1.2')}\\rabbitmqctl.bat`

describe('a command line for cmd.exe', () => {
  it.each([
    'plain', 'two words', 'a&calc', '%PATH%', '%', '%%', '100%', '%cd%', '%cd:~,%', 'say "hi"', '"', '""', '"&calc', '" & calc & "',
    'a^b', '^', 'wow!', '!PATH!', '', ' ', 'back\\', 'back\\"', 'two words\\', 'a|b<c>d', '(x)', '"%USERNAME%"', "it's", 'ü € 水',
  ])('gives a program the word «%s» unchanged, and runs nothing else', (word) => {
    arrives(windowsTool, ['purge_queue', word])
    arrives(windowsTool, ['-n', word, 'last one'])
  })

  it('holds for any words made of what cmd.exe and programs treat specially', () => {
    const nasty = fc.string({ unit: fc.constantFrom('"', '\\', '%', '^', '&', '|', '<', '>', '!', ' ', '(', ')', 'a', 'PATH', 'cd', ':~,', ','), maxLength: 12 })
    fc.assert(fc.property(fc.array(nasty, { maxLength: 5 }), (words) => arrives(windowsTool, words)), { numRuns: 3_000 })
  })

  it('holds for a folder with an ampersand, a percent sign and brackets in its name', () => {
    arrives('C:\\R&D (x86)\\100%PATH%\\sbin\\rabbitmqctl.bat', ['status'])
  })

  it('is judged by rules that do see a wrong quoting', () => {
    expect(() => windows.batch(`""${windowsTool}" purge_queue a&calc"`, {})).toThrow()
    expect(() => windows.batch(`""${windowsTool}" "a\\"&calc""`, {})).toThrow()
    expect(windows.batch(`"x.bat "%PATH%""`, { PATH: 'C:\\secret' }).star).toBe('"C:\\secret"')
  })
})

interface Reply { readonly exit: number; readonly lines?: readonly string[] }
interface Call { readonly file: string; readonly args: readonly string[]; readonly options: RunOptions }

/** A machine with a scripted RabbitMQ: `reply` sees the words after the tool's own name. */
const fakeHost = (parts: Partial<Host> & { files?: readonly string[]; answer?: string; reply?: (words: string) => Reply }) => {
  const { files = ['/usr/bin/rabbitmqctl', '/usr/bin/rabbitmq-server'], answer = '', reply = (): Reply => ({ exit: 0 }), ...rest } = parts
  const calls: Call[] = []
  const out: string[] = []
  const err: string[] = []
  const asked: string[] = []
  const host: Host = {
    platform: 'linux',
    env: { PATH: '/bin:/usr/bin' },
    isTerminal: false,
    exists: (path) => files.includes(path),
    list: () => [],
    run: (file, args, options = {}): Observable<Said> => {
      calls.push({ file, args, options })
      const { exit, lines = [] } = reply([file.split('/').at(-1), ...args].join(' '))
      return from([...lines.map((line): Said => ({ from: 'stdout', line })), { exit }])
    },
    ask: (question) => {
      asked.push(question)
      return of(answer)
    },
    out: (line) => out.push(line),
    err: (line) => err.push(line),
    ...rest,
  }
  const ran = (): readonly string[] => calls.map(({ file, args }) => [file.split('/').at(-1), ...args].join(' '))
  return { host, calls, out, err, asked, ran }
}

const broker = async (host: Host, ...args: readonly string[]): Promise<readonly number[]> => {
  const codes: number[] = []
  const scheduler = new VirtualTimeScheduler()
  const ended = brokerCommand({ host, exit: (code) => codes.push(code), scheduler }).parseAsync([...args], { from: 'user' }).catch(() => undefined)
  scheduler.flush()
  await ended
  return codes
}

const nodeDown: Reply = { exit: 69, lines: ["Error: unable to perform an operation on node 'rabbit@here'. Please see below.", '', ' * Erlang cookie hash: x=='] }
const appDown: Reply = { exit: 64, lines: ["Error: this command requires the 'rabbit' app to be running on the target node. Start it with 'rabbitmqctl start_app'.", 'Usage'] }

/** A node with real states, so that a verb is judged by where it leads. */
const rabbit = (state: 'running' | 'app-stopped' | 'node-stopped', more: { bootPolls?: number; diesAtBoot?: boolean } = {}) => {
  const node = { state, polls: 0, booting: false }
  const reply = (words: string): Reply => {
    if (words.startsWith('rabbitmq-server')) {
      node.booting = true
      return { exit: 0 }
    }
    if (words.includes('await_startup')) {
      if (!node.booting) return node.state === 'running' ? { exit: 0 } : nodeDown
      node.polls += 1
      if (node.polls <= (more.bootPolls ?? 0)) return nodeDown
      if (more.diesAtBoot) {
        node.booting = false
        return { exit: 69, lines: ['Error:', 'rabbit_is_not_running'] }
      }
      node.state = 'running'
      return { exit: 0 }
    }
    if (node.state === 'node-stopped') return words.includes('ping') ? { exit: 69, lines: ['Error:', 'Failed to connect'] } : nodeDown
    if (words.includes('ping')) return { exit: 0 }
    if (words.endsWith('stop_app')) node.state = 'app-stopped'
    else if (words.endsWith('start_app')) node.state = 'running'
    else if (words.endsWith(' stop')) node.state = 'node-stopped'
    else if (words.endsWith(' reset')) return node.state === 'app-stopped' ? { exit: 0 } : { exit: 64, lines: ['Error: must be stopped'] }
    else if (node.state === 'app-stopped') return appDown
    else if (words.includes('list_queues')) {
      return { exit: 0, lines: ['[', '{"name":"publicQueue","messages":7,"messages_ready":5}', ']'] }
    } else if (words.includes('--formatter json status')) return { exit: 0, lines: ['{"rabbitmq_version":"4.1.2"}'] }
    return { exit: 0, lines: ['fine'] }
  }
  return { node, reply }
}

describe('finding the tools', () => {
  it('takes the newest version under Program Files, by number', () => {
    const versions = ['rabbitmq_server-3.13.7', 'rabbitmq_server-4.9.1', 'rabbitmq_server-4.10.0-rc.1', 'rabbitmq_server-4.10.0', 'db', 'rabbitmq_server-4.9.12']
    const { host } = fakeHost({ platform: 'win32', env: { ProgramFiles: 'C:\\Program Files' }, list: () => versions, exists: () => true })
    expect(findTool(host, 'rabbitmqctl')).toBe(`${sbin('4.10.0')}\\rabbitmqctl.bat`)
    expect(findTool({ ...host, exists: (path) => path.includes('4.9.') }, 'rabbitmq-server')).toBe(`${sbin('4.9.12')}\\rabbitmq-server.bat`)
  })

  it('prefers RABBITMQ_SBIN, then RABBITMQ_HOME, to what is installed, and takes the Path last', () => {
    const env = { rabbitmq_sbin: 'D:\\one', RABBITMQ_HOME: 'D:\\two', Path: 'C:\\Windows;D:\\three' }
    const { host } = fakeHost({ platform: 'win32', env, list: () => ['rabbitmq_server-4.1.2'], exists: () => true })
    const without = (...gone: string[]): string | undefined =>
      findTool({ ...host, exists: (path) => !gone.some((part) => path.startsWith(part)) }, 'rabbitmqctl')
    expect(without()).toBe('D:\\one\\rabbitmqctl.bat')
    expect(without('D:\\one')).toBe('D:\\two\\sbin\\rabbitmqctl.bat')
    expect(without('D:\\one', 'D:\\two')).toBe(windowsTool)
    expect(without('D:\\one', 'D:\\two', 'C:\\')).toBe('D:\\three\\rabbitmqctl.bat')
  })

  it('on Linux takes the PATH, then /usr/sbin, then /usr/lib/rabbitmq/bin', () => {
    const at = (...files: string[]): string | undefined => findTool(fakeHost({ files }).host, 'rabbitmqctl')
    expect(at('/usr/sbin/rabbitmqctl', '/usr/bin/rabbitmqctl')).toBe('/usr/bin/rabbitmqctl')
    expect(at('/usr/lib/rabbitmq/bin/rabbitmqctl', '/usr/sbin/rabbitmqctl')).toBe('/usr/sbin/rabbitmqctl')
    expect(at('/usr/lib/rabbitmq/bin/rabbitmqctl')).toBe('/usr/lib/rabbitmq/bin/rabbitmqctl')
    expect(at()).toBeUndefined()
  })

  it('ends with 69 and how to install them when there are none', async () => {
    const { host, err, ran } = fakeHost({ files: [] })
    expect(await broker(host, 'status')).toEqual([69])
    expect(err.join('\n')).toMatch(/Debian.*\n.*macOS.*\n.*Windows/)
    expect(ran()).toEqual([])
  })
})

describe('the broker commands', () => {
  it.each([
    ['running', 0, /is running/], ['app-stopped', 3, /node runs, but RabbitMQ in it is stopped/], ['node-stopped', 3, /node is not running/],
  ] as const)('status of a node that is %s ends with %i and says so', async (state, code, says) => {
    const { host, out, err } = fakeHost({ reply: rabbit(state).reply })
    expect(await broker(host, 'status')).toEqual([code])
    expect([...out, ...err].join('\n')).toMatch(says)
    expect(out[0]).toBe('$ rabbitmqctl status')
  })

  it('status --json prints one JSON line in every state, and nothing else, on stdout', async () => {
    for (const [state, code] of [['running', 0], ['app-stopped', 3], ['node-stopped', 3]] as const) {
      const { host, out } = fakeHost({ reply: rabbit(state).reply })
      expect(await broker(host, 'status', '--json')).toEqual([code])
      expect(out.map((line) => JSON.parse(line) as unknown)).toEqual([
        { running: state === 'running', state, ...(state === 'running' ? { status: { rabbitmq_version: '4.1.2' } } : {}) },
      ])
    }
  })

  it('an unreadable cookie is a failure, not a node that is down', async () => {
    const lines = ["Error: unable to perform an operation on node 'a@b'.", ' * TCP connection succeeded but Erlang distribution failed ']
    expect(await broker(fakeHost({ reply: () => ({ exit: 69, lines }) }).host, 'status')).toEqual([1])
    const { host, ran } = fakeHost({ reply: () => ({ exit: 69, lines }) })
    expect(await broker(host, 'start')).toEqual([1])
    expect(ran()).toEqual(['rabbitmqctl status'])
  })

  it('start starts a node that is down, waits until it is known and up, and tells how long it waits', async () => {
    const { node, reply } = rabbit('node-stopped', { bootPolls: 9 })
    const { host, ran, err, out, calls } = fakeHost({ reply })
    expect(await broker(host, 'start')).toEqual([0])
    expect(node.state).toBe('running')
    expect(ran().slice(0, 3)).toEqual(['rabbitmqctl status', 'rabbitmq-server -detached', 'rabbitmqctl await_startup --timeout 120'])
    expect(calls[1]?.options.leavesServer).toBe(true)
    expect(err).toContain('waiting for RabbitMQ to start: 4 s')
    expect(out.filter((line) => line.includes('await_startup'))).toHaveLength(1)
  })

  it('start gives up at --wait, with the folder of the log', async () => {
    const { host, err } = fakeHost({ reply: rabbit('node-stopped', { bootPolls: 999 }).reply, env: { PATH: '/usr/bin', RABBITMQ_LOG_BASE: '/var/l' } })
    expect(await broker(host, 'start', '--wait', '5')).toEqual([1])
    expect(err.at(-1)).toBe('Gave up waiting for RabbitMQ to start after 5 s; its log is in /var/l.')
  })

  it('start does not wait on for a node that came up and ended again', async () => {
    const { host, ran, err } = fakeHost({ reply: rabbit('node-stopped', { bootPolls: 1, diesAtBoot: true }).reply })
    expect(await broker(host, 'start')).toEqual([1])
    expect(err.at(-1)).toMatch(/came up and ended again/)
    expect(ran().length).toBeLessThan(7)
  })

  it('start starts only the application when the node runs, and nothing when all runs', async () => {
    const app = fakeHost({ reply: rabbit('app-stopped').reply })
    expect(await broker(app.host, 'start')).toEqual([0])
    expect(app.ran()).toEqual(['rabbitmqctl status', 'rabbitmqctl start_app', 'rabbitmqctl await_startup --timeout 120'])
    const all = fakeHost({ reply: rabbit('running').reply })
    expect(await broker(all.host, 'start')).toEqual([0])
    expect(all.ran()).toEqual(['rabbitmqctl status'])
  })

  it('restart ends the node, waits for its end, and starts it; one that is down is just started', async () => {
    const { node, reply } = rabbit('running')
    let pings = 0
    const slow = fakeHost({ reply: (words) => (words.endsWith('ping') && ++pings < 4 ? { exit: 0 } : reply(words)) })
    expect(await broker(slow.host, 'restart')).toEqual([0])
    expect(slow.ran()).toEqual([
      'rabbitmqctl status', 'rabbitmqctl stop', ...Array<string>(4).fill('rabbitmqctl ping'),
      'rabbitmq-server -detached', 'rabbitmqctl await_startup --timeout 120',
    ])
    expect(node.state).toBe('running')
    const down = fakeHost({ reply: rabbit('node-stopped').reply })
    expect(await broker(down.host, 'restart')).toEqual([0])
    expect(down.ran()).not.toContain('rabbitmqctl stop')
  })

  it.each(['stop', 'start-app', 'stop-app', 'list-queues', 'reset --yes', 'purge-queue --yes q'])(
    '%s on a node that is down ends with 3', async (line) => {
      expect(await broker(fakeHost({ reply: rabbit('node-stopped').reply }).host, ...line.split(' '))).toEqual([3])
    })

  it.each(['reset', 'purge-queue publicQueue'])('%s without a terminal and without --yes ends with 2 and runs nothing', async (line) => {
    const { host, ran, asked } = fakeHost({ reply: rabbit('running').reply, answer: 'yes' })
    expect(await broker(host, ...line.split(' '))).toEqual([2])
    expect([ran(), asked]).toEqual([[], []])
  })

  it('reset asks, and anything but yes changes nothing', async () => {
    for (const answer of ['', 'y', 'no']) {
      const { host, ran, asked } = fakeHost({ reply: rabbit('running').reply, isTerminal: true, answer })
      expect(await broker(host, 'reset')).toEqual([2])
      expect(ran()).toEqual([])
      expect(asked).toHaveLength(1)
    }
    const { host, ran } = fakeHost({ reply: rabbit('running').reply, isTerminal: true, answer: 'yes' })
    expect(await broker(host, 'reset')).toEqual([0])
    expect(ran()).toEqual(['rabbitmqctl stop_app', 'rabbitmqctl reset', 'rabbitmqctl start_app'])
  })

  it('a reset that fails still starts the application again', async () => {
    const { node, reply } = rabbit('running')
    const { host, err } = fakeHost({ reply: (words) => (words.endsWith(' reset') ? { exit: 70, lines: ['Error:', 'disk on fire'] } : reply(words)) })
    expect(await broker(host, 'reset', '--yes')).toEqual([1])
    expect(node.state).toBe('running')
    expect(err.at(-1)).toBe('disk on fire')
  })

  it('purge-queue tells what it would destroy before it asks', async () => {
    const { host, out, asked, ran } = fakeHost({ reply: rabbit('running').reply, isTerminal: true, answer: 'no' })
    expect(await broker(host, 'purge-queue', 'publicQueue')).toEqual([2])
    expect(out.at(-1)).toBe("'publicQueue' holds 7 messages, of which 2 are out with consumers and stay.")
    expect(asked[0]).toContain('destroys 5 of them')
    expect(ran().some((line) => line.includes('purge_queue'))).toBe(false)
    const done = fakeHost({ reply: rabbit('running').reply })
    expect(await broker(done.host, 'purge-queue', 'publicQueue', '--yes', '--vhost', 'v 1')).toEqual([0])
    expect(done.calls.at(-1)?.args).toEqual(['purge_queue', '-p', 'v 1', 'publicQueue'])
    expect(done.out).toContain("$ rabbitmqctl purge_queue -p 'v 1' publicQueue")
  })

  it('purge-queue of an unknown queue ends with 1', async () => {
    const { host, err } = fakeHost({ reply: rabbit('running').reply })
    expect(await broker(host, 'purge-queue', 'nowhere', '--yes')).toEqual([1])
    expect(err.at(-1)).toBe("There is no queue 'nowhere' in vhost '/'.")
  })

  it.each(['$(reboot)', '`reboot`', 'a\\', 'a\nb'])('a queue name that a wrapper script would run is refused: %j', async (name) => {
    const { host, ran } = fakeHost({ reply: rabbit('running').reply })
    expect(await broker(host, 'purge-queue', '--yes', name)).toEqual([2])
    expect(ran()).toEqual([])
  })

  it('list-queues --json prints the list alone', async () => {
    const { host, out } = fakeHost({ reply: rabbit('running').reply })
    expect(await broker(host, 'list-queues', '--json')).toEqual([0])
    expect(out.map((line) => JSON.parse(line) as unknown)).toEqual([[{ name: 'publicQueue', messages: 7, messages_ready: 5 }]])
  })

  it('--node reaches rabbitmqctl as -n, and a new node by its environment', async () => {
    const { host, out, calls } = fakeHost({ reply: rabbit('node-stopped').reply })
    expect(await broker(host, 'start', '--node', 'edge@box')).toEqual([0])
    expect(out).toContain('$ RABBITMQ_NODENAME=edge@box rabbitmq-server -detached')
    expect(calls[0]?.args).toEqual(['-n', 'edge@box', 'status'])
    expect(calls[1]?.options.env).toEqual({ RABBITMQ_NODENAME: 'edge@box' })
  })

  it.each(['status', 'start', 'stop', 'start-app', 'stop-app', 'restart', 'reset', 'list-queues', 'purge-queue q', 'status --json', 'list-queues --json'])(
    '%s --dry-run prints command lines and runs none', async (line) => {
      const { host, out, ran } = fakeHost({ reply: rabbit('running').reply })
      expect(await broker(host, ...line.split(' '), '--dry-run')).toEqual([0])
      expect(ran()).toEqual([])
      expect(out.length).toBeGreaterThan(0)
      expect(out.every((each) => each.startsWith('$ rabbitmq'))).toBe(true)
    })

  it.each(['status --what', 'purge-queue', 'nonsense', 'start --wait soon', 'status --node $(x)'])('wrong use ends with 2: %s', async (line) => {
    expect(await broker(fakeHost({}).host, ...line.split(' '))).toEqual([2])
  })

  it('a tool that cannot be run ends with 1 and the reason', async () => {
    const { host, err } = fakeHost({ run: () => throwError(() => new Error('spawn EACCES')) })
    expect(await broker(host, 'stop-app')).toEqual([1])
    expect(err.at(-1)).toBe('spawn EACCES')
  })

  it('on Windows the batch files run through cmd.exe, with a queue name of any kind', async () => {
    for (const name of ['a b', 'R&D', '%PATH%', 'say "hi" & calc', 'a^b', 'wow!', '$(x)', 'back\\']) {
      const listed = JSON.stringify([{ name, messages: 1, messages_ready: 1 }])
      const { host, calls } = fakeHost({
        platform: 'win32', env: { ComSpec: 'C:\\Windows\\system32\\cmd.exe' }, list: () => ['rabbitmq_server-4.1.2'],
        files: [windowsTool], reply: (words) => ({ exit: 0, lines: words.includes('list_queues') ? [listed] : [] }),
      })
      expect(await broker(host, 'purge-queue', '--yes', name)).toEqual([0])
      const last = calls.at(-1)
      expect([last?.file, last?.options.verbatim]).toEqual(['C:\\Windows\\system32\\cmd.exe', true])
      expect(last?.args.slice(0, -1)).toEqual(['/e:on', '/v:off', '/d', '/s', '/c'])
      const { file, star } = windows.batch(last?.args.at(-1) ?? '', { PATH: 'C:\\secret', CD: 'C:\\here' })
      expect(file).toBe(windowsTool)
      expect(windows.argv(star, 'runtime')).toEqual(['purge_queue', '-p', '/', name])
    }
  })
})

describe('the real host', () => {
  let folder = ''
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'backhaul-ctl-'))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  const stub = (name: string, script: string): void => {
    writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(folder, name), 0o755)
  }
  const real = (input = ''): { host: Host; text: () => string } => {
    const stdout = new PassThrough()
    const stdin = Object.assign(new PassThrough(), { isTTY: true })
    stdin.end(input)
    const chunks: string[] = []
    stdout.on('data', (chunk: Buffer) => chunks.push(chunk.toString()))
    const env = { PATH: `${folder}:/usr/bin:/bin`, FOLDER: folder }
    return { host: nodeHost({ platform: 'linux', env, stdin, stdout, stderr: stdout }), text: () => chunks.join('') }
  }
  const run = async (host: Host, ...args: readonly string[]): Promise<readonly number[]> => {
    const codes: number[] = []
    await brokerCommand({ host, exit: (code) => codes.push(code), scheduler: asapScheduler }).parseAsync([...args], { from: 'user' })
    return codes
  }

  it('passes each word on as one argument, and gives lines and exit codes back', async () => {
    stub('rabbitmqctl', 'for word in "$@"; do echo "[$word]" >>"$FOLDER/args"; done; echo out; echo "Error: no such luck" >&2; exit 7')
    const { host, text } = real()
    expect(await run(host, 'list-queues', '--vhost', 'a b\'c"*')).toEqual([1])
    expect(readFileSync(join(folder, 'args'), 'utf8').split('\n')).toContain('[a b\'c"*]')
    expect(text()).toContain('\nout\n')
    expect(text().trimEnd().endsWith('Error: no such luck')).toBe(true)
  })

  it('does not wait for a server that holds the output of the script that started it', async () => {
    stub('rabbitmqctl', 'case "$1" in status) [ -f "$FOLDER/up" ] || { echo "Error: unable to perform an operation on node x"; exit 69; };; esac')
    stub('rabbitmq-server', 'touch "$FOLDER/up"; sleep 30 & echo $! >"$FOLDER/pid"')
    const began = performance.now()
    expect(await run(real().host, 'start')).toEqual([0])
    process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')))
    expect(performance.now() - began).toBeLessThan(10_000)
  })

  it.each([['yes\n', 0], ['nope\n', 2], ['', 2]] as const)('asks on the terminal; %j ends with %i', async (input, code) => {
    stub('rabbitmqctl', 'exit 0')
    const { host, text } = real(input)
    expect(await run(host, 'reset')).toEqual([code])
    expect(text()).toContain('Type yes:')
  })
})
