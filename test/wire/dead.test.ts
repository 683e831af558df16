/** Dead letters in a real RabbitMQ: looked at, put back, dropped; whoever does it killed in the middle. */
import amqp from 'amqplib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runCommand } from '../contract/run-command.js'
import { describeWire } from './brokers.js'
import { buryInFolder, buryInRabbit, lettersOf } from './bury.js'
import { booksOf, dropQueues, eventually, expectBalanced, ownNames, startDaemon, temporaryFolder } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

const idsOf = (out: string): readonly string[] => (JSON.parse(out) as { id: string }[]).map(({ id }) => id)
const names = (from: number, to: number): readonly string[] => Array.from({ length: to - from }, (_, n) => `letter-${from + n}`)
const nobody = { BACKHAUL_HTTP_PORT: '9' }

await describeWire('dead letters in RabbitMQ', ({ amqpUrl, pulsarUrl }) => {
  let own: ReturnType<typeof ownNames>
  let settings: Record<string, string>
  const daemons: Daemon[] = []
  beforeEach(() => {
    own = ownNames()
    settings = { BACKHAUL_AMQP_URL: amqpUrl, BACKHAUL_PULSAR_URL: pulsarUrl, BACKHAUL_QUEUE: own.queue, BACKHAUL_PULSAR_TOPIC: own.topic, BACKHAUL_DATA_DIR: temporaryFolder('dead-wire') }
  })
  afterEach(async () => {
    for (const daemon of daemons.splice(0)) {
      daemon.signal('SIGKILL')
      await daemon.ended
    }
    await dropQueues(amqpUrl, own.queue, `${own.queue}.dead`)
  })
  const start = async (more: Record<string, string> = {}): Promise<Daemon> => {
    const daemon = await startDaemon({ ...settings, BACKHAUL_ROLES: 'ingest,forward', ...more })
    daemons.push(daemon)
    return daemon
  }
  const by = (daemon: Daemon | undefined, ...args: readonly string[]) =>
    runCommand(['dead', ...args], { env: { ...settings, ...(daemon === undefined ? nobody : { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_DATA_DIR: daemon.folder }) } })
  /** As another program finds them in the queue. */
  const inQueue = async (queue: string): Promise<readonly { id: string; headers: Record<string, unknown>; redelivered: boolean }[]> => {
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createChannel()
    const found: { id: string; headers: Record<string, unknown>; redelivered: boolean }[] = []
    for (;;) {
      const got = await channel.get(queue)
      if (got === false) break
      found.push({ id: String(got.properties.messageId), headers: got.properties.headers ?? {}, redelivered: got.fields.redelivered })
    }
    await channel.close()
    await connection.close()
    return found
  }
  const arrived = async (count: number) => {
    const messages = await readTopic(pulsarUrl, own.topic, { until: (read) => new Set(read.map(({ properties }) => properties['messageId'])).size >= count, deadlineMs: 60_000 })
    return messages.map(({ properties }) => properties['messageId'] as string)
  }

  describe.each(['classic', 'quorum'])('of the type %s', (type) => {
    beforeEach(() => {
      settings = { ...settings, BACKHAUL_QUEUE_TYPE: type }
    })

    it('looking changes neither order nor number; putting back keeps the order and removes what was added', async () => {
      await buryInRabbit(amqpUrl, own.queue, lettersOf(40), type as 'classic')
      const alone = await by(undefined, 'list', '--json')
      const daemon = await start({ BACKHAUL_PULSAR_URL: 'ws://127.0.0.1:9' })
      const listed = await by(daemon, 'list', '--json')
      expect(idsOf(listed.out)).toEqual(names(0, 40))
      expect((await by(daemon, 'show', 'letter-17', '--body')).out).toBe('{"n":17,"name":"letter"}')
      expect(await by(daemon, 'list', '--json')).toMatchObject({ code: 0, out: alone.out, err: '' })
      expect(await by(daemon, 'replay', 'letter-30', 'letter-4', 'letter-5')).toMatchObject({ code: 0, out: '3 put back\n' })
      const rest = names(0, 40).filter((id) => !['letter-4', 'letter-5', 'letter-30'].includes(id))
      expect(idsOf((await by(daemon, 'list', '--json')).out)).toEqual(rest)
      expect(await by(daemon, 'replay', '--all', '--yes', '--rate', '500')).toMatchObject({ code: 0, out: '37 put back\n' })
      expect(await by(daemon, 'list', '--json')).toMatchObject({ out: '[]\n' })
      const back = await inQueue(own.queue)
      expect(back.map(({ id }) => id)).toEqual(['letter-4', 'letter-5', 'letter-30', ...rest])
      expect(back.filter(({ redelivered }) => redelivered)).toEqual([])
      expect(back[3]?.headers).toMatchObject({ site: 'site 0', 'backhaul-reason': 'the producer’s own' })
      for (const { headers } of back) expect(Object.keys(headers).filter((name) => name.startsWith('backhaul-')).sort().join()).toMatch(/^(backhaul-digest,)?backhaul-reason,backhaul-replayed$/)
    }, 90_000)

    it('whoever puts them back killed in the middle, again and again: none lost, each arrives once, in order', async () => {
      const count = 400
      await buryInRabbit(amqpUrl, own.queue, lettersOf(count), type as 'classic')
      // Of its own, so that the kills hit replays and nothing else.
      const forwarder = await start({ BACKHAUL_DATA_DIR: temporaryFolder('dead-forwarder'), BACKHAUL_ROLES: 'forward' })
      let interrupted = 0
      for (let round = 0; round < 3; round += 1) {
        const doomed = await start({ BACKHAUL_ROLES: 'ingest' })
        const replaying = by(doomed, 'replay', '--all', '--yes', '--rate', '200')
        const goal = 15 + 7 * round
        await eventually('some are back', async () => (await doomed.metric('backhaul_replayed_messages_total')) >= goal)
        doomed.signal('SIGKILL')
        await doomed.ended
        if ((await replaying).code !== 0) interrupted += 1
      }
      expect(interrupted).toBeGreaterThan(0)
      await eventually('the last ones', async () => (await by(undefined, 'replay', '--all', '--yes', '--rate', '1000')).code === 0, 60_000)
      const ids = await arrived(count)
      expect(ids).toEqual(names(0, count))
      await eventually('all done', async () => (await forwarder.metric('backhaul_pipeline_unsettled', 'forward')) === 0 && (await booksOf(forwarder, own.queue)).queued === 0)
      expect(await readTopic(pulsarUrl, own.topic)).toHaveLength(count)
      expect(await forwarder.metric('backhaul_foreign_total')).toBe(0)
      await expectBalanced(forwarder, 'forward')
    }, 180_000)
  })

  it('the whole daemon killed in the middle while Pulsar is away, and again: each arrives once, in order', async () => {
    const count = 400
    await buryInRabbit(amqpUrl, own.queue, lettersOf(count))
    for (let round = 0; round < 3; round += 1) {
      const doomed = await start({ BACKHAUL_PULSAR_URL: 'ws://127.0.0.1:9' })
      const replaying = by(doomed, 'replay', '--all', '--yes', '--rate', '200')
      await eventually('some are back', async () => (await doomed.metric('backhaul_replayed_messages_total')) >= 20)
      doomed.signal('SIGKILL')
      await doomed.ended
      await replaying
    }
    const daemon = await start()
    expect((await by(daemon, 'replay', '--all', '--yes', '--rate', '1000')).code).toBe(0)
    expect(await arrived(count)).toEqual(names(0, count))
    await eventually('all done', async () => (await booksOf(daemon, own.queue)).queued === 0)
    expect(await readTopic(pulsarUrl, own.topic)).toHaveLength(count)
  }, 180_000)

  it('restarted between the delivery and a second copy of the same replay, the forwarder remembers', async () => {
    await buryInRabbit(amqpUrl, own.queue, lettersOf(9))
    expect((await by(undefined, 'replay', '--all', '--yes')).code).toBe(0)
    const connection = await amqp.connect(amqpUrl)
    const channel = await connection.createConfirmChannel()
    const again: (() => void)[] = []
    for (let got = await channel.get(own.queue); got !== false; got = await channel.get(own.queue)) {
      const { content, properties } = got
      again.push(() => channel.sendToQueue(own.queue, content, { messageId: String(properties.messageId), headers: properties.headers as object, persistent: true }))
    }
    expect(again).toHaveLength(9)
    channel.nackAll()
    const first = await start()
    expect(await arrived(9)).toEqual(names(0, 9))
    expect(await first.stop()).toBe(0)
    // As if the removals had been lost, and all been put back again.
    again.forEach((publish) => publish())
    await channel.waitForConfirms()
    await connection.close()
    const second = await start()
    await eventually('all repeats dropped', async () => (await second.metric('backhaul_repeats_dropped_total')) === 9)
    expect(await readTopic(pulsarUrl, own.topic)).toHaveLength(9)
    await expectBalanced(second, 'forward')
  }, 120_000)

  it('those in the spool are listed while RabbitMQ is away, and are put back once it is there', async () => {
    await buryInRabbit(amqpUrl, own.queue, lettersOf(3))
    const spooled = lettersOf(5).slice(3)
    await buryInFolder(settings['BACKHAUL_DATA_DIR'] as string, spooled)
    const away = { ...settings, ...nobody, BACKHAUL_AMQP_URL: 'amqp://127.0.0.1:9' }
    const list = await runCommand(['dead', 'list', '--json'], { env: away })
    expect(idsOf(list.out)).toEqual(['letter-3', 'letter-4'])
    expect(await runCommand(['dead', 'show', 'letter-4', '--body'], { env: away })).toMatchObject({ code: 0, out: '{"n":4,"name":"letter"}' })
    expect(await runCommand(['dead', 'replay', '--all', '--yes'], { env: away })).toMatchObject({ code: 69, out: '' })
    expect(await by(undefined, 'replay', '--all', '--yes')).toMatchObject({ code: 0, out: '5 put back\n' })
    expect((await inQueue(own.queue)).map(({ id }) => id)).toEqual(names(0, 5))
    expect(await by(undefined, 'list', '--json')).toMatchObject({ out: '[]\n' })
  }, 90_000)

  it('replays balance the books; what is dropped is counted apart', async () => {
    await buryInRabbit(amqpUrl, own.queue, lettersOf(10))
    const daemon = await start()
    await eventually('taken', async () => (await daemon.post('{"fresh":1}')).status === 202)
    expect((await by(daemon, 'drop', 'letter-0', 'letter-1', '--yes')).code).toBe(0)
    expect((await by(daemon, 'replay', '--all', '--yes')).code).toBe(0)
    await arrived(9)
    const books = await eventually('at rest', async () => {
      const now = await booksOf(daemon, own.queue)
      return now.delivered === 9 && now.queued === 0 && now
    })
    expect(books).toMatchObject({ accepted: 1, replayed: 8, delivered: 9, foreign: 0, deadLettered: 0 })
    expect(books.out).toBe(books.in)
    expect(await daemon.metric('backhaul_dead_letters_dropped_total')).toBe(2)
    await expectBalanced(daemon, 'ingest', 'forward')
  }, 60_000)
})
