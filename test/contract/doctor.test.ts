/** `backhaul doctor` as a user runs it, with the embedded queue. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { eventually, mainFile, startDaemon, temporaryFolder } from '../wire/daemon-process.js'

interface Finding {
  readonly what: string
  readonly verdict: string
  readonly detail: string
  readonly todo?: string
}

const run = (env: Record<string, string>, args: readonly string[] = []) =>
  new Promise<{ code: number | null; out: string; err: string }>((resolve) => {
    const child = spawn(process.execPath, [mainFile, 'doctor', ...args], { env: { PATH: process.env['PATH'], BACKHAUL_DEVICE_ID: 'test-device', ...env } })
    let [out, err] = ['', '']
    child.stdout.on('data', (data: Buffer) => (out += data.toString()))
    child.stderr.on('data', (data: Buffer) => (err += data.toString()))
    child.on('close', (code) => resolve({ code, out, err }))
  })
const findings = async (env: Record<string, string>) => {
  const { code, out } = await run(env, ['--json'])
  const report = JSON.parse(out) as { ok: boolean; findings: readonly Finding[] }
  const of = (what: string) => report.findings.filter((each) => each.what === what)
  return { code, report, of, only: (what: string) => of(what)[0] }
}
const quiet = { BACKHAUL_HTTP_PORT: '9' }

/** Beside the program: the system's own temporary folder may be in memory, which the doctor rightly minds. */
const disk = mkdtempSync(join(dirname(mainFile), '.doctor-'))
afterAll(() => rmSync(disk, { recursive: true, force: true }))

describe('doctor', () => {
  it('ends with 0 when all is well, has a line for everything, and leaves no trace', async () => {
    const folder = join(disk, 'not', 'there')
    const { code, out, err } = await run({ ...quiet, BACKHAUL_DATA_DIR: folder })
    expect([code, err]).toEqual([0, ''])
    for (const what of ['Node.js', 'settings', 'open files', 'clock', 'time zone', 'data folder', 'file system', 'free space', 'RabbitMQ', 'Pulsar', 'daemon']) expect(out).toContain(`  ${what}`)
    expect(out).toMatch(/\n0 problems, \d warnings?\.\n$/)
    expect(readdirSync(disk)).toEqual([])
  })
  it('ends with 1 and names each setting that is wrong, without its value', async () => {
    const { code, of } = await findings({ BACKHAUL_HTTP_PORT: 'hunter2', BACKHAUL_QUEUE_TYPE: 'odd' })
    expect(code).toBe(1)
    expect(of('settings').map(({ verdict, detail }) => `${verdict} ${detail}`)).toEqual([
      'problem queueType: expected one of auto, classic, quorum',
      'problem httpPort: expected a whole number from 0 to 65535',
    ])
    expect((await run({ BACKHAUL_HTTP_PORT: 'hunter2' })).out).not.toContain('hunter2')
    expect((await findings({ ...quiet, BACKHAUL_ODD: '1', BACKHAUL_DATA_DIR: temporaryFolder('odd') })).only('settings')).toMatchObject({ verdict: 'warning', detail: 'unknown variable BACKHAUL_ODD' })
  })
  it('ends with 1 when the data folder cannot be written', async () => {
    const file = join(temporaryFolder('doctor'), 'file')
    writeFileSync(file, '')
    const { code, only } = await findings({ ...quiet, BACKHAUL_DATA_DIR: join(file, 'data') })
    expect([code, only('data folder')?.verdict]).toEqual([1, 'problem'])
  })
  it('tells who has the data folder, and that the daemon is ready, with its own limits', async () => {
    const daemon = await startDaemon({ BACKHAUL_HTTP_TOKEN: 'tok-tok', BACKHAUL_DATA_DIR: join(disk, 'data') })
    const env = { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_HTTP_TOKEN: 'tok-tok', BACKHAUL_DATA_DIR: daemon.folder }
    await eventually('ready', async () => (await daemon.get('/readyz')).status === 200)
    const { code, only } = await findings(env)
    expect(code).toBe(0)
    expect(only('data folder')?.detail).toContain(`process ${daemon.pid} has it`)
    expect(only('open files')?.detail).toContain(`the daemon, process ${daemon.pid}`)
    expect(only('daemon')).toMatchObject({ verdict: 'ok', detail: `at ${daemon.url} is ready` })
    expect((await findings({ ...env, BACKHAUL_HTTP_TOKEN: 'another' })).only('daemon')).toMatchObject({ verdict: 'warning' })
    expect((await findings({ ...env, ...quiet })).only('daemon')).toMatchObject({ verdict: 'warning', detail: `process ${daemon.pid} has the data folder, but nobody answers at http://127.0.0.1:9` })
    expect(await daemon.stop()).toBe(0)
    expect((await findings(env)).only('data folder')?.detail).toContain('nobody has it')
  }, 60_000)
  it('tells another program on the daemon’s port from a daemon', async () => {
    const other = createServer((_request, reply) => reply.end('{"hello":1}'))
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
    const { code, only } = await findings({ BACKHAUL_HTTP_PORT: String((other.address() as AddressInfo).port), BACKHAUL_DATA_DIR: temporaryFolder('other') })
    other.close()
    expect([code, only('daemon')?.verdict]).toEqual([1, 'problem'])
  })
  it('tells brokers that are away, and what to do, and never a secret', async () => {
    const secrets = { BACKHAUL_AMQP_URL: 'amqp://u:hunter2@127.0.0.1:1', BACKHAUL_PULSAR_URL: 'ws://u:hunter2@127.0.0.1:2', BACKHAUL_PULSAR_TOKEN: 'hunter2', BACKHAUL_HTTP_TOKEN: 'hunter2', BACKHAUL_AMQP_MANAGEMENT_URL: 'http://u:hunter2@127.0.0.1:3' }
    const folder = temporaryFolder('away')
    mkdirSync(join(folder, 'spool'))
    const env = { ...quiet, ...secrets, BACKHAUL_DATA_DIR: folder }
    const { code, report, only } = await findings(env)
    expect([code, report.ok]).toEqual([1, false])
    for (const what of ['RabbitMQ', 'Pulsar']) expect(only(what)).toMatchObject({ verdict: 'problem', detail: expect.stringContaining('ECONNREFUSED') as unknown, todo: expect.any(String) as unknown })
    const human = await run(env)
    expect(JSON.stringify(report) + human.out + human.err).not.toContain('hunter2')
    expect(human.out).toContain('→ start RabbitMQ')
  })
})
