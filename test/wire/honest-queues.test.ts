/** Queues that drop what they confirmed: seen at the start and within a minute, by a daemon of its own and a real RabbitMQ. */
import amqp from 'amqplib'
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { lastValueFrom } from 'rxjs'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { queueInspector } from '../../src/connections/queue-inspector.js'
import { problemsOf } from '../../src/queue-problems.js'
import type { Arguments } from '../../src/queue-problems.js'
import { describeFaults, describeWire } from './brokers.js'
import { dropQueues, eventually, mainFile, ownNames, startDaemon, temporaryFolder } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'

const barMs = 60_000

const withChannel = async <T>(url: string, work: (channel: amqp.Channel) => Promise<T>): Promise<T> => {
  const connection = await amqp.connect(url)
  const channel = await connection.createChannel()
  channel.on('error', () => undefined)
  try {
    return await work(channel)
  } finally {
    await connection.close().catch(() => undefined)
  }
}

interface Told {
  readonly what: string
  readonly verdict: string
  readonly detail: string
  readonly todo?: string
}

/** `backhaul doctor --json`, as a process of its own. */
const doctor = (env: Record<string, string>): Promise<{ code: number | null; text: string; of: (what: string) => readonly Told[] }> =>
  new Promise((resolve) => {
    const settings = { PATH: process.env['PATH'], BACKHAUL_DEVICE_ID: 'test-device', BACKHAUL_HTTP_PORT: '9', BACKHAUL_DATA_DIR: temporaryFolder('doctor') }
    const child = spawn(process.execPath, [mainFile, 'doctor', '--json'], { env: { ...settings, ...env } })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (text += data.toString()))
    child.on('close', (code) => resolve({ code, text, of: (what) => (JSON.parse(text) as { findings: Told[] }).findings.filter((each) => each.what === what) }))
  })

await describeWire('what a queue was declared with', ({ amqpUrl }) => {
  const cases: Readonly<Record<string, Arguments>> = {
    plain: {},
    classic: { 'x-max-length': 100, 'x-message-ttl': 5000, 'x-expires': 600_000, 'x-overflow': 'drop-head', 'x-dead-letter-exchange': '', 'x-max-length-bytes': 100_000, 'x-queue-mode': 'lazy', 'x-single-active-consumer': true },
    priority: { 'x-max-priority': 5 },
    quorum: { 'x-queue-type': 'quorum', 'x-delivery-limit': 5, 'x-max-length': 7, 'x-overflow': 'reject-publish', 'x-message-ttl': 60_000, 'x-quorum-initial-group-size': 1 },
    'plain quorum': { 'x-queue-type': 'quorum' },
  }
  const { queue } = ownNames()
  afterAll(() => dropQueues(amqpUrl, ...Object.keys(cases).map((name) => `${queue} ${name}`)))

  it.each(Object.entries(cases))('is found without any privilege, and again with one question: %s', async (name, given) => {
    await withChannel(amqpUrl, (channel) => channel.assertQueue(`${queue} ${name}`, { durable: true, arguments: given }))
    const { inspect } = queueInspector({ urls: [amqpUrl] })
    for (let i = 0; i < 2; i += 1) {
      const { queues, policiesUnseen } = await lastValueFrom(inspect([`${queue} ${name}`]))
      expect(queues).toMatchObject([{ kind: 'seen', arguments: given, flags: [] }])
      expect(Object.keys((queues[0] as { arguments: Arguments }).arguments).sort()).toEqual(Object.keys(given).sort())
      expect(policiesUnseen).toBe('rabbitmqctl is not asked')
    }
  })
  it('asking for a queue that is not there does not make it, and messages in one that is stay', async () => {
    const { inspect } = queueInspector({ urls: [amqpUrl] })
    expect((await lastValueFrom(inspect([`${queue} absent`]))).queues).toEqual([{ kind: 'missing', queue: `${queue} absent` }])
    await expect(withChannel(amqpUrl, (channel) => channel.checkQueue(`${queue} absent`))).rejects.toThrow('NOT_FOUND')
    const name = `${queue} plain`
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue(name, { durable: true })
    channel.sendToQueue(name, Buffer.from('{}'), { persistent: true })
    await channel.waitForConfirms()
    await lastValueFrom(inspect([name]))
    expect((await channel.checkQueue(name)).messageCount).toBe(1)
    await connection.close()
  })
  it('looking disturbs nobody: what a consumer holds stays with it, in order, and confirms go on', async () => {
    const name = `${queue} plain`
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue(name, { durable: true })
    await channel.purgeQueue(name)
    const got: { n: number; redelivered: boolean }[] = []
    let cancelled = false
    await channel.consume(name, (message) => {
      if (message === null) cancelled = true
      else got.push({ n: Number(message.content), redelivered: message.fields.redelivered })
    })
    const { inspect } = queueInspector({ urls: [amqpUrl] })
    for (let n = 0; n < 500; n += 1) {
      channel.sendToQueue(name, Buffer.from(String(n)), { persistent: true })
      if (n % 50 === 0) await lastValueFrom(inspect([name]))
    }
    await channel.waitForConfirms()
    await eventually('all received', () => got.length === 500)
    expect([cancelled, got]).toEqual([false, Array.from({ length: 500 }, (_, n) => ({ n, redelivered: false }))])
    await connection.close()
  })
  it('tells a queue that a restart empties, one that goes with its consumer, and one of another connection', async () => {
    await withChannel(amqpUrl, async (channel) => {
      await channel.assertQueue(`${queue} fleeting`, { durable: false, expires: 60_000 })
      await channel.assertQueue(`${queue} leaving`, { durable: true, autoDelete: true, expires: 60_000 })
      await channel.assertQueue(`${queue} own`, { durable: true, exclusive: true })
      const { queues } = await lastValueFrom(queueInspector({ urls: [amqpUrl] }).inspect([`${queue} fleeting`, `${queue} leaving`, `${queue} own`]))
      expect(queues.map((each) => each.kind === 'seen' && each.flags)).toEqual([['not-durable'], ['auto-delete'], ['exclusive']])
      for (const name of ['fleeting', 'leaving']) await channel.deleteQueue(`${queue} ${name}`)
    })
  })
})

const ready = async (daemon: Daemon) => (await (await daemon.get('/readyz')).json()) as { accept: { ready: boolean; reasons: string[] }; deliver: { ready: boolean; reasons: string[] } }
const alarm = (daemon: Daemon, problem: string) => daemon.metric('backhaul_queue_alarm', `problem="${problem}"`)
const isWell = async (daemon: Daemon): Promise<boolean> => {
  const { accept, deliver } = await ready(daemon)
  return accept.ready && deliver.ready && (await alarm(daemon, 'max-length')) === 0
}

describeFaults('a policy on the queue', (own) => {
  let daemon: Daemon | undefined
  beforeAll(() => own.start('rabbitmq'))
  afterEach(async () => {
    daemon?.signal('SIGKILL')
    await daemon?.ended
  })
  const start = (settings: Record<string, string> = {}): Promise<Daemon> =>
    startDaemon({ BACKHAUL_AMQP_URL: own.amqpUrl, PATH: `${own.toolFolder()}:${process.env['PATH'] ?? ''}`, ...settings })

  it('that drops is an alarm within a minute, in readiness, metrics and log, and clears when it is gone', async () => {
    daemon = await start()
    const { said } = daemon
    await eventually('looked at, and well', () => isWell(daemon as Daemon), barMs)
    await own.rabbitmqctl('set_policy', 'dropping', '^publicQueue$', '{"max-length":100}', '--apply-to', 'queues')
    await eventually('the alarm', async () => !(await ready(daemon as Daemon)).accept.ready, barMs)
    const reason = "publicQueue: drops its oldest messages beyond 100 messages (policy 'dropping': max-length 100, overflow drop-head)"
    expect(await ready(daemon)).toEqual({ accept: { ready: false, reasons: [reason] }, deliver: { ready: false, reasons: [reason] } })
    expect((await daemon.get('/readyz')).status).toBe(503)
    expect(await daemon.metric('backhaul_queue_alarm', 'queue="publicQueue",problem="max-length"')).toBe(1)
    expect(await daemon.metric('backhaul_queue_alarm', 'queue="publicQueue.dead",problem="max-length"')).toBe(0)
    await own.rabbitmqctl('clear_policy', 'dropping')
    await eventually('healed', () => isWell(daemon as Daemon), barMs)
    expect(said().match(/"level":50.*drops its oldest/g)).toHaveLength(1)
    expect(said().match(/healed: publicQueue drops/g)).toHaveLength(1)
  }, 200_000)

  it('is an alarm at once when it is there at the start, an operator policy as well; the messages go on', async () => {
    await own.rabbitmqctl('set_operator_policy', 'short-lived', '.*', '{"message-ttl":86400000}', '--apply-to', 'queues')
    daemon = await start()
    await eventually('the alarm', async () => (await alarm(daemon as Daemon, 'message-ttl')) === 1)
    expect((await ready(daemon)).deliver.reasons.map((reason) => reason.slice(0, reason.indexOf(':')))).toEqual(['publicQueue', 'publicQueue.dead'])
    expect((await daemon.post('{"n":1}')).status).toBe(202)
    await eventually('delivered', async () => (await (daemon as Daemon).metric('backhaul_delivered_total')) === 1)
    await own.rabbitmqctl('clear_operator_policy', 'short-lived')
  }, 120_000)

  it('that refuses is a warning, and no alarm', async () => {
    await own.rabbitmqctl('set_policy', 'refusing', '^publicQueue', '{"max-length":100,"overflow":"reject-publish"}', '--apply-to', 'queues')
    daemon = await start()
    await eventually('the warning', () => /"level":40.*publicQueue refuses what comes beyond 100/.test((daemon as Daemon).said()))
    expect((await ready(daemon)).accept).toEqual({ ready: true, reasons: [] })
    await own.rabbitmqctl('clear_policy', 'refusing')
  }, 120_000)

  it('an argument is an alarm without rabbitmqctl, and what is not visible is told, once', async () => {
    await withChannel(own.amqpUrl, async (channel) => {
      await channel.deleteQueue('publicQueue')
      await channel.assertQueue('publicQueue', { durable: true, maxLength: 10 })
    })
    daemon = await startDaemon({ BACKHAUL_AMQP_URL: own.amqpUrl, PATH: '/nonexistent' })
    await eventually('the alarm', async () => (await alarm(daemon as Daemon, 'max-length')) === 1)
    // rabbitmqctl of the package may be found in /usr/sbin: it talks to another node.
    expect(daemon.said().match(/not everything that may drop messages in RabbitMQ is visible/g)).toHaveLength(1)
    await withChannel(own.amqpUrl, (channel) => channel.deleteQueue('publicQueue'))
    await eventually('made anew, without the limit', () => isWell(daemon as Daemon), barMs)
  }, 100_000)

  it('is what the doctor tells: exit code 1, the policy by name, and how to get rid of it', async () => {
    const env = { PATH: `${own.toolFolder()}:${process.env['PATH'] ?? ''}`, BACKHAUL_AMQP_URL: own.amqpUrl }
    await withChannel(own.amqpUrl, (channel) => channel.assertQueue('publicQueue', { durable: true }))
    await own.rabbitmqctl('set_policy', 'dropping', '^publicQueue$', '{"max-length":100}', '--apply-to', 'queues')
    const told = await doctor(env)
    expect(told.code).toBe(1)
    const text = "drops its oldest messages beyond 100 messages (policy 'dropping': max-length 100, overflow drop-head)"
    expect(told.of('queue publicQueue')).toEqual([{ what: 'queue publicQueue', verdict: 'problem', detail: text, todo: expect.stringContaining('clear_policy') as unknown }])
    await own.rabbitmqctl('clear_policy', 'dropping')
    const well = await doctor(env)
    expect(well.of('queue publicQueue')).toEqual([{ what: 'queue publicQueue', verdict: 'ok', detail: 'classic, keeps what it confirms' }])
    expect([well.of('policies'), well.of('RabbitMQ')]).toMatchObject([[{ verdict: 'ok', detail: 'visible' }], [{ verdict: 'ok' }]])
  })

  it('a user who may not configure the queue is told so, and that is no alarm', async () => {
    await own.rabbitmqctl('add_user', 'limited', 'limited')
    await own.rabbitmqctl('set_permissions', 'limited', '^$', '.*', '.*')
    await withChannel(own.amqpUrl, (channel) => channel.assertQueue('publicQueue', { durable: true }))
    const { queues } = await lastValueFrom(queueInspector({ urls: [own.amqpUrl.replace('//', '//limited:limited@')] }).inspect(['publicQueue']))
    expect(queues).toMatchObject([{ kind: 'unseen', reason: expect.stringContaining('ACCESS_REFUSED') as unknown }])
  })

  it('RabbitMQ’s absence is no alarm of this kind', async () => {
    daemon = await start()
    await eventually('well', () => isWell(daemon as Daemon))
    await own.kill('rabbitmq')
    await eventually('away', async () => (await (daemon as Daemon).metric('backhaul_connected', 'link="rabbitmq"')) === 0)
    const { accept, deliver } = await ready(daemon)
    expect([...accept.reasons, ...deliver.reasons].filter((reason) => reason.startsWith('publicQueue'))).toEqual([])
    expect(daemon.said()).not.toContain('drops')
    await own.start('rabbitmq')
  })
})

await describeWire('the doctor, with brokers that answer', ({ amqpUrl, pulsarUrl, pulsarBinaryUrl }) => {
  const { queue, topic } = ownNames()
  afterAll(() => dropQueues(amqpUrl, queue))

  it('finds a queue that drops, and a topic that can be written to', async () => {
    await withChannel(amqpUrl, (channel) => channel.assertQueue(queue, { durable: true, messageTtl: 60_000 }))
    const told = await doctor({ BACKHAUL_AMQP_URL: amqpUrl, BACKHAUL_PULSAR_URL: pulsarUrl, BACKHAUL_PULSAR_TOPIC: topic, BACKHAUL_QUEUE: queue })
    expect(told.code).toBe(1)
    expect(told.of(`queue ${queue}`)).toMatchObject([{ verdict: 'problem', detail: 'drops messages that are older than 60000 ms (argument x-message-ttl 60000)' }])
    expect(told.of(`queue ${queue}.dead`)).toMatchObject([{ verdict: 'ok', detail: 'is not there yet: the daemon makes it' }])
    expect(told.of('policies')).toMatchObject([{ verdict: 'warning', detail: expect.stringContaining('not visible') as unknown }])
    expect(told.of('Pulsar')).toMatchObject([{ verdict: 'ok', detail: `${topic} at ${pulsarUrl} can be written to` }])
    await expect(withChannel(amqpUrl, (channel) => channel.checkQueue(`${queue}.dead`))).rejects.toThrow('NOT_FOUND')
  })
  it('finds a wrong password, a virtual host and a namespace that are not there, and says which', async () => {
    const { host } = new URL(amqpUrl)
    const wrong = await doctor({ BACKHAUL_AMQP_URL: `amqp://guest:hunter2@${host}`, BACKHAUL_PULSAR_URL: pulsarUrl, BACKHAUL_PULSAR_TOPIC: 'persistent://public/nowhere/t' })
    expect(wrong.code).toBe(1)
    expect(wrong.of('RabbitMQ')).toMatchObject([{ verdict: 'problem', todo: expect.stringContaining('name and password') as unknown }])
    expect(wrong.of('Pulsar')).toMatchObject([{ verdict: 'problem', todo: expect.stringContaining('namespace') as unknown }])
    expect(wrong.text).not.toContain('hunter2')
    const elsewhere = await doctor({ BACKHAUL_AMQP_URL: `amqp://${host}/nowhere` })
    expect(elsewhere.of('RabbitMQ')).toMatchObject([{ verdict: 'problem', todo: expect.stringContaining('virtual host nowhere') as unknown }])
  })
  it('writes to Pulsar by its own protocol too, where the native client is installed', async () => {
    const [told] = (await doctor({ BACKHAUL_PULSAR_URL: pulsarBinaryUrl, BACKHAUL_PULSAR_TOPIC: topic })).of('Pulsar')
    if (told?.verdict !== 'ok') expect(told?.todo).toContain('npm install pulsar-client')
  })
})

/** Free at the moment; RabbitMQ takes it soon. */
const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
const managementPort = await freePort()

describe('the management API', () => {
  describeFaults(
    'shows policies',
    (own) => {
      beforeAll(async () => {
        await own.start('rabbitmq')
        await withChannel(own.amqpUrl, (channel) => channel.assertQueue('publicQueue', { durable: true }))
      })
      const look = async (managementUrl: string) => lastValueFrom(queueInspector({ urls: [own.amqpUrl], managementUrl }).inspect(['publicQueue']))
      const address = `http://127.0.0.1:${managementPort}`

      it('of both kinds, and none when there are none', async () => {
        const plain = await eventually('the plugin answers', async () => {
          const seen = await look(address)
          return seen.policiesUnseen === undefined ? seen : undefined
        })
        expect(plain.queues).toMatchObject([{ kind: 'seen', policies: { definition: {}, names: [] } }])
        await own.rabbitmqctl('set_policy', 'one', '.*', '{"max-length":100,"overflow":"reject-publish"}', '--apply-to', 'queues')
        await own.rabbitmqctl('set_operator_policy', 'two', '.*', '{"expires":60000}', '--apply-to', 'queues')
        const limited = await eventually('both in force', async () => {
          const [queue] = (await look(`http://guest:guest@127.0.0.1:${managementPort}/`)).queues
          return queue?.kind === 'seen' && queue.policies?.names.length === 2 ? queue : undefined
        })
        expect(problemsOf(limited).map(({ severity, kind }) => `${severity} ${kind}`)).toEqual(['alarm expires', 'warning max-length'])
      })
      it('and says why it does not, without the password', async () => {
        const refused = await look(`http://guest:hunter2@127.0.0.1:${managementPort}`)
        expect(refused.policiesUnseen).toContain('401')
        expect(JSON.stringify(refused)).not.toContain('hunter2')
        const away = await look('http://guest:hunter2@127.0.0.1:9')
        expect(away.policiesUnseen).toContain('ECONNREFUSED')
        expect(away.queues).toMatchObject([{ kind: 'seen' }])
      })
    },
    { rabbitmqConf: `management.tcp.port = ${managementPort}\nmanagement.tcp.ip = 127.0.0.1`, rabbitmqPlugins: 'rabbitmq_management' },
  )
})
