/** RabbitMQ killed in the middle of replays. */
import { afterEach, expect, it } from 'vitest'
import { runCommand } from '../contract/run-command.js'
import { describeFaults } from './brokers.js'
import { buryInRabbit, lettersOf } from './bury.js'
import { booksOf, eventually, expectBalanced, ownNames, startDaemon } from './daemon-process.js'
import type { Daemon } from './daemon-process.js'
import { readTopic } from './independent-consumer.js'

describeFaults('dead letters while RabbitMQ dies', (own) => {
  let daemon: Daemon | undefined
  afterEach(async () => {
    daemon?.signal('SIGKILL')
    await daemon?.ended
  })

  it('are all there afterwards, and each arrives once, in order', async () => {
    const count = 500
    const { queue, topic } = ownNames()
    await own.start()
    await buryInRabbit(own.amqpUrl, queue, lettersOf(count))
    const running = (daemon = await startDaemon({ BACKHAUL_AMQP_URL: own.amqpUrl, BACKHAUL_PULSAR_URL: own.pulsarUrl, BACKHAUL_QUEUE: queue, BACKHAUL_PULSAR_TOPIC: topic, BACKHAUL_ROLES: 'ingest,forward' }))
    const dead = (...verb: string[]) => runCommand(['dead', ...verb], { env: { BACKHAUL_HTTP_PORT: new URL(running.url).port, BACKHAUL_DATA_DIR: running.folder } })
    const replay = () => dead('replay', '--all', '--yes', '--rate', '100')
    const put = () => running.metric('backhaul_replayed_messages_total')
    await eventually('ready', async () => (await running.get('/readyz')).status === 200, 60_000)
    await own.remember()
    for (let round = 0; round < 2; round += 1) {
      // Until it is connected again a replay is refused at once.
      await eventually('the dead letters can be reached', async () => (await dead('list')).code === 0, 60_000)
      const before = await put()
      const replaying = replay()
      await eventually('some are back', async () => (await put()) >= before + 30)
      await own.kill('rabbitmq')
      expect(await replaying).toMatchObject({ code: 69, out: '' })
      await own.start('rabbitmq')
    }
    await eventually('the last ones', async () => (await replay()).code === 0, 90_000)
    const read = await readTopic(own.pulsarUrl, topic, { until: (messages) => new Set(messages.map(({ properties }) => properties['messageId'])).size >= count, deadlineMs: 60_000 })
    await eventually('at rest', async () => (await booksOf(running, queue)).queued === 0)
    expect(read.map(({ properties }) => properties['messageId'])).toEqual(lettersOf(count).map(({ value }) => value.id))
    expect(await readTopic(own.pulsarUrl, topic)).toHaveLength(count)
    await expectBalanced(running, 'forward')
  }, 300_000)
})
