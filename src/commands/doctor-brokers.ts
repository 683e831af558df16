import { connect } from 'node:net'
import { catchError, firstValueFrom, map, Observable, of, take, timeout } from 'rxjs'
import { openAmqp } from '../connections/amqp-client.js'
import { PulsarUnavailable } from '../connections/pulsar-answers.js'
import { PulsarNativeMissing } from '../connections/pulsar-native.js'
import { isNative, pulsarWriter } from '../connections/pulsar.js'
import { queueInspector } from '../connections/queue-inspector.js'
import type { InspectedQueue, Inspection } from '../connections/queue-inspector.js'
import { vhostOf } from '../connections/queue-policies.js'
import type { Host } from '../connections/rabbitmqctl.js'
import type { LinkState } from '../connections/reconnect.js'
import { problemsOf } from '../queue-problems.js'
import type { Settings } from '../settings.js'
import { masked, ok, problem, skipped, warning } from './doctor-finding.js'
import type { Finding } from './doctor-finding.js'

const connectMs = 5_000
const inspectMs = 20_000

/** What stands in the way at the TCP level; undefined when somebody listens. */
const unreachable = (host: string, port: number): Promise<string | undefined> =>
  new Promise((resolve) => {
    const socket = connect({ host: host.replace(/^\[|\]$/g, ''), port, timeout: connectMs })
    const end = (reason?: string): void => {
      socket.destroy()
      resolve(reason)
    }
    socket.once('connect', () => end())
    socket.once('timeout', () => end(`no answer within ${connectMs / 1000} s`))
    socket.once('error', ({ message, ...error }: NodeJS.ErrnoException) => end(message === '' ? (error.code ?? 'refused') : message))
  })

const amqpTodo = (reason: string, url: string): string => {
  if (/ACCESS.REFUSED|403/.test(reason)) return 'name and password in BACKHAUL_AMQP_URL are not what RabbitMQ knows; guest may connect from its own machine only'
  // amqplib keeps the reason to itself: the virtual host is not there, or not for this user.
  if (/ConnectionOpenOk|NOT.ALLOWED/.test(reason)) return `make the virtual host ${vhostOf(url)}, and give the user rights on it: rabbitmqctl add_vhost, set_permissions`
  if (/ENOTFOUND|EAI_AGAIN/.test(reason)) return 'the name in BACKHAUL_AMQP_URL is not known to the name service'
  return 'start RabbitMQ (backhaul broker start), or correct BACKHAUL_AMQP_URL; until then the spool keeps what comes'
}

const nodeFinding = (url: string): Promise<Finding> =>
  firstValueFrom(
    openAmqp(url, { heartbeatS: 10, connectTimeoutMs: connectMs }).pipe(
      take(1),
      timeout(2 * connectMs),
      map(({ serverVersion }) => ok('RabbitMQ', `${serverVersion} at ${masked(url)}`)),
      catchError((error: Error) => of(problem('RabbitMQ', `${masked(url)}: ${error.message}`, amqpTodo(error.message, url)))),
    ),
  )

/** What is to be said of a queue of that kind by itself. */
const typeFindings = (what: string, type: string, serverVersion: string): readonly Finding[] => {
  const four = Number.parseInt(serverVersion, 10) >= 4
  return four && type === 'classic'
    ? [warning(what, 'is a classic queue: RabbitMQ 4 confirms before it syncs, and a power cut may cost the last messages', 'let it run empty, delete it, and Backhaul makes a quorum queue')]
    : []
}

const queueFindings = (inspected: InspectedQueue): readonly Finding[] => {
  const what = `queue ${inspected.queue}`
  if (inspected.kind === 'missing') return [ok(what, 'is not there yet: the daemon makes it')]
  if (inspected.kind === 'unseen')
    return [warning(what, `what it was declared with is not visible: ${inspected.reason}`, 'give the user the right to configure it: rabbitmqctl set_permissions')]
  const type = String(inspected.arguments['x-queue-type'] ?? 'classic')
  const found = problemsOf(inspected).map(({ severity, text, remedy }) => (severity === 'alarm' ? problem : warning)(what, text, remedy))
  const all = [...found, ...typeFindings(what, type, inspected.serverVersion)]
  if (all.length > 0) return all
  const names = inspected.policies?.names ?? []
  const given = Object.entries(inspected.arguments).filter(([name]) => name !== 'x-queue-type')
  const extras = [...given.map(([name, value]) => `${name} ${value}`), ...names.map((name) => `policy '${name}'`)]
  return [ok(what, `${type}, keeps what it confirms${extras.length === 0 ? '' : ` (${extras.join(', ')})`}`)]
}

const policyFinding = ({ policiesUnseen, queues }: Inspection): Finding => {
  if (queues.every(({ kind }) => kind === 'missing')) return skipped('policies', 'no queue is there yet')
  return policiesUnseen === undefined
    ? ok('policies', 'visible')
    : warning('policies', `not visible: ${policiesUnseen}`, 'run this as root or rabbitmq beside RabbitMQ, or set BACKHAUL_AMQP_MANAGEMENT_URL')
}

/** Whether each node answers, and whether the queues keep what they confirm. */
export const rabbitFindings = async ({ amqpUrl: urls, amqpManagementUrl, queue }: Settings, host: Host): Promise<readonly Finding[]> => {
  if (urls.length === 0) return [skipped('RabbitMQ', 'not configured: the queue is embedded in the daemon')]
  const nodes = await Promise.all(urls.map(nodeFinding))
  const answering = urls.filter((_url, index) => nodes[index]?.verdict === 'ok')
  if (answering.length === 0) return nodes
  const { inspect } = queueInspector({ urls: answering, host, ...(amqpManagementUrl === undefined ? {} : { managementUrl: amqpManagementUrl }) })
  const looked = inspect([queue, `${queue}.dead`]).pipe(
    timeout(inspectMs),
    map((inspection) => [...inspection.queues.flatMap(queueFindings), policyFinding(inspection)]),
    catchError((error: Error) => of([problem(`queue ${queue}`, `cannot be looked at: ${error.message}`, 'see the log of RabbitMQ')])),
  )
  return [...nodes, ...(await firstValueFrom(looked))]
}

const pulsarMs = 12_000

const pulsarTodo = (error: unknown): string => {
  if (error instanceof PulsarNativeMissing) return 'npm install pulsar-client, or a ws:// address'
  const kind = error instanceof PulsarUnavailable ? error.kind : 'away'
  if (kind === 'unauthorised') return 'BACKHAUL_PULSAR_TOKEN is missing, wrong or expired, or has no right to produce to the topic'
  if (kind === 'misconfigured') return 'make the tenant and the namespace of BACKHAUL_PULSAR_TOPIC, or correct it'
  return 'start Pulsar, or correct BACKHAUL_PULSAR_URL; the queue keeps what comes until then'
}

/** The state of the first attempt to open a producer: exactly what the daemon does, and nothing is sent. */
const firstState = ({ pulsarUrl: url = '', pulsarToken, pulsarTopic: topic, deviceId: key }: Settings): Observable<LinkState> =>
  new Observable<LinkState>((subscriber) => {
    const token = pulsarToken === undefined ? {} : { token: () => pulsarToken }
    const connection = pulsarWriter({ url, topic, key, onState: (state) => subscriber.next(state), ...token })
    return connection.subscribe({ error: (error: unknown) => subscriber.error(error) })
  }).pipe(take(1))

/** Whether the topic can be written to, with the token that is set. */
export const pulsarFindings = async (settings: Settings): Promise<readonly Finding[]> => {
  const { pulsarUrl: url, pulsarTopic: topic } = settings
  if (url === undefined) return [warning('Pulsar', 'not configured: messages do not leave this machine, they end in the local topic log', 'set BACKHAUL_PULSAR_URL')]
  const { hostname, port, protocol } = new URL(url)
  const usual = isNative(url) ? (protocol === 'pulsar:' ? 6650 : 6651) : protocol === 'ws:' ? 80 : 443
  const why = await unreachable(hostname, port === '' ? usual : Number(port))
  if (why !== undefined) return [problem('Pulsar', `${masked(url)}: ${why}`, pulsarTodo(undefined))]
  const refused = (reason: string, error?: unknown): Finding => problem('Pulsar', `${masked(url)} answers, but ${topic} cannot be written to: ${reason}`, pulsarTodo(error))
  const state = firstState(settings).pipe(
    timeout(pulsarMs),
    map((first) => (first.kind === 'connected' ? ok('Pulsar', `${topic} at ${masked(url)} can be written to`) : refused(String((first.error as Error).message), first.error))),
    catchError((error: Error) => of(refused(error.name === 'TimeoutError' ? `no answer within ${pulsarMs / 1000} s (with the native client, a refused token looks like that too)` : error.message, error))),
  )
  return [await firstValueFrom(state)]
}
