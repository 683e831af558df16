/** `backhaul dead` as a user runs it, on the embedded queue: through a daemon, and without one. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { buryInFolder, firstSeenOf, lettersOf } from '../wire/bury.js'
import { booksOf, eventually, expectBalanced, startDaemon, temporaryFolder } from '../wire/daemon-process.js'
import type { Daemon } from '../wire/daemon-process.js'
import { runCommand } from './run-command.js'

interface Line {
  readonly id: string
  readonly payload: string
  readonly properties: Record<string, string>
}
const topicLog = (folder: string): readonly Line[] =>
  (existsSync(join(folder, 'topic-log.ndjson')) ? readFileSync(join(folder, 'topic-log.ndjson'), 'utf8') : '').split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Line)
const idsOf = (out: string): readonly string[] => (JSON.parse(out) as { id: string }[]).map(({ id }) => id)
const names = (from: number, to: number): readonly string[] => Array.from({ length: to - from }, (_, n) => `letter-${from + n}`)

/** Nobody listens there. */
const nobody = { BACKHAUL_HTTP_PORT: '9' }
/** A far end that is not there: what is put back stays in the queue. */
const noPulsar = { BACKHAUL_PULSAR_URL: 'ws://127.0.0.1:9', BACKHAUL_ROLES: 'ingest,forward,broadcast' }

describe.each([{ through: 'a daemon' }, { through: 'no daemon' }])('dead letters in a folder, through $through', ({ through }) => {
  let folder: string
  let daemon: Daemon | undefined
  let env: Record<string, string>
  beforeEach(async () => {
    folder = temporaryFolder('dead')
    await buryInFolder(folder, lettersOf(7))
    daemon = through === 'a daemon' ? await startDaemon({ BACKHAUL_DATA_DIR: folder }) : undefined
    const port = daemon === undefined ? nobody : { BACKHAUL_HTTP_PORT: new URL(daemon.url).port }
    env = { ...port, BACKHAUL_DATA_DIR: folder }
  })
  afterEach(async () => {
    daemon?.signal('SIGKILL')
    await daemon?.ended
  })
  const run = (...args: readonly string[]) => runCommand(['dead', ...args], { env })
  const ids = async () => idsOf((await run('list', '--json')).out)
  /** All that is delivered once the queue is empty; a daemon of its own where none runs. */
  const delivered = async (count: number): Promise<readonly Line[]> => {
    daemon ??= await startDaemon({ BACKHAUL_DATA_DIR: folder })
    await eventually('delivered', () => topicLog(folder).length >= count)
    const books = await booksOf(daemon, 'publicQueue')
    expect(books.queued).toBe(0)
    if (through === 'a daemon') {
      expect(books).toMatchObject({ foreign: 0, replayed: count, delivered: count })
      expect(books.out).toBe(books.in)
    }
    await expectBalanced(daemon, 'forward')
    return topicLog(folder)
  }

  it('are listed, oldest first, as often as one likes, with what is known', async () => {
    const first = await run('list', '--json')
    expect(JSON.parse(first.out)).toEqual(
      lettersOf(7).map(({ value, reason, stage, attempts }, n) => ({ id: value.id, reason, stage, attempts, firstSeen: firstSeenOf(n), size: value.body.length })),
    )
    expect(await run('list', '--json')).toMatchObject({ code: 0, out: first.out, err: '' })
    const lines = (await run('list')).out.trim().split('\n')
    expect(lines.map((line) => line.split('  ')[1])).toEqual(names(0, 7))
    expect(lines[1]).toContain('pulsar, tried 2 times: reason 1')
  })
  it('are shown with the body as it is', async () => {
    const body = Buffer.from('{"n":3,"name":"letter"}')
    expect((await run('show', 'letter-3', '--body')).bytes).toEqual(body)
    const { out } = await run('show', 'letter-3')
    expect(out).toContain('id: letter-3\nreason: reason 3\nstage: pulsar\nattempts: 2\n')
    expect(out).toContain('property site: site 3\nproperty backhaul-reason: the producer’s own\n')
    expect(out.endsWith(`\n\n${body.toString()}\n`)).toBe(true)
    expect(JSON.parse((await run('show', 'letter-3', '--json')).out)).toMatchObject({ id: 'letter-3', size: body.length, body: body.toString('base64') })
    expect(await run('show', 'other')).toMatchObject({ code: 1, out: '', err: 'No dead letter other.\n' })
    expect(await ids()).toEqual(names(0, 7))
  })
  it('are put back under their ids, in their order, as their producer sent them', async () => {
    expect(await run('replay', 'letter-5', 'letter-1', 'letter-2')).toMatchObject({ code: 0, out: '3 put back\n', err: '' })
    expect(await ids()).toEqual(['letter-0', 'letter-3', 'letter-4', 'letter-6'])
    const arrived = await delivered(3)
    expect(arrived.map(({ id }) => id)).toEqual(['letter-1', 'letter-2', 'letter-5'])
    expect(arrived.map(({ payload }) => payload)).toEqual([1, 2, 5].map((n) => `{"n":${n},"name":"letter"}`))
    expect(arrived[0]?.properties).toEqual({ site: 'site 1', 'backhaul-reason': 'the producer’s own' })
  })
  it('are all put back, once that was said', async () => {
    expect(await run('replay', '--all')).toMatchObject({ code: 2, out: '' })
    expect(await ids()).toEqual(names(0, 7))
    expect(await run('replay', '--all', '--yes')).toMatchObject({ code: 0, out: '7 put back\n' })
    expect(await ids()).toEqual([])
    expect((await delivered(7)).map(({ id }) => id)).toEqual(names(0, 7))
  })
  it('are dropped, once that was said, and counted', async () => {
    expect(await run('drop', 'letter-1')).toMatchObject({ code: 2, out: '' })
    expect(await run('drop', '--all')).toMatchObject({ code: 2, out: '' })
    expect(await ids()).toEqual(names(0, 7))
    expect(await run('drop', 'letter-1', 'other', '--yes')).toMatchObject({ code: 1, out: '1 dropped\n', err: 'No dead letter other.\n' })
    expect(await ids()).toEqual(names(0, 7).filter((id) => id !== 'letter-1'))
    expect(await run('drop', '--all', '--yes')).toMatchObject({ code: 0, out: '6 dropped\n' })
    expect(await ids()).toEqual([])
  })
  it('need to be named, by ids or all, and a rate that makes sense', async () => {
    expect((await run('replay')).code).toBe(2)
    expect((await run('replay', 'letter-1', '--all', '--yes')).code).toBe(2)
    expect((await run('drop', '--yes')).code).toBe(2)
    expect(await run('replay', 'letter-1', '--rate', '0')).toMatchObject({ code: 2, err: '--rate: expected a number from 1 to 10000\n' })
    expect(await ids()).toEqual(names(0, 7))
  })
  it('are put back no faster than asked for', async () => {
    const { ms } = await run('replay', '--all', '--yes', '--rate', '2')
    expect(ms).toBeGreaterThanOrEqual(3000)
    expect((await delivered(7)).map(({ id }) => id)).toEqual(names(0, 7))
  })
})

describe('dead letters in a folder', () => {
  let daemon: Daemon | undefined
  afterEach(async () => {
    daemon?.signal('SIGKILL')
    await daemon?.ended
  })

  it('are many: pages follow each other, and replays go on to the last', async () => {
    const folder = temporaryFolder('many')
    await buryInFolder(folder, lettersOf(2500))
    daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
    const env = { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_DATA_DIR: folder }
    expect(idsOf((await runCommand(['dead', 'list', '--json'], { env })).out)).toEqual(names(0, 2500))
    expect(await runCommand(['dead', 'replay', '--all', '--yes', '--rate', '500'], { env })).toMatchObject({ code: 0, out: '2500 put back\n' })
    await eventually('delivered', () => topicLog(folder).length >= 2500)
    expect(topicLog(folder).map(({ id }) => id)).toEqual(names(0, 2500))
    expect(await daemon.metric('backhaul_replayed_messages_total')).toBe(2500)
  })
  it('are many, and the first ones gone: pages follow each other to the last', async () => {
    const folder = temporaryFolder('pages')
    await buryInFolder(folder, lettersOf(2500))
    daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
    const env = { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_DATA_DIR: folder }
    expect((await runCommand(['dead', 'drop', ...names(0, 1500), '--yes'], { env })).out).toBe('1500 dropped\n')
    const seen: string[] = []
    for (let after: string | undefined = 'queue-0', pages = 0; after !== undefined && pages < 10; pages += 1) {
      const page = (await (await daemon.get(`/v1/dead?limit=300&after=${after}`)).json()) as { dead: { id: string }[]; total: number; next?: string }
      expect(page.total).toBe(1000)
      seen.push(...page.dead.map(({ id }) => id))
      after = page.next
    }
    expect(seen).toEqual(names(1500, 2500))
  })
  it('need the token', async () => {
    daemon = await startDaemon({ BACKHAUL_HTTP_TOKEN: 'tok' })
    for (const [path, init] of [['/v1/dead', {}], ['/v1/dead/a', {}], ['/v1/dead/replay', { method: 'POST' }], ['/v1/dead/drop', { method: 'POST' }]] as const)
      expect((await fetch(`${daemon.url}${path}`, init)).status, path).toBe(401)
    const env = { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_DATA_DIR: daemon.folder }
    expect((await runCommand(['dead', 'list'], { env })).code).toBe(1)
    expect(await runCommand(['dead', 'list', '--json'], { env: { ...env, BACKHAUL_HTTP_TOKEN: 'tok' } })).toMatchObject({ code: 0, out: '[]\n' })
    const headers = { authorization: 'Bearer tok', 'content-type': 'application/json' }
    const ask = async (path: string, body: string) => (await fetch(`${daemon?.url}${path}`, { method: 'POST', headers, body })).status
    for (const body of ['', '[]', '{}', '{"ids":"a"}', '{"all":false}', '{"all":true,"ids":[]}', '{"all":true,"rate":0}', '{"all":true,"within":-1}'])
      expect([await ask('/v1/dead/replay', body), await ask('/v1/dead/drop', body)], body).toEqual([422, 422])
  })
  it('rejected again, they are letters again, and can be put back again', async () => {
    const folder = temporaryFolder('again')
    const body = Buffer.from('no JSON')
    await buryInFolder(folder, [{ value: { id: 'bad', body, properties: { site: 'north' } }, reason: 'odd', stage: 'elsewhere', attempts: 1, firstSeen: 0 }])
    daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
    const env = { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_DATA_DIR: folder }
    for (let round = 1; round <= 3; round += 1) {
      expect(await runCommand(['dead', 'replay', '--all', '--yes'], { env })).toMatchObject({ code: 0, out: '1 put back\n' })
      await eventually('buried again', async () => (await daemon?.metric('backhaul_dead_lettered_total')) === round)
      const [letter] = JSON.parse((await runCommand(['dead', 'list', '--json'], { env })).out) as { id: string; reason: string }[]
      expect(letter).toMatchObject({ id: 'bad', reason: 'not JSON', stage: 'check' })
    }
    expect(JSON.parse((await runCommand(['dead', 'show', 'bad', '--json'], { env })).out)).toMatchObject({ properties: { site: 'north' }, body: body.toString('base64') })
    const books = await booksOf(daemon, 'publicQueue')
    expect(books).toMatchObject({ replayed: 3, deadLettered: 3, foreign: 0, queued: 0 })
    expect(books.out).toBe(books.in)
  })
  it('killed in the middle of replays, again and again, the daemon loses none, and each arrives once', async () => {
    const folder = temporaryFolder('killed')
    const count = 300
    await buryInFolder(folder, lettersOf(count))
    let interrupted = 0
    for (let round = 0; round < 4; round += 1) {
      const doomed = await startDaemon({ BACKHAUL_DATA_DIR: folder, ...noPulsar })
      const env = { BACKHAUL_HTTP_PORT: new URL(doomed.url).port, BACKHAUL_DATA_DIR: folder }
      const replaying = runCommand(['dead', 'replay', '--all', '--yes', '--rate', '1000'], { env })
      const goal = 20 + 17 * round
      await eventually('some are back', async () => (await doomed.metric('backhaul_replayed_messages_total')) >= goal)
      doomed.signal('SIGKILL')
      await doomed.ended
      if ((await replaying).code !== 0) interrupted += 1
    }
    expect(interrupted).toBeGreaterThan(0)
    daemon = await startDaemon({ BACKHAUL_DATA_DIR: folder })
    const env = { BACKHAUL_HTTP_PORT: new URL(daemon.url).port, BACKHAUL_DATA_DIR: folder }
    expect((await runCommand(['dead', 'replay', '--all', '--yes', '--rate', '1000'], { env })).code).toBe(0)
    await eventually('all delivered', async () => new Set(topicLog(folder).map(({ id }) => id)).size === count && (await daemon?.metric('backhaul_queued_messages', 'queue="publicQueue"')) === 0)
    expect(topicLog(folder).map(({ id }) => id)).toEqual(names(0, count))
    expect(idsOf((await runCommand(['dead', 'list', '--json'], { env })).out)).toEqual([])
  }, 120_000)
})
