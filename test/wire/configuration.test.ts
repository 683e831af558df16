import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { describeWire } from './brokers.js'
import { eventually, expectBalanced, mainFile, ownNames, startDaemon, temporaryFolder } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'

/** Publishes with a client of the test's own. */
const publish = (pulsarUrl: string, topic: string, ...payloads: readonly (string | Buffer)[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(`${pulsarUrl}/ws/v2/producer/${topic.replace('://', '/')}`)
    let answered = 0
    socket.on('open', () => payloads.forEach((payload, i) => socket.send(JSON.stringify({ payload: Buffer.from(payload).toString('base64'), context: String(i) }))))
    socket.on('message', (data: Buffer) => {
      if ((JSON.parse(data.toString()) as { result: string }).result !== 'ok') reject(new Error(data.toString()))
      answered += 1
      if (answered === payloads.length) {
        socket.close()
        resolve()
      }
    })
    socket.on('error', reject)
  })

await describeWire('the configuration topic', ({ pulsarUrl }) => {
  let daemon: Daemon | undefined
  afterEach(async () => {
    if (daemon !== undefined) await expectBalanced(daemon, 'configuration')
    daemon?.signal('SIGKILL')
    await daemon?.ended
    daemon = undefined
  })
  const device = () => {
    const serial = `dev-${process.pid}-${Date.now().toString(36)}`
    const { topic } = ownNames()
    return {
      own: `persistent://public/default/ffc-configuration-${serial}`,
      settings: { BACKHAUL_DEVICE_ID: serial, BACKHAUL_PULSAR_URL: pulsarUrl, BACKHAUL_PULSAR_TOPIC: topic, BACKHAUL_DATA_DIR: temporaryFolder('configuration') },
    }
  }
  const current = async (it: Daemon) => {
    const reply = await it.get('/v1/configuration')
    return reply.status === 200 ? reply.text() : undefined
  }

  it('is followed from its beginning, resumed where it was, and nothing published meanwhile is missed', async () => {
    const { own, settings } = device()
    await publish(pulsarUrl, own, '{"v":0}', '{"v": 1}')
    let it = (daemon = await startDaemon(settings))
    await eventually('the newest of before', async () => (await current(it)) === '{"v": 1}')
    expect(await it.metric('backhaul_configurations_accepted_total')).toBe(2)
    await publish(pulsarUrl, own, '{"v":2}')
    await eventually('the next', async () => (await current(it)) === '{"v":2}')
    expect(await it.stop()).toBe(0)

    await publish(pulsarUrl, own, '{"v":3}', '{"v":4,"text":"ü"}')
    it = daemon = await startDaemon(settings)
    expect(await current(it), 'kept over the restart').toBeDefined()
    await eventually('what came while it was off', async () => (await current(it)) === '{"v":4,"text":"ü"}')
    expect(await it.metric('backhaul_configurations_accepted_total'), 'exactly those two').toBe(2)
    expect(readFileSync(join(it.folder, 'configuration', 'current.json'), 'utf8')).toBe('{"v":4,"text":"ü"}')
  }, 90_000)

  it('is the device’s own and no other, plus the extra topics', async () => {
    const { own, settings } = device()
    const extra = `${own}-fleet`
    const it = (daemon = await startDaemon({ ...settings, BACKHAUL_CONFIG_TOPICS_EXTRA: extra }))
    await publish(pulsarUrl, `${own}x`, '{"other":true}')
    await publish(pulsarUrl, extra, '{"fleet":true}')
    await publish(pulsarUrl, own, '{"own":true}')
    await eventually('both', async () => (await it.metric('backhaul_configurations_accepted_total')) === 2)
    expect(await current(it)).toBe('{"own":true}')
    expect(await (await it.get(`/v1/configuration?topic=${encodeURIComponent(extra)}`)).text()).toBe('{"fleet":true}')
    expect((await it.get(`/v1/configuration?topic=${encodeURIComponent(`${own}x`)}`)).status).toBe(404)
  }, 60_000)

  it('keeps what is no configuration aside with its reason, settles it, and the old one stays', async () => {
    const { own, settings } = device()
    const it = (daemon = await startDaemon(settings))
    await publish(pulsarUrl, own, '{"v":1}', '[]', 'v = 2', `{"x":"${'y'.repeat(256 * 1024)}"}`)
    await eventually('three refused', async () => (await it.metric('backhaul_configurations_rejected_total')) === 3)
    expect(await current(it)).toBe('{"v":1}')
    const rejected = join(it.folder, 'configuration', 'rejected')
    const reasons = readdirSync(rejected).map((name) => (JSON.parse(readFileSync(join(rejected, name), 'utf8')) as { reason: string }).reason)
    expect(reasons.sort()).toEqual(['larger than 262144 bytes', 'not JSON', 'not a JSON object'])
    expect(it.said()).toContain('a configuration was refused')
    expect(await it.stop()).toBe(0)
    const again = (daemon = await startDaemon(settings))
    await publish(pulsarUrl, own, '{"v":2}')
    await eventually('the next valid one', async () => (await current(again)) === '{"v":2}')
    expect(await again.metric('backhaul_configurations_rejected_total'), 'settled: they do not come again').toBe(0)
  }, 90_000)

  it('is printed by `config get`, from the daemon and, when none runs, from the data folder', async () => {
    const { own, settings } = device()
    const it = (daemon = await startDaemon(settings))
    const get = () =>
      new Promise<{ code: number; out: string }>((resolve) => {
        const env = { PATH: process.env['PATH'], ...settings, BACKHAUL_HTTP_PORT: new URL(it.url).port }
        execFile(process.execPath, [mainFile, 'config', 'get'], { env }, (error, out) => resolve({ code: error === null ? 0 : Number(error.code), out }))
      })
    expect(await get()).toEqual({ code: 1, out: '' })
    await publish(pulsarUrl, own, '{"v":1}')
    await eventually('it', async () => (await current(it)) === '{"v":1}')
    expect(await get()).toEqual({ code: 0, out: '{"v":1}\n' })
    await expectBalanced(it, 'configuration')
    await it.stop()
    daemon = undefined
    expect(existsSync(join(it.folder, 'configuration', 'current.json'))).toBe(true)
    expect(await get()).toEqual({ code: 0, out: '{"v":1}\n' })
  }, 60_000)
})
