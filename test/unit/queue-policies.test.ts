import { concat, defer, firstValueFrom, from, lastValueFrom, NEVER, of, tap } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { describe, expect, it } from 'vitest'
import type { AmqpChannel, AmqpLink } from '../../src/connections/amqp-port.js'
import { queueInspector } from '../../src/connections/queue-inspector.js'
import type { Inspection } from '../../src/connections/queue-inspector.js'
import { policiesByRabbitmqctl, policiesFor, vhostOf } from '../../src/connections/queue-policies.js'
import type { Host, Said } from '../../src/connections/rabbitmqctl.js'

const policy = (name: string, pattern: string, definition: object, more: { 'apply-to'?: string; priority?: number } = {}) => ({
  vhost: '/', name, pattern, 'apply-to': 'all', priority: 0, definition: JSON.stringify(definition), ...more,
})
const effect = (...args: Parameters<typeof policiesFor>) => {
  const { definition, names } = policiesFor(...args)
  return [names, definition]
}
const classic = { queue: 'publicQueue', type: 'classic' }

describe('the policies of a queue', () => {
  it('are one of the policies that match, by priority, and one of the operator policies, the smaller number of both', () => {
    const low = policy('low', 'public', { 'max-length': 5, expires: 1 })
    const high = policy('high', '^public', { 'max-length': 100, overflow: 'reject-publish' }, { priority: 3 })
    const other = policy('other', '^private', { 'max-length': 1 }, { priority: 9 })
    expect(effect([low, high, other], [], classic)).toEqual([['high'], { 'max-length': 100, overflow: 'reject-publish' }])
    const operator = policy('operator', '.*', { 'max-length': 10, 'message-ttl': 7 })
    expect(effect([low, high], [operator], classic)).toEqual([['high', 'operator'], { 'max-length': 10, overflow: 'reject-publish', 'message-ttl': 7 }])
    expect(effect([low], [policy('wide', '.*', { 'max-length': 1000 })], classic)).toEqual([['low', 'wide'], { 'max-length': 5, expires: 1 }])
  })
  it('are only those for its type', () => {
    const quorum = policy('q', '.*', { 'delivery-limit': 5 }, { 'apply-to': 'quorum_queues' })
    const exchanges = policy('e', '.*', { 'alternate-exchange': 'x' }, { 'apply-to': 'exchanges' })
    const queues = policy('all-queues', '.*', { expires: 5 }, { 'apply-to': 'queues' })
    expect(effect([quorum, exchanges], [], classic)).toEqual([[], {}])
    expect(effect([quorum, exchanges], [], { queue: 'publicQueue', type: 'quorum' })).toEqual([['q'], { 'delivery-limit': 5 }])
    expect(effect([queues], [], classic)).toEqual([['all-queues'], { expires: 5 }])
  })
  it('are all of those that have the highest priority together: RabbitMQ does not say which of them it takes', () => {
    expect(effect([policy('a', '.*', { expires: 5 }), policy('b', '.*', { 'message-ttl': 6 })], [], classic)).toEqual([['a', 'b'], { expires: 5, 'message-ttl': 6 }])
  })
})

describe('the virtual host of an address', () => {
  it.each([['amqp://h', '/'], ['amqp://h/', '/'], ['amqp://h/%2f', '/'], ['amqp://u:p@h:1/a%20b', 'a b']])('%s', (url, vhost) => expect(vhostOf(url)).toBe(vhost))
})

const url = 'amqp://user:secret@127.0.0.1:5673/v'
const status = { cluster_name: 'rabbit@here', listeners: { 'rabbit@here': [{ port: 5673, protocol: 'amqp' }, { port: 25672, protocol: 'clustering' }] } }
const machine = (replies: Readonly<Record<string, { exit?: number; lines: readonly string[] }>>, { installed = true } = {}) => {
  const ran: string[] = []
  const host = {
    platform: 'linux',
    env: { PATH: '/usr/sbin' },
    exists: () => installed,
    run: (_file: string, args: readonly string[]) =>
      defer(() => {
        ran.push(args.join(' '))
        const { exit = 0, lines } = replies[args[3] ?? ''] ?? { exit: 64, lines: ['Error: unknown'] }
        const said = lines.map((line): Said => ({ from: exit === 0 ? 'stdout' : 'stderr', line }))
        return from([...said, { exit }])
      }),
  } as unknown as Host
  return { host, ran }
}
const json = (value: unknown) => ({ lines: ['Listing …', JSON.stringify(value)] })

describe('rabbitmqctl is asked', () => {
  const good = { cluster_status: json(status), list_policies: json([policy('p', 'Queue', { 'max-length': 1 })]), list_operator_policies: json([]) }
  it('when it talks to the very broker at the address', async () => {
    const { host, ran } = machine(good)
    const ask = await firstValueFrom(policiesByRabbitmqctl(host, url, 'rabbit@here'))
    expect(await lastValueFrom(ask([classic, { queue: 'other', type: 'classic' }]))).toEqual([{ names: ['p'], definition: { 'max-length': 1 } }, { names: [], definition: {} }])
    expect(ran).toEqual(['-q --formatter json cluster_status', '-q --formatter json list_policies -p v', '-q --formatter json list_operator_policies -p v'])
    expect(ran.join()).not.toContain('secret')
  })
  it.each([
    ['it is not installed', machine(good, { installed: false }), url, 'rabbit@here', 'not installed'],
    ['RabbitMQ is elsewhere', machine(good), 'amqp://203.0.113.9:5673', 'rabbit@here', 'another machine'],
    ['the cluster has another name', machine(good), url, 'rabbit@there', 'another RabbitMQ'],
    ['the cluster has no name', machine(good), url, undefined, 'name of its cluster'],
    ['the port is not one of its listeners', machine(good), 'amqp://localhost:5672', 'rabbit@here', 'another RabbitMQ'],
    ['it may not be run', machine({ cluster_status: { exit: 77, lines: ['Only root or rabbitmq can run rabbitmqctl'] } }), url, 'rabbit@here', 'Only root or rabbitmq'],
    ['the virtual host would be run by a wrapper script', machine(good), 'amqp://localhost:5673/%24%28x%29', 'rabbit@here', 'shell'],
  ])('never when %s', async (_title, { host, ran }, address, cluster, reason) => {
    await expect(firstValueFrom(policiesByRabbitmqctl(host, address, cluster))).rejects.toThrow(reason)
    expect(ran.filter((line) => line.includes('policies'))).toEqual([])
  })
  it('and a failure later is one, not an empty list', async () => {
    const { host } = machine({ ...good, list_operator_policies: { exit: 70, lines: ['Error: down'] } })
    const ask = await firstValueFrom(policiesByRabbitmqctl(host, url, 'rabbit@here'))
    await expect(lastValueFrom(ask([classic]))).rejects.toThrow('Error: down')
  })
})

describe('what rabbitmqctl told', () => {
  it('stays true while rabbitmqctl fails, and until it tells something else', async () => {
    const replies: Record<string, { exit?: number; lines: readonly string[] }> = {
      cluster_status: json(status), list_policies: json([policy('p', 'Queue', { 'max-length': 1 })]), list_operator_policies: json([]),
    }
    const { host } = machine(replies)
    const channel = { declare: () => of({}) } as unknown as AmqpChannel
    const link: AmqpLink = { serverVersion: '3.10.8', clusterName: 'rabbit@here', blocked: NEVER, channel: () => of(channel) }
    const { inspect } = queueInspector({ urls: [url], host, open: () => of(link) })
    const look = async () => {
      const { queues, policiesUnseen } = await lastValueFrom(inspect(['publicQueue']))
      const [queue] = queues
      return [queue?.kind === 'seen' ? queue.policies?.definition : undefined, policiesUnseen]
    }
    expect(await look()).toEqual([{ 'max-length': 1 }, undefined])
    replies['list_policies'] = { exit: 70, lines: ['Error: down'] }
    expect(await look()).toEqual([{ 'max-length': 1 }, 'rabbitmqctl: Error: down'])
    replies['list_policies'] = json([])
    expect(await look()).toEqual([{}, undefined])
  })
  it('does not keep us from telling of arguments when it hangs', () => {
    const channel = { declare: () => of({}) } as unknown as AmqpChannel
    const link: AmqpLink = { serverVersion: '3.10.8', clusterName: 'rabbit@here', blocked: NEVER, channel: () => of(channel) }
    let ran = 0
    const host = { ...machine({}).host, run: () => defer(() => ((ran += 1), NEVER)) }
    const seen: Inspection[] = []
    new TestScheduler(() => undefined).run(({ expectObservable }) => {
      const { inspect } = queueInspector({ urls: [url], host, open: () => of(link) })
      const look = inspect(['q']).pipe(tap((each) => seen.push(each)))
      expectObservable(concat(look, look), '50s !')
    })
    expect(seen).toMatchObject(Array(2).fill({ queues: [{ kind: 'seen' }], policiesUnseen: 'no answer within 18 s' }))
    expect(ran).toBe(2)
  })
  it('is not asked for again and again where it is of no use, until that may have changed', async () => {
    const replies: Record<string, { exit?: number; lines: readonly string[] }> = { cluster_status: { exit: 77, lines: ['Only root or rabbitmq can run rabbitmqctl'] } }
    const { host, ran } = machine(replies)
    const channel = { declare: () => of({}) } as unknown as AmqpChannel
    const link: AmqpLink = { serverVersion: '3.10.8', clusterName: 'rabbit@here', blocked: NEVER, channel: () => of(channel) }
    const { inspect, forget } = queueInspector({ urls: [url], host, open: () => of(link) })
    for (let i = 0; i < 3; i += 1) expect((await lastValueFrom(inspect(['q']))).policiesUnseen).toContain('Only root or rabbitmq')
    expect(ran).toHaveLength(1)
    Object.assign(replies, { cluster_status: json(status), list_policies: json([]), list_operator_policies: json([]) })
    forget()
    expect((await lastValueFrom(inspect(['q']))).policiesUnseen).toBeUndefined()
  })
})
