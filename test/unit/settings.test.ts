import * as E from 'fp-ts/lib/Either.js'
import { describe, expect, it } from 'vitest'
import { decodeSettings, flagOf, secretNames, settingNames, variableOf } from '../../src/settings.js'
import type { Layers } from '../../src/settings.js'

const decode = (layers: Partial<Layers>) => decodeSettings({ deviceId: 'device-1', ...layers })
const right = (layers: Partial<Layers>) => {
  const decoded = decode(layers)
  if (E.isLeft(decoded)) throw new Error(decoded.left.join('\n'))
  return decoded.right
}
const left = (layers: Partial<Layers>) => {
  const decoded = decode(layers)
  if (E.isRight(decoded)) throw new Error('expected errors')
  return decoded.left
}

describe('settings', () => {
  it('have defaults that run on a machine with nothing else', () => {
    const { settings, warnings } = right({})
    expect(warnings).toEqual([])
    expect(settings).toMatchObject({
      deviceId: 'device-1',
      idField: 'DeviceID',
      amqpUrl: [],
      queue: 'publicQueue',
      queueType: 'auto',
      pulsarUrl: undefined,
      pulsarTopic: 'persistent://public/default/backhaul',
      configTopic: 'persistent://public/default/ffc-configuration-device-1',
      httpHost: '127.0.0.1',
      httpPort: 8787,
      dataDir: './backhaul-data',
      roles: ['ingest', 'forward', 'broadcast', 'configuration'],
      maxMessageBytes: 716_800,
      maxBodyBytes: 16_777_216,
      window: 1000,
      confirmTimeoutMs: 1500,
      patienceMs: 60_000,
      storeMaxBytes: 1_073_741_824,
      topicLogMaxBytes: 1_073_741_824,
    })
  })

  it('prefer flags to the environment, the environment to the file, the file to defaults', () => {
    const file = { httpPort: 1, window: 1, queue: 'file' }
    const environment = { BACKHAUL_HTTP_PORT: '2', BACKHAUL_WINDOW: '2' }
    expect(right({ file, environment, flags: { httpPort: '3' } }).settings).toMatchObject({ httpPort: 3, window: 2, queue: 'file' })
  })

  it('follow the device id in the configuration topic, wherever the id came from', () => {
    expect(right({ environment: { BACKHAUL_DEVICE_ID: 'cam-7' } }).settings.configTopic).toMatch(/ffc-configuration-cam-7$/)
    expect(right({ flags: { deviceId: 'cam-8' } }).settings.configTopic).toMatch(/ffc-configuration-cam-8$/)
  })

  it('read lists from text and from YAML', () => {
    expect(right({ environment: { BACKHAUL_AMQP_URL: 'amqp://a, amqps://b' } }).settings.amqpUrl).toEqual(['amqp://a', 'amqps://b'])
    expect(right({ file: { udp: ['127.0.0.1:9', '[::1]:10'] } }).settings.udp).toEqual(['127.0.0.1:9', '[::1]:10'])
  })

  it('name each wrong setting and what was expected, and never the value', () => {
    const secret = 'hunter2 hunter2'
    const errors = left({
      environment: { BACKHAUL_HTTP_PORT: secret, BACKHAUL_AMQP_URL: `http://user:${secret}@x`, BACKHAUL_HTTP_TOKEN: secret, BACKHAUL_TIME_ZONE: secret },
    })
    expect(errors).toEqual(
      expect.arrayContaining([
        'httpPort: expected a whole number from 0 to 65535',
        'amqpUrl: expected a comma-separated list of addresses amqp://… or amqps://…',
        'httpToken: expected a token of visible characters',
        'timeZone: expected an IANA time zone such as Europe/Berlin',
      ]),
    )
    expect(errors).toHaveLength(4)
    expect(errors.join()).not.toContain('hunter2')
  })

  it.each([
    [{ BACKHAUL_UDP: '127.0.0.1' }, /^udp: /],
    [{ BACKHAUL_UDP: '127.0.0.1:65536' }, /^udp: /],
    [{ BACKHAUL_PULSAR_URL: 'http://x' }, /^pulsarUrl: /],
    [{ BACKHAUL_PULSAR_TOPIC: 'persistent://public/../x' }, /^pulsarTopic: /],
    [{ BACKHAUL_DEVICE_ID: '../../etc' }, /^deviceId: /],
    [{ BACKHAUL_WEBSOCKET: 'yes' }, /^websocket: /],
    [{ BACKHAUL_ROLES: 'ingest,cook' }, /^roles: /],
    [{ BACKHAUL_WINDOW: '0' }, /^window: /],
    [{ BACKHAUL_LOG_LEVEL: 'loud' }, /^logLevel: /],
  ] as const)('refuse %j', (environment, expected) => {
    expect(left({ environment })).toEqual(expect.arrayContaining([expect.stringMatching(expected) as string]))
  })

  it('refuse to listen beyond loopback without a token', () => {
    expect(left({ flags: { httpHost: '0.0.0.0' } })).toEqual([expect.stringMatching(/^httpHost: .*httpToken/)])
    expect(right({ flags: { httpHost: '0.0.0.0', httpToken: 'abc' } }).settings.httpHost).toBe('0.0.0.0')
    expect(right({ flags: { httpHost: '::1' } }).settings.httpHost).toBe('::1')
  })

  it('refuse to split the roles when no broker is between them', () => {
    expect(left({ flags: { roles: 'ingest' } })).toEqual([expect.stringMatching(/^roles: .*amqpUrl/)])
    expect(right({ flags: { roles: 'ingest', amqpUrl: 'amqp://x' } }).settings.roles).toEqual(['ingest'])
  })

  it('refuse unknown keys of the file, and warn of unknown variables', () => {
    expect(left({ file: { htpPort: 1 } })).toEqual(['configuration file: unknown setting htpPort'])
    expect(left({ file: [] })).toEqual(['configuration file: expected a map of settings'])
    expect(right({ environment: { BACKHAUL_HTP_PORT: '1', BACKHAUL_TEST_X: '1', HOME: '/' } }).warnings).toEqual(['unknown variable BACKHAUL_HTP_PORT'])
  })

  it('read secrets from files, and say only the name of one that cannot be read', () => {
    const readFile = (path: string) => {
      if (path === '/run/token') return 'abc\n'
      throw new Error(`ENOENT ${path}`)
    }
    expect(right({ environment: { BACKHAUL_HTTP_TOKEN_FILE: '/run/token' }, readFile }).settings.httpToken).toBe('abc')
    expect(left({ environment: { BACKHAUL_HTTP_TOKEN_FILE: '/run/none' }, readFile })).toEqual([
      'BACKHAUL_HTTP_TOKEN_FILE: expected a file that can be read',
    ])
  })

  it('take deduplication only with an address of Pulsar’s WebSocket API', () => {
    const line = 'deduplication: expected a pulsarUrl of ws:// or wss:// as well: only there are messages numbered'
    const wrong = (environment: Record<string, string>) => decodeSettings({ deviceId: 'd', environment: { BACKHAUL_DEDUPLICATION: 'true', ...environment } })
    for (const environment of [{}, { BACKHAUL_PULSAR_URL: 'pulsar://h:6650' }, { BACKHAUL_PULSAR_URL: 'pulsar+ssl://h:6651' }] as Record<string, string>[])
      expect(wrong(environment)).toMatchObject({ _tag: 'Left', left: [line] })
    expect(right({ environment: { BACKHAUL_DEDUPLICATION: 'true', BACKHAUL_PULSAR_URL: 'wss://h' } }).settings.deduplication).toBe(true)
    expect(right({}).settings.deduplication).toBe(false)
  })

  it('take no queue that RabbitMQ cannot have, and none that the copies have', () => {
    const left = (queue: string) => decodeSettings({ deviceId: 'd', environment: { BACKHAUL_AMQP_URL: 'amqp://h', BACKHAUL_QUEUE: queue } })
    for (const queue of ['é'.repeat(150), 'amq.own', 'websocketQueue', 'UDPQueue'])
      expect(left(queue), queue).toMatchObject({ _tag: 'Left', left: [expect.stringMatching(/^queue: expected/)] })
    expect(left('é'.repeat(100))).toMatchObject({ _tag: 'Right' })
  })

  it('keep room for the largest message in an embedded queue', () => {
    const given = (most: string) => ({ deviceId: 'd', environment: { BACKHAUL_STORE_MAX_BYTES: '1048576', BACKHAUL_MAX_MESSAGE_BYTES: most } })
    expect(decodeSettings(given('716800'))).toMatchObject({ _tag: 'Right' })
    expect(decodeSettings(given('2000000'))).toMatchObject({ _tag: 'Left', left: [expect.stringMatching(/^storeMaxBytes: expected room/)] })
  })

  it('have one variable and one flag for each name', () => {
    expect(variableOf('configTopicsExtra')).toBe('BACKHAUL_CONFIG_TOPICS_EXTRA')
    expect(flagOf('configTopicsExtra')).toBe('--config-topics-extra')
    expect(new Set(settingNames.map(variableOf)).size).toBe(settingNames.length)
    expect(secretNames.every((name) => settingNames.includes(name))).toBe(true)
  })
})
