import { connect as amqpConnect } from 'amqplib'
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { brokerCommand } from '../../src/commands/broker.js'
import { findTool, nodeHost } from '../../src/connections/rabbitmqctl.js'

const required = process.env['CI'] !== undefined || process.env['BACKHAUL_TEST_REQUIRE_BROKERS'] !== undefined
const installed = findTool(nodeHost(process), 'rabbitmq-server') !== undefined
if (!installed && !required) console.warn('skipped: install rabbitmq-server to test the broker commands on a real node')

/** Below the ports that outgoing connections take, so that none takes it in between. */
const freePort = async (): Promise<number> => {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer().once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    })
    if (free) return port
  }
}

const listens = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })

describe.skipIf(!installed && !required)('the broker commands on a node of their own', () => {
  const folder = mkdtempSync(join(tmpdir(), 'backhaul-broker-'))
  const node = `backhaul-commands-${process.pid}@localhost`
  let env: Record<string, string | undefined> = {}
  let port = 0

  beforeAll(async () => {
    expect(installed, 'rabbitmq-server is needed: apt-get install rabbitmq-server').toBe(true)
    port = await freePort()
    for (const part of ['', 'data', 'log']) {
      mkdirSync(join(folder, part), { recursive: true })
      // Started by root, Debian's script runs the node as the user rabbitmq.
      chmodSync(join(folder, part), 0o777)
    }
    env = {
      ...process.env,
      RABBITMQ_NODENAME: node,
      RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
      RABBITMQ_NODE_PORT: `${port}`,
      RABBITMQ_DIST_PORT: `${await freePort()}`,
      RABBITMQ_MNESIA_BASE: join(folder, 'data'),
      RABBITMQ_LOG_BASE: join(folder, 'log'),
      RABBITMQ_PID_FILE: join(folder, 'pid'),
      RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'plugins'),
    }
  })

  /** Asked without the code under test: whether the Erlang node answers. */
  const nodeRuns = (): boolean => spawnSync('rabbitmqctl', ['-n', node, 'ping'], { env }).status === 0

  afterAll(() => {
    if (nodeRuns()) execFileSync('rabbitmqctl', ['-n', node, 'stop', join(folder, 'pid')], { env })
    rmSync(folder, { recursive: true, force: true })
  })

  const broker = async (...args: readonly string[]): Promise<{ code: number | undefined; out: readonly string[]; err: readonly string[] }> => {
    const out: string[] = []
    const err: string[] = []
    let code: number | undefined
    const host = {
      ...nodeHost({ ...process, platform: process.platform, env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr }),
      isTerminal: false,
      out: (line: string) => void out.push(line),
      err: (line: string) => void err.push(line),
    }
    await brokerCommand({ host, exit: (each) => (code = each) }).parseAsync([...args], { from: 'user' })
    return { code, out, err }
  }
  const pid = (): number => Number(execFileSync('rabbitmqctl', ['-q', '-n', node, 'eval', 'list_to_integer(os:getpid()).'], { env }).toString())

  const withChannel = async <T>(work: (channel: Awaited<ReturnType<Awaited<ReturnType<typeof amqpConnect>>['createConfirmChannel']>>) => Promise<T>): Promise<T> => {
    const connection = await amqpConnect(`amqp://127.0.0.1:${port}`)
    const channel = await connection.createConfirmChannel()
    const result = await work(channel)
    await connection.close()
    return result
  }
  const fill = (queue: string, messages: number): Promise<void> =>
    withChannel(async (channel) => {
      await channel.assertQueue(queue, { durable: true })
      for (let index = 0; index < messages; index++) channel.sendToQueue(queue, Buffer.from('{}'), { persistent: true })
      await channel.waitForConfirms()
    })
  const depth = (queue: string): Promise<number> => withChannel(async (channel) => (await channel.checkQueue(queue)).messageCount)

  it('a node that was never started is told apart, and every verb but start says 3', async () => {
    expect(nodeRuns()).toBe(false)
    const { code, err } = await broker('status')
    expect([code, err.at(-1)]).toEqual([3, 'The Erlang node is not running: `backhaul broker start` starts it.'])
    expect((await broker('stop')).code).toBe(3)
    expect((await broker('list-queues')).code).toBe(3)
    expect(JSON.parse((await broker('status', '--json')).out.join('\n'))).toEqual({ running: false, state: 'node-stopped' })
  })

  it('--dry-run starts nothing', async () => {
    expect((await broker('start', '--dry-run')).code).toBe(0)
    expect(nodeRuns()).toBe(false)
    expect(existsSync(join(folder, 'data', node))).toBe(false)
  })

  it('start starts the node and returns when it takes connections; again, it changes nothing', async () => {
    const { code, out } = await broker('start', '--wait', '60')
    expect([code, out.at(-1)]).toEqual([0, 'RabbitMQ is running.'])
    expect(out).toContain('$ rabbitmq-server -detached')
    expect(await listens(port)).toBe(true)
    const first = pid()
    expect((await broker('start')).code).toBe(0)
    expect(pid()).toBe(first)
  })

  it('status tells that it runs, and as JSON gives what rabbitmqctl knows', async () => {
    const { code, out } = await broker('status', '--node', node)
    expect(code).toBe(0)
    expect(out[0]).toBe(`$ rabbitmqctl -n ${node} status`)
    const json = JSON.parse((await broker('status', '--json')).out.join('\n')) as { running: boolean; status: { rabbitmq_version: string } }
    expect(json.running).toBe(true)
    expect(json.status.rabbitmq_version).toMatch(/^\d+\.\d+/)
  })

  it('list-queues and purge-queue act on the queue of exactly that name', async () => {
    for (const name of ['publicQueue', 'a "b" & %PATH%^! \'c\'', '--all']) {
      await fill(name, 7)
      expect((await broker('purge-queue', '--', name)).code).toBe(2)
      expect(await depth(name)).toBe(7)
      const listed = JSON.parse((await broker('list-queues', '--json')).out.join('\n')) as readonly { name: string; messages: number }[]
      expect(listed.find((queue) => queue.name === name)?.messages).toBe(7)
      const { code, out } = await broker('purge-queue', '--yes', '--', name)
      expect(code).toBe(0)
      expect(out).toContain(`'${name}' holds 7 messages.`)
      expect(await depth(name)).toBe(0)
    }
    expect((await broker('purge-queue', '--yes', 'nowhere')).code).toBe(1)
  })

  it('stop-app leaves the node running without RabbitMQ, and start-app and start bring it back', async () => {
    for (const up of ['start-app', 'start']) {
      const before = pid()
      expect((await broker('stop-app')).code).toBe(0)
      expect([nodeRuns(), await listens(port)]).toEqual([true, false])
      expect(await broker('status')).toMatchObject({ code: 3, err: expect.arrayContaining([expect.stringContaining('The Erlang node runs')]) as unknown })
      expect((await broker('list-queues')).code).toBe(3)
      expect((await broker(up)).code).toBe(0)
      expect([pid(), await listens(port)]).toEqual([before, true])
    }
  })

  it('restart is another process with the same messages', async () => {
    await fill('publicQueue', 5)
    const before = pid()
    const { code, out } = await broker('restart', '--wait', '60')
    expect([code, out.at(-1)]).toEqual([0, 'RabbitMQ is running.'])
    expect(pid()).not.toBe(before)
    expect(await depth('publicQueue')).toBe(5)
  })

  it('reset refuses without --yes, and with it destroys every queue', async () => {
    expect((await broker('reset')).code).toBe(2)
    expect(await depth('publicQueue')).toBe(5)
    expect((await broker('reset', '--yes')).code).toBe(0)
    expect(JSON.parse((await broker('list-queues', '--json')).out.join('\n'))).toEqual([])
    expect(await listens(port)).toBe(true)
  })

  it('stop returns when the node has ended', async () => {
    expect((await broker('stop')).code).toBe(0)
    expect([nodeRuns(), await listens(port)]).toEqual([false, false])
    expect((await broker('status')).code).toBe(3)
  })

  it('start tells at once that a node could not come up, and where its log is', async () => {
    const blocker = createServer()
    await new Promise<void>((resolve) => blocker.listen(port, '127.0.0.1', resolve))
    const began = performance.now()
    const { code, err } = await broker('start', '--wait', '60')
    await new Promise((resolve) => blocker.close(resolve))
    expect(code).toBe(1)
    expect(err.at(-1)).toContain(join(folder, 'log'))
    expect(performance.now() - began).toBeLessThan(45_000)
  })
})
