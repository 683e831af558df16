/** The commands as a user runs them, against a daemon with the embedded queue. */
import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createPublisher } from '../../src/pipelines/publisher.js'
import { booksOf, eventually, mainFile, startDaemon, temporaryFolder } from '../wire/daemon-process.js'
import type { Daemon } from '../wire/daemon-process.js'

const run = (args: readonly string[], { env = {}, input = '' }: { env?: Record<string, string>; input?: string } = {}) =>
  new Promise<{ code: number | null; out: string; err: string; ms: number }>((resolve) => {
    const began = performance.now()
    const child = spawn(process.execPath, [mainFile, ...args], { env: { PATH: process.env['PATH'], BACKHAUL_DEVICE_ID: 'test-device', ...env } })
    let out = ''
    let err = ''
    child.stdout.on('data', (data: Buffer) => (out += data.toString()))
    child.stderr.on('data', (data: Buffer) => (err += data.toString()))
    child.stdin.on('error', () => undefined)
    child.stdin.end(input)
    child.on('close', (code) => resolve({ code, out, err, ms: performance.now() - began }))
  })
const topicLog = (daemon: Daemon) =>
  readFileSync(join(daemon.folder, 'topic-log.ndjson'), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as { id: string; payload: string; properties: Record<string, string> })

describe('commands, beside a daemon', () => {
  let daemon: Daemon
  let env: Record<string, string>
  beforeEach(async () => {
    daemon = await startDaemon({ BACKHAUL_HTTP_TOKEN: 'tok' })
    env = { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_HTTP_TOKEN: 'tok', BACKHAUL_DATA_DIR: daemon.folder }
  })
  afterEach(async () => {
    daemon.signal('SIGKILL')
    await daemon.ended
  })

  it('publish sends lines, an array and an object, and says how many are durable; tail shows them', async () => {
    expect(await run(['publish'], { env, input: '{"n":1}\n\n{"n":2}\n' })).toMatchObject({ code: 0, out: '2 durable\n' })
    const file = join(temporaryFolder('publish'), 'records.json')
    writeFileSync(file, '[\n {"n": 3},\n {"n": 4}\n]')
    expect(await run(['publish', file], { env })).toMatchObject({ code: 0, out: '2 durable\n' })
    expect(await run(['publish', '-'], { env, input: '{\n "n": 5\n}' })).toMatchObject({ code: 0, out: '1 durable\n' })
    const tail = await run(['tail', '--count', '5'], { env })
    expect(tail.code).toBe(0)
    expect(tail.out.trim().split('\n').length).toBeGreaterThanOrEqual(5)
    await eventually('all in the log', () => topicLog(daemon).length === 5)
    expect(topicLog(daemon).map(({ payload }) => (JSON.parse(payload) as { n: number }).n)).toEqual([1, 2, 3, 4, 5])
  })
  it('publish tells which record was refused, and exits with 1', async () => {
    const { code, out, err } = await run(['publish'], { env, input: '{"n":1}\n{"DeviceID":1,"DeviceID":2}\n{"n":3}\n' })
    expect([code, out]).toEqual([1, '2 durable, 1 failed\n'])
    expect(err).toMatch(/record 2: .*BACKHAUL_REJECTED/)
  })
  it('publish takes arrays among lines, and each byte as it is, a line separator of Unicode included', async () => {
    const input = '{"n":1}\n[{"n":2}, {"n":3, "s":"\u2028ü"}]\n[]\n\n{"n":4}\n'
    expect(await run(['publish'], { env, input })).toMatchObject({ code: 0, out: '4 durable\n', err: '' })
    await eventually('all in the log', () => topicLog(daemon).length === 4)
    expect(topicLog(daemon).map(({ payload }) => payload.slice(0, payload.indexOf(',"Uploaded')))).toEqual(['{"n":1', '{"n":2', '{"n":3, "s":"\u2028ü"', '{"n":4'])
  })
  it('publish names the line that is no record, and what was not sent because of it', async () => {
    const half = await run(['publish'], { env, input: '{"n":1}\n\n{"n":\n{"n":3}\n' })
    expect(half).toMatchObject({ code: 1, out: '2 durable, 1 failed\n', err: 'line 3: not JSON\n' })
    const mixed = await run(['publish'], { env, input: '{"n":1}\n[\n {"n":2},\n {"n":3}\n]\n{"n":4}\n' })
    expect(mixed).toMatchObject({ code: 1, out: '1 durable, 1 failed\n', err: 'line 2: an array over several lines can only be the whole file; nothing from here on was sent\n' })
    const other = await run(['publish'], { env, input: '\n[\n {"n":2}\n]\n{"n":4}\n' })
    expect(other).toMatchObject({ code: 1, out: '0 durable, 1 failed\n', err: 'line 2: not JSON: neither by itself nor with all that follows; nothing from here on was sent\n' })
    const log = join(temporaryFolder('log'), 'log.ndjson')
    writeFileSync(log, '{"id":"a","key":"k","properties":{},"payload":"{\\"n\\":5}"}\n{"id":"b","key')
    expect(await run(['publish', '--topic-log', log], { env })).toMatchObject({ code: 1, out: '1 durable, 1 failed\n', err: 'line 2: not a line of a topic log\n' })
  })
  it('publish --topic-log sends a local topic log on under the same ids', async () => {
    await run(['publish'], { env, input: '{"n":1}\n{"n":2}\n' })
    await eventually('two in the log', () => topicLog(daemon).length === 2)
    const other = await startDaemon({})
    const sent = await run(['publish', '--topic-log', join(daemon.folder, 'topic-log.ndjson'), '--to', other.url], { env: { BACKHAUL_DATA_DIR: other.folder } })
    expect(sent).toMatchObject({ code: 0, out: '2 durable\n' })
    await eventually('there', () => topicLog(other).length === 2)
    expect(topicLog(other)).toEqual(topicLog(daemon))
    expect(await other.stop()).toBe(0)
  })
  it('queues list tells depths; purge asks first, and does nothing where nobody can answer', async () => {
    const list = await run(['queues', 'list', '--json'], { env })
    expect(JSON.parse(list.out)).toEqual([{ queue: 'publicQueue', messages: 0 }, { queue: 'publicQueue.dead', messages: 0 }])
    expect(await run(['queues', 'purge', 'publicQueue'], { env })).toMatchObject({ code: 2, out: '' })
    expect(await run(['queues', 'purge', 'publicQueue', '--yes'], { env })).toMatchObject({ code: 0, out: '0 removed from publicQueue\n' })
    expect((await run(['queues', 'purge', 'other', '--yes'], { env })).code).toBe(1)
  })
  it('a second daemon on the folder exits with 75, and a publisher fails at once, both naming the holder', async () => {
    const second = await run(['run'], { env: { BACKHAUL_DATA_DIR: daemon.folder, BACKHAUL_HTTP_PORT: '0' } })
    expect(second.code).toBe(75)
    expect(second.err).toContain(`process ${daemon.pid}`)
    const { publish, close } = createPublisher({ to: daemon.folder })
    await expect(publish({ a: 1 })).rejects.toMatchObject({ code: 'BACKHAUL_FOLDER_IN_USE' })
    await close()
  })
  it('without the token it is refused', async () => {
    const { code, err } = await run(['queues', 'list'], { env: { ...env, BACKHAUL_HTTP_TOKEN: 'other' } })
    expect(code).toBe(1)
    expect(err).toMatch(/401/)
  })
})

describe('commands, without a daemon', () => {
  it('tail says that none runs, and exits with 69', async () => {
    const { code, err } = await run(['tail'], { env: { BACKHAUL_HTTP_PORT: '9' } })
    expect(code).toBe(69)
    expect(err).toContain("backhaul run")
  })
  it('check prints the settings with secrets masked, and names each wrong one with exit code 78, within 2 s', async () => {
    const good = await run(['check', '--http-port', '99'], { env: { BACKHAUL_AMQP_URL: 'amqp://u:hunter2@x', BACKHAUL_HTTP_TOKEN: 'hunter2', BACKHAUL_ODD: '1' } })
    expect(good.code).toBe(0)
    expect(good.out).toContain('httpPort: 99\n')
    expect(good.out + good.err).not.toContain('hunter2')
    expect(good.err).toContain('unknown variable BACKHAUL_ODD')
    const bad = await run(['run', '--http-port', 'hunter2', '--queue-type', 'odd'])
    expect([bad.code, bad.err.trim().split('\n')]).toEqual([78, ['queueType: expected one of auto, classic, quorum', 'httpPort: expected a whole number from 0 to 65535']])
    // A machine that takes that long to start the program at all says nothing about this.
    const { ms: bare } = await run(['--version'])
    expect(bad.ms).toBeLessThan(Math.max(2000, 3 * bare))
    expect((await run(['run', '--no-such-flag'])).code).toBe(78)
    expect((await run(['check', '--config', '/nonexistent.yaml'])).code).toBe(78)
  })
  it('pulsar:// without the native client says how to get it, with exit code 78', async () => {
    const { code, err } = await run(['run'], { env: { BACKHAUL_PULSAR_URL: 'pulsar://127.0.0.1:1', BACKHAUL_DATA_DIR: temporaryFolder('native'), BACKHAUL_HTTP_PORT: '0' } })
    if (err.includes('npm install pulsar-client')) expect(code).toBe(78)
    else expect(err).not.toContain('TypeError') // the native client is installed here
  })
  it('publish into a folder that a daemon then forwards, in order and nothing lost', async () => {
    const folder = temporaryFolder('folder')
    const { publish, close } = createPublisher({ to: folder, deviceId: 'test-device' })
    const ids = await Promise.all(Array.from({ length: 200 }, (_, n) => publish({ n })))
    await close()
    const daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
    await eventually('forwarded', async () => (await daemon.metric('backhaul_delivered_total')) === 200)
    expect(topicLog(daemon).map(({ id }) => id)).toEqual(ids)
    expect((await booksOf(daemon, 'publicQueue')).queued).toBe(0)
    expect(await daemon.stop()).toBe(0)
  })
  it('killed while it takes messages, the embedded daemon loses nothing that it accepted', async () => {
    const folder = temporaryFolder('killed')
    const accepted: string[] = []
    for (let round = 0; round < 3; round += 1) {
      const daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
      let going = true
      const client = async (n: number) => {
        for (let i = 0; going; i += 1) {
          const reply = await daemon.post(`{"c":${n},"i":${i}}`).catch(() => undefined)
          if (reply?.status === 202) accepted.push(reply.body.id as string)
        }
      }
      const clients = Promise.all([client(1), client(2), client(3)])
      const goal = accepted.length + 300
      await eventually('some', () => accepted.length > goal)
      daemon.signal('SIGKILL')
      going = false
      await daemon.ended
      await clients
    }
    const last = await startDaemon({ BACKHAUL_DATA_DIR: folder })
    await eventually('the rest is forwarded', async () => (await last.metric('backhaul_queued_messages', 'queue="publicQueue"')) === 0)
    const there = new Set(topicLog(last).map(({ id }) => id))
    expect(accepted.filter((id) => !there.has(id))).toEqual([])
    expect(await last.stop()).toBe(0)
  }, 60_000)
})
