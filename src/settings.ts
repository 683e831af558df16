import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as t from 'io-ts'
import { defaultMaxMessageBytes, maxPropertiesBytes } from './message.js'

const MiB = 1024 * 1024

/** A codec that reads text (environment, flags) as well as what a YAML file holds. */
const reads = <A>(expected: string, read: (raw: unknown) => A | undefined): t.Type<A, unknown, unknown> =>
  new t.Type<A, unknown, unknown>(
    expected,
    (value): value is A => read(value) !== undefined,
    (raw, context) => {
      const value = read(raw)
      return value === undefined ? t.failure(raw, context) : t.success(value)
    },
    (value) => value,
  )

const text = (expected: string, pattern: RegExp) =>
  reads(expected, (raw) => (typeof raw === 'string' && pattern.test(raw) ? raw : undefined))
const integer = (min: number, max: number) =>
  reads(`a whole number from ${min} to ${max}`, (raw) => {
    const value = typeof raw === 'string' && /^\d+$/.test(raw) ? Number(raw) : raw
    return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max ? value : undefined
  })
const truth = reads('true or false', (raw) =>
  raw === true || raw === 'true' ? true : raw === false || raw === 'false' ? false : undefined,
)
const oneOf = <A extends string>(...names: readonly A[]) =>
  reads(`one of ${names.join(', ')}`, (raw) => names.find((name) => name === raw))
const list = (expected: string, accepts: (item: string) => boolean) =>
  reads<readonly string[]>(`a comma-separated list of ${expected}`, (raw) => {
    const items = Array.isArray(raw) ? raw : typeof raw === 'string' ? raw.split(',').filter((item) => item !== '') : undefined
    const trimmed = items?.map((item: unknown) => (typeof item === 'string' ? item.trim() : ''))
    return trimmed?.every(accepts) === true ? trimmed : undefined
  })
const url = (...schemes: readonly string[]) => {
  const accepts = (value: string): boolean => {
    try {
      return schemes.includes(new URL(value).protocol)
    } catch {
      return false
    }
  }
  return { expected: `an address ${schemes.map((scheme) => `${scheme}//…`).join(' or ')}`, accepts }
}
const address = (...schemes: readonly string[]) => {
  const { expected, accepts } = url(...schemes)
  return reads(expected, (raw) => (typeof raw === 'string' && accepts(raw) ? raw : undefined))
}
const addresses = (...schemes: readonly string[]) => {
  const { expected, accepts } = url(...schemes)
  return list(expected.replace('an address', 'addresses'), accepts)
}
const hostAndPort = (item: string): boolean => /^(\[[0-9a-fA-F:]+\]|[^\s:/]+):([1-9]\d{0,4})$/.test(item) && Number(item.split(':').pop()) < 65_536
const zone = reads('an IANA time zone such as Europe/Berlin', (raw) => {
  try {
    return typeof raw === 'string' && raw !== '' && new Intl.DateTimeFormat('en', { timeZone: raw }) ? raw : undefined
  } catch {
    return undefined
  }
})
const topic = text('persistent://tenant/namespace/topic', /^(non-)?persistent:\/(\/(?!\.{1,2}(\/|$))[\w=:.-]+){3}$/)
const roles = ['ingest', 'forward', 'broadcast', 'configuration'] as const
export type Role = (typeof roles)[number]

/** What a setting is: its codec, what it means, and whether it must never be shown. */
const fields = {
  deviceId: text('1 to 128 letters, digits, dots, dashes, underscores', /^[A-Za-z0-9][\w.-]{0,127}$/),
  idField: oneOf('CameraSerial', 'JetsonSerial', 'DeviceID', 'ServerID'),
  timeZone: t.union([t.undefined, zone], zone.name),
  amqpUrl: addresses('amqp:', 'amqps:'),
  amqpManagementUrl: t.union([t.undefined, address('http:', 'https:')], url('http:', 'https:').expected),
  queue: reads('a queue name of 1 to 200 bytes, without white space, that does not begin with amq.', (raw) =>
    typeof raw === 'string' && /^(?!amq\.)[^\s]+$/.test(raw) && Buffer.byteLength(raw) <= 200 ? raw : undefined,
  ),
  queueType: oneOf('auto', 'classic', 'quorum'),
  pulsarUrl: t.union([t.undefined, address('ws:', 'wss:', 'pulsar:', 'pulsar+ssl:')], url('ws:', 'wss:', 'pulsar:', 'pulsar+ssl:').expected),
  pulsarToken: t.union([t.undefined, text('a token', /^\S+$/)], 'a token'),
  pulsarTopic: topic,
  deduplication: truth,
  configTopic: topic,
  configTopicsExtra: list('topics persistent://tenant/namespace/topic', (item) => topic.is(item)),
  httpHost: text('a host name or address', /^[\w.:-]+$/),
  httpPort: integer(0, 65_535),
  httpToken: t.union([t.undefined, text('a token of visible characters', /^[!-~]+$/)], 'a token of visible characters'),
  httpOrigins: addresses('http:', 'https:'),
  websocket: truth,
  udp: list('host:port', hostAndPort),
  dataDir: text('a folder', /./),
  roles: list(`roles out of ${roles.join(', ')}`, (item) => roles.some((role) => role === item)) as t.Type<readonly Role[], unknown, unknown>,
  maxMessageBytes: integer(1, 5 * MiB),
  maxBodyBytes: integer(1, 1024 * MiB),
  window: integer(1, 65_535),
  confirmTimeoutMs: integer(100, 600_000),
  patienceMs: integer(1000, 1_500_000),
  storeMaxBytes: integer(MiB, Number.MAX_SAFE_INTEGER),
  topicLogMaxBytes: integer(1024, Number.MAX_SAFE_INTEGER),
  logLevel: oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'),
}

/** The whole configuration. Flags, environment and file are read by this one codec. */
export const Settings = t.type(fields)
export type Settings = t.TypeOf<typeof Settings>
export type SettingName = keyof Settings

export const settingNames = Object.keys(fields) as readonly SettingName[]
/** May also be given as the name of a file that holds it: `BACKHAUL_HTTP_TOKEN_FILE`. Never printed. */
export const secretNames: readonly SettingName[] = ['amqpUrl', 'amqpManagementUrl', 'pulsarToken', 'httpToken']

/** `httpPort` → `BACKHAUL_HTTP_PORT` */
export const variableOf = (name: string): string => `BACKHAUL_${name.replace(/[A-Z]/g, (c) => `_${c}`).toUpperCase()}`
/** `httpPort` → `--http-port` */
export const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`

/** Every default but `deviceId`, which the machine gives; `configTopic` follows from it. */
export const defaults = (deviceId: string): Record<SettingName, unknown> => ({
  deviceId,
  idField: 'DeviceID',
  timeZone: undefined,
  amqpUrl: [],
  amqpManagementUrl: undefined,
  queue: 'publicQueue',
  queueType: 'auto',
  pulsarUrl: undefined,
  pulsarToken: undefined,
  pulsarTopic: 'persistent://public/default/backhaul',
  deduplication: false,
  configTopic: `persistent://public/default/ffc-configuration-${deviceId}`,
  configTopicsExtra: [],
  httpHost: '127.0.0.1',
  httpPort: 8787,
  httpToken: undefined,
  httpOrigins: [],
  websocket: false,
  udp: [],
  dataDir: './backhaul-data',
  roles,
  maxMessageBytes: defaultMaxMessageBytes,
  maxBodyBytes: 16 * MiB,
  window: 1000,
  confirmTimeoutMs: 1500,
  patienceMs: 60_000,
  storeMaxBytes: 1024 * MiB,
  topicLogMaxBytes: 1024 * MiB,
  logLevel: 'info',
})

/** Where raw settings come from; the later in this list, the weaker. */
export interface Layers {
  readonly flags?: Readonly<Record<string, unknown>>
  readonly environment?: Readonly<Record<string, string | undefined>>
  readonly file?: unknown
  readonly deviceId: string
  /** Reads the file that a `*_FILE` variable names; errors are reported without its content. */
  readonly readFile?: (path: string) => string
}

export interface Decoded {
  readonly settings: Settings
  readonly warnings: readonly string[]
}

const fromEnvironment = ({ environment = {}, readFile }: Layers) => {
  const known = new Map<string, SettingName>(settingNames.map((name) => [variableOf(name), name]))
  const files = new Map<string, SettingName>(secretNames.map((name) => [`${variableOf(name)}_FILE`, name]))
  const values: Record<string, unknown> = {}
  const errors: string[] = []
  const warnings: string[] = []
  for (const [variable, value] of Object.entries(environment)) {
    if (value === undefined || value === '' || !variable.startsWith('BACKHAUL_') || variable.startsWith('BACKHAUL_TEST_')) continue
    const name = known.get(variable)
    const secret = files.get(variable)
    if (name !== undefined) values[name] = value
    else if (secret !== undefined) {
      try {
        values[secret] ??= readFile?.(value).trim()
      } catch {
        errors.push(`${variable}: expected a file that can be read`)
      }
    } else if (variable !== 'BACKHAUL_CONFIG') warnings.push(`unknown variable ${variable}`)
  }
  return { values, errors, warnings }
}

const fromFile = (file: unknown): { values: Record<string, unknown>; errors: readonly string[] } => {
  if (file === undefined || file === null) return { values: {}, errors: [] }
  if (typeof file !== 'object' || Array.isArray(file)) return { values: {}, errors: ['configuration file: expected a map of settings'] }
  const unknown = Object.keys(file).filter((key) => !settingNames.some((name) => name === key))
  return { values: { ...file }, errors: unknown.map((key) => `configuration file: unknown setting ${key}`) }
}

/** The queues of the copies in RabbitMQ. */
export const copyQueues = { websocket: 'websocketQueue', udp: 'UDPQueue' } as const

const loopback = /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/
const together = (settings: Settings): readonly string[] => [
  ...(loopback.test(settings.httpHost) || settings.httpToken !== undefined
    ? []
    : ['httpHost: expected a loopback address, or an httpToken as well: anyone on the network could post']),
  ...(settings.amqpUrl.length > 0 || ['ingest', 'forward', 'broadcast'].every((role) => settings.roles.includes(role as Role))
    ? []
    : ['roles: expected ingest, forward and broadcast together, for without an amqpUrl they share the embedded queue']),
  ...(Object.values<string>(copyQueues).includes(settings.queue)
    ? ['queue: expected another name: that one is the queue of the copies, and whoever reads them would take messages away from Pulsar']
    : []),
  ...(settings.maxMessageBytes + maxPropertiesBytes <= 0.75 * settings.storeMaxBytes
    ? []
    : ['storeMaxBytes: expected room for more than the largest message (maxMessageBytes): it would never fit, and hold up all behind it']),
  ...(!settings.deduplication || /^wss?:/.test(settings.pulsarUrl ?? '')
    ? []
    : ['deduplication: expected a pulsarUrl of ws:// or wss:// as well: only there are messages numbered']),
]

/** Path and expected type of each thing that is wrong; never a value, for it may be a secret. */
const explain = (errors: t.Errors): readonly string[] => [
  ...new Set(errors.map(({ context }) => `${context[1]?.key ?? 'settings'}: expected ${context[1]?.type.name ?? 'a map of settings'}`)),
]

/**
 * Reads the settings: flags > environment > file > defaults.
 *
 * **Fails**: Left holds one line for each thing that is wrong: its path and what was expected, never the value.
 */
export const decodeSettings = (layers: Layers): E.Either<readonly string[], Decoded> => {
  const environment = fromEnvironment(layers)
  const file = fromFile(layers.file)
  const raw: Record<string, unknown> = { ...file.values, ...environment.values, ...layers.flags }
  const deviceId = typeof raw['deviceId'] === 'string' ? raw['deviceId'] : layers.deviceId
  return pipe(
    Settings.decode({ ...defaults(deviceId), ...raw }),
    E.mapLeft(explain),
    E.chain((settings) => {
      const errors = [...file.errors, ...environment.errors, ...together(settings)]
      return errors.length > 0 ? E.left(errors) : E.right({ settings, warnings: environment.warnings })
    }),
  )
}
