import { defer, forkJoin, map, of, reduce, switchMap, throwError } from 'rxjs'
import type { Observable } from 'rxjs'
import { hostname, networkInterfaces } from 'node:os'
import type { Arguments, ArgumentValue, Policies } from '../queue-problems.js'
import { findTool, runTool } from './rabbitmqctl.js'
import type { Host } from './rabbitmqctl.js'

/** A queue's name and type: `classic`, `quorum` or `stream`. */
export interface NamedQueue {
  readonly queue: string
  readonly type: string
}

/** Tells what policies do to these queues, in their order. Errors when it cannot. */
export type AskPolicies = (queues: readonly NamedQueue[]) => Observable<readonly Policies[]>

interface Policy {
  readonly name: string
  readonly pattern: string
  readonly 'apply-to': string
  readonly priority: number
  /** rabbitmqctl gives it as text. */
  readonly definition: string | Arguments
}

const appliesTo = ({ 'apply-to': to, pattern }: Policy, { queue, type }: NamedQueue): boolean =>
  ['all', 'queues', type === 'stream' ? 'streams' : `${type}_queues`].includes(to) && new RegExp(pattern).test(queue)

const definitionOf = ({ definition }: Policy): Arguments => (typeof definition === 'string' ? (JSON.parse(definition) as Arguments) : definition)

/** One policy wins, the one with the highest priority; where several have that, all of them are taken, for RabbitMQ does not say which. */
const winners = (policies: readonly Policy[], queue: NamedQueue): readonly Policy[] => {
  const matching = policies.filter((policy) => appliesTo(policy, queue))
  const highest = Math.max(...matching.map(({ priority }) => priority))
  return matching.filter(({ priority }) => priority === highest)
}

const smaller = (one: ArgumentValue | undefined, other: ArgumentValue): ArgumentValue =>
  typeof one === 'number' && typeof other === 'number' ? Math.min(one, other) : other

const merged = (definitions: readonly Arguments[]): Arguments =>
  definitions.reduce<Arguments>(
    (all, each) => ({ ...all, ...Object.fromEntries(Object.entries(each).map(([name, value]) => [name, smaller(all[name], value)])) }),
    {},
  )

/** What the policies and operator policies of a virtual host make of a queue: one of each, and the smaller number of both. */
export const policiesFor = (policies: readonly Policy[], operatorPolicies: readonly Policy[], queue: NamedQueue): Policies => {
  const found = [...winners(policies, queue), ...winners(operatorPolicies, queue)]
  return { definition: merged(found.map(definitionOf)), names: found.map(({ name }) => name) }
}

export const vhostOf = (url: string): string => {
  const path = new URL(url).pathname
  return path.length < 2 ? '/' : decodeURIComponent(path.slice(1))
}

const isHere = (url: string): boolean => {
  const name = new URL(url).hostname.replace(/^\[|\]$/g, '')
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address))
  return ['localhost', hostname(), ...addresses].includes(name) || /^127\./.test(name)
}

/** rabbitmqctl may put lines of its own before the JSON. */
const jsonOf = <T>(host: Host, file: string, args: readonly string[]): Observable<T> =>
  runTool(host, file, ['-q', '--formatter', 'json', ...args]).pipe(
    reduce((all, said) => ('exit' in said ? { ...all, exit: said.exit } : { ...all, [said.from]: `${all[said.from]}${said.line}\n` }), { exit: 1, stdout: '', stderr: '' }),
    map(({ exit, stdout, stderr }) => {
      if (exit === 0) return JSON.parse(stdout.slice(stdout.search(/^[[{]/m))) as T
      const lines = `${stderr}\n${stdout}`.split('\n').map((line) => line.trim()).filter((line) => line !== '')
      throw new Error(`rabbitmqctl: ${lines.find((line) => line.startsWith('Error')) ?? lines[0] ?? `exit code ${exit}`}`)
    }),
  )

interface ClusterStatus {
  readonly cluster_name?: string
  readonly listeners?: Readonly<Record<string, readonly { readonly port: number; readonly protocol: string }[]>>
}

const isTheNode = ({ cluster_name: name, listeners = {} }: ClusterStatus, url: string, clusterName: string): boolean => {
  const { port, protocol } = new URL(url)
  const asked = Number(port === '' ? (protocol === 'amqps:' ? 5671 : 5672) : port)
  const ports = Object.values(listeners).flatMap((list) => list.filter((one) => one.protocol.startsWith('amqp')).map((one) => one.port))
  return name === clusterName && ports.includes(asked)
}

/**
 * Policies by rabbitmqctl: only when it is installed, may be run, and talks to the very broker at
 * the address: on this machine, listening on that port, in a cluster of that name.
 *
 * Emits once, then asks afresh each time. **Fails** with the reason when it is not so.
 */
export const policiesByRabbitmqctl = (host: Host, url: string, clusterName: string | undefined): Observable<AskPolicies> =>
  defer(() => {
    const file = findTool(host, 'rabbitmqctl')
    const vhost = vhostOf(url)
    if (file === undefined) throw new Error('rabbitmqctl is not installed here')
    if (!isHere(url)) throw new Error('RabbitMQ is on another machine')
    if (clusterName === undefined) throw new Error('RabbitMQ does not tell the name of its cluster')
    // Packages wrap rabbitmqctl in a script that hands its words to a shell once more.
    if (host.platform !== 'win32' && /[$`\\]/.test(vhost)) throw new Error('the name of the virtual host has a sign that is not safe in a shell')
    const list = (verb: string): Observable<readonly Policy[]> => jsonOf(host, file, [verb, '-p', vhost])
    const asked: AskPolicies = (queues) =>
      forkJoin([list('list_policies'), list('list_operator_policies')]).pipe(
        map(([own, operator]) => queues.map((queue) => policiesFor(own, operator, queue))),
      )
    return jsonOf<ClusterStatus>(host, file, ['cluster_status']).pipe(
      switchMap((status) => (isTheNode(status, url, clusterName) ? of(asked) : throwError(() => new Error('rabbitmqctl talks to another RabbitMQ')))),
    )
  })
