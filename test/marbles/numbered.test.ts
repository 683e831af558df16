import { defer, of, Subject, throwError, timer } from 'rxjs'
import type { Subscription } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { describe, expect, it } from 'vitest'
import { PulsarUnavailable, slowProbeMs } from '../../src/connections/pulsar-answers.js'
import { pulsarNumberedWriter } from '../../src/connections/pulsar-numbered.js'
import type { Delivery } from '../../src/delivery.js'
import type { Message } from '../../src/message.js'
import { pulsarSink } from '../../src/sinks/pulsar.js'
import { randomFrom } from '../faults/memory-disk.js'
import { deduplicatingPulsar, endAll, forwarder, message, numberDisk, queueOf } from './numbered-world.js'

/** Acts at the given milliseconds of virtual time, then judges. */
const timed = (acts: Readonly<Record<number, () => void>>, endMs: number, judge: () => void): void => {
  let ended = false
  new TestScheduler(() => undefined).run(() => {
    for (const [ms, act] of Object.entries(acts)) timer(Number(ms)).subscribe(act)
    timer(endMs).subscribe(() => {
      endAll()
      ended = true
    })
  })
  expect(ended).toBe(true)
  judge()
}
const letters = (text: string): string[] => [...text]
const world = (refuses?: (id: string) => boolean, foreign?: (id: string) => boolean) => ({
  queue: queueOf(foreign),
  pulsar: deduplicatingPulsar(() => 0.99, refuses),
  disk: numberDisk(),
})

describe('numbers to Pulsar', () => {
  it('are sent again after a loss, and nothing is stored twice', () => {
    const all = world()
    timed(
      {
        0: () => (letters('abcdef').forEach(all.queue.put), forwarder(all)),
        4: () => all.pulsar.lose(),
        600: () => letters('ghi').forEach(all.queue.put),
      },
      5000,
      () => {
        expect(all.pulsar.stored.join('')).toBe('abcdefghi')
        expect(new Set(all.pulsar.names).size, 'one name').toBe(1)
        expect(all.pulsar.names.length, 'sockets').toBe(2)
      },
    )
  })

  it('are those they had when the forwarder was killed after Pulsar stored them, and new ones count under another name', () => {
    const all = world()
    let worker: ReturnType<typeof forwarder>
    timed(
      {
        0: () => (letters('abc').forEach(all.queue.put), (worker = forwarder(all))),
        100: () => letters('defgh').forEach(all.queue.put),
        // Stored, and not one receipt heard.
        103: () => worker.kill(),
        200: () => forwarder(all),
        3000: () => letters('ij').forEach(all.queue.put),
      },
      9000,
      () => {
        expect(all.pulsar.stored.join('')).toBe('abcdefghij')
        expect(new Set(all.pulsar.names).size).toBe(2)
        expect(all.queue.left()).toBe(0)
      },
    )
  })

  it('come of their own after a stop in peace: the next start begins with its first message, on its first socket', () => {
    const all = world()
    let worker: ReturnType<typeof forwarder>
    timed(
      {
        0: () => (letters('abc').forEach(all.queue.put), (worker = forwarder(all))),
        100: () => worker.stop(),
        200: () => (all.queue.put('d'), forwarder(all)),
      },
      5000,
      () => {
        expect(all.pulsar.stored.join('')).toBe('abcd')
        expect(all.pulsar.names.length).toBe(2)
      },
    )
  })

  it('go to nobody else: what comes again behind newer ones gets a new number, for the old one may never have been stored', () => {
    const all = world()
    let worker: ReturnType<typeof forwarder>
    timed(
      {
        0: () => (letters('abcdef').forEach(all.queue.put), (worker = forwarder(all))),
        // Nothing of it arrives; another program takes the first two messages for a while.
        3: () => (all.pulsar.power(false), worker.kill((id) => 'ab'.includes(id))),
        50: () => all.pulsar.power(true),
        100: () => (worker = forwarder(all)),
        2000: () => worker.kill(),
        2100: () => forwarder(all),
        2200: () => all.queue.giveBack(),
      },
      9000,
      () => {
        expect(all.pulsar.stored.join(''), 'the order in which the queue gave them').toBe('cdefab')
        expect(all.queue.left()).toBe(0)
      },
    )
  })

  it('are given anew when the name has been used beyond what is known here, and nothing is lost', () => {
    const all = world()
    let worker: ReturnType<typeof forwarder>
    let name = 0
    const newRun = () => `00000000000000${(0xa0 + Math.floor(name++ / 2)).toString(16)}` // the same for two starts in a row
    timed(
      {
        0: () => (letters('abcdef').forEach(all.queue.put), (worker = forwarder(all, { newRun }))),
        100: () => worker.stop(),
        200: () => (all.disk.restore([]), letters('ghi').forEach(all.queue.put), forwarder(all, { newRun })),
      },
      5000,
      () => {
        expect(all.pulsar.stored.join('')).toBe('abcdefghi')
        expect(all.queue.left()).toBe(0)
      },
    )
  })

  it('die with a refused message, on disk before it is told; its neighbours arrive once', () => {
    const all = world((id) => id === 'c')
    timed(
      { 0: () => (letters('abcdef').forEach(all.queue.put), forwarder(all)), 600: () => letters('gh').forEach(all.queue.put) },
      5000,
      () => {
        expect(all.queue.dead).toEqual(['c'])
        expect(all.disk.records().filter(({ kind, number }) => kind === 'dead' && number === 3)).toHaveLength(1)
        expect(all.pulsar.stored.join('')).toBe('abdefgh')
      },
    )
  })

  it('of a message without our digest are found again only when the queue says that it gave it out before', () => {
    const all = world(undefined, () => true)
    let worker: ReturnType<typeof forwarder>
    timed(
      {
        0: () => (letters('ab').forEach(all.queue.put), (worker = forwarder(all))),
        3: () => worker.kill(),
        100: () => forwarder(all),
        // The same id and bytes once more: who knows whether it is a repeat?
        3000: () => all.queue.put('a'),
      },
      9000,
      () => expect(all.pulsar.stored.join('')).toBe('aba'),
    )
  })

  it('go out in the order in which they were given, though a repeat is answered at once and makes room for one more', () => {
    const { pulsar, disk } = world()
    const { journal } = disk.open()
    const connection = pulsarNumberedWriter({ url: 'ws://pulsar', topic: 'persistent://public/default/t', key: 'd', folder: '/n', open: pulsar.open, journal: () => of(journal), allowed: of(true), newRun: () => '00000000000000ff' })
    const deliveries = new Subject<Delivery<Message>>()
    const give = (id: string, then: () => void = () => undefined): void => deliveries.next({ value: message(id), settle: then })
    let running: Subscription | undefined
    timed(
      {
        0: () => {
          running = deliveries.pipe(pulsarSink(connection)).subscribe()
          give('a')
        },
        // While the number of x is being synced.
        100: () => {
          give('x')
          give('b')
          give('a', () => give('c'))
          give('d')
        },
        1000: () => running?.unsubscribe(),
      },
      2000,
      () => expect(pulsar.stored.join('')).toBe('axbdc'),
    )
  })

  it('wait for a broker that does not drop repeats, say so, and begin by themselves once it does', () => {
    const all = world()
    const told: string[] = []
    let on = false
    const refusal = () => new PulsarUnavailable('misconfigured', 'it does not drop repeats', slowProbeMs)
    const allowed = defer(() => (on ? of(true) : throwError(refusal)))
    timed(
      {
        0: () => (letters('ab').forEach(all.queue.put), forwarder(all, { allowed, onState: (state) => told.push(state.kind === 'lost' ? String(state.error) : state.kind) })),
        60_000: () => {
          expect(all.pulsar.stored).toEqual([])
          expect(told.join()).toContain('it does not drop repeats')
          on = true
        },
      },
      200_000,
      () => expect(all.pulsar.stored.join('')).toBe('ab'),
    )
  })
})

/** One life of a worker after the other, by chance; with `adversary`, other programs take messages out and put them back, and Pulsar refuses some. */
const lives = (seed: number, adversary: boolean) => {
  const random = randomFrom(seed)
  const all = { queue: queueOf((id) => Number(id) % 7 === 0), pulsar: deduplicatingPulsar(random, (id) => adversary && seed % 4 === 0 && Number(id) % 11 === 3), disk: numberDisk(1 + Math.floor(random() * 20)) }
  const count = 120
  let worker: ReturnType<typeof forwarder> | undefined
  new TestScheduler(() => undefined).run(() => {
    // In bursts, so that something is always half done.
    for (let i = 0; i < count; i += 1) timer(Math.floor(i / 5) * 200 + i % 5).subscribe(() => all.queue.put(String(i)))
    const start = (): void => {
      worker = forwarder(all, { window: 1 + Math.floor(random() * 20) })
    }
    const round = (ms: number): void => {
      timer(ms).subscribe(() => {
        const what = random()
        if (what < 0.4) all.pulsar.lose()
        else if (what < 0.5) {
          all.pulsar.power(false)
          timer(Math.floor(random() * 500)).subscribe(() => all.pulsar.power(true))
        } else if (what < 0.65) worker?.release()
        else if (what < 0.7) {
          worker?.stop()
          timer(Math.floor(random() * 100)).subscribe(start)
        } else {
          worker?.kill((id) => adversary && random() < 0.3 && id !== '')
          timer(Math.floor(random() * 100)).subscribe(start)
          if (adversary) timer(Math.floor(random() * 2000)).subscribe(() => all.queue.giveBack())
        }
      })
    }
    start()
    for (let ms = 10; ms < count * 40; ms += 150 + Math.floor(random() * 800)) round(ms)
    timer(120_000).subscribe(() => (all.queue.giveBack(), all.pulsar.power(true)))
    timer(240_000).subscribe(endAll)
  })
  const firsts = [...new Set(all.pulsar.stored)]
  const there = new Set([...firsts, ...all.queue.dead])
  return { lost: count - there.size, doubled: all.pulsar.stored.length - firsts.length, inOrder: firsts.every((id, i) => Number(id) === i), left: all.queue.left() }
}

describe('by chance', () => {
  const seeds = Array.from({ length: Number(process.env['BACKHAUL_TEST_LIVES'] ?? 200) }, (_, i) => i + 1)

  it('a forwarder that is killed and cut off at any moment stores everything once and in order', () => {
    for (const seed of seeds) expect({ seed, ...lives(seed, false) }).toEqual({ seed, lost: 0, doubled: 0, inOrder: true, left: 0 })
  })

  it('whatever order other programs make of the queue, deduplication costs no message', () => {
    for (const seed of seeds) expect({ seed, ...lives(seed, true) }).toMatchObject({ seed, lost: 0, left: 0 })
  })
})
