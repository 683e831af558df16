import { map, NEVER, of, Subject, tap } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { accepted, rejected, Rejection } from '../../src/delivery.js'
import type { Delivery } from '../../src/delivery.js'
import { librarySource, PublishError, toBody } from '../../src/sources/library.js'

const make = (options: Partial<Parameters<typeof librarySource<string>>[0]> = {}) =>
  librarySource<string>({ prepare: (body) => body.toString(), idOf: (value) => `id of ${value}`, ...options })

const failure = async (promise: Promise<unknown>): Promise<PublishError> => {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(PublishError)
  return error as PublishError
}

describe('librarySource', () => {
  it('resolves with the id once the delivery is accepted, and not before', async () => {
    const { publish, deliveries } = make()
    const out: Delivery<string>[] = []
    deliveries.subscribe((delivery) => out.push(delivery))
    let id: string | undefined
    const publishing = publish('{"a":1}').then((given) => (id = given))
    expect(out.map(({ value }) => value)).toEqual(['{"a":1}'])
    await Promise.resolve()
    expect(id).toBeUndefined()
    out[0]?.settle(accepted)
    await publishing
    expect(id).toBe('id of {"a":1}')
  })

  it('keeps the order of the calls, also of those that waited for the window', async () => {
    const { publish, deliveries } = make({ window: 2 })
    const seen: string[] = []
    const out: Delivery<string>[] = []
    deliveries.subscribe((delivery) => {
      seen.push(delivery.value)
      out.push(delivery)
    })
    const all = Promise.all(['1', '2', '3', '4', '5'].map((record) => publish(record)))
    expect(seen).toEqual(['1', '2'])
    for (let next = out.shift(); next !== undefined; next = out.shift()) next.settle(accepted)
    await all
    expect(seen).toEqual(['1', '2', '3', '4', '5'])
  })

  it('rejects with the reason when the delivery is rejected', async () => {
    const { publish, deliveries } = make()
    deliveries.pipe(tap(({ settle }) => settle(rejected('bad', 'test')))).subscribe()
    expect(await failure(publish('x'))).toMatchObject({ code: 'BACKHAUL_REJECTED', message: 'bad', maybeSent: false })
  })

  it('refuses what prepare refuses, without offering it', async () => {
    const { publish, deliveries } = make({
      prepare: () => {
        throw new Rejection('not JSON')
      },
    })
    let offered = 0
    deliveries.subscribe(() => (offered += 1))
    expect(await failure(publish('x'))).toMatchObject({ code: 'BACKHAUL_REJECTED', message: 'not JSON' })
    expect(offered).toBe(0)
  })

  it('says that nothing was sent when it waited outside the window until the time was up', async () => {
    const { publish, deliveries } = make({ timeoutMs: 20, open: NEVER })
    deliveries.subscribe()
    expect(await failure(publish('x'))).toMatchObject({ code: 'BACKHAUL_TIMEOUT', maybeSent: false })
  })

  it('says that it may have been sent when it was taken and the time was up', async () => {
    const { publish, deliveries } = make({ timeoutMs: 20 })
    deliveries.subscribe()
    expect(await failure(publish('x'))).toMatchObject({ code: 'BACKHAUL_TIMEOUT', maybeSent: true })
  })

  it('waits while the far end is away, and goes in order when it is there', async () => {
    const open = new Subject<boolean>()
    const { publish, deliveries } = make({ open })
    const seen: string[] = []
    deliveries.subscribe(({ value, settle }) => {
      seen.push(value)
      settle(accepted)
    })
    const all = Promise.all([publish('1'), publish('2')])
    open.next(false)
    expect(seen).toEqual([])
    open.next(true)
    await all
    expect(seen).toEqual(['1', '2'])
  })

  it('releases what waits when it is stopped, and refuses what comes later', async () => {
    const stop = new Subject<void>()
    const { publish, deliveries } = make({ stop, window: 1 })
    const out: Delivery<string>[] = []
    deliveries.subscribe((delivery) => out.push(delivery))
    const first = publish('1')
    const second = failure(publish('2'))
    stop.next()
    expect(await second).toMatchObject({ code: 'BACKHAUL_CLOSED', maybeSent: false })
    expect(await failure(publish('3'))).toMatchObject({ code: 'BACKHAUL_CLOSED', maybeSent: false })
    out[0]?.settle(accepted)
    expect(await first).toBe('id of 1')
  })

  it('passes an error of the far end on as it is', async () => {
    const { publish } = make({ open: of(true).pipe(map(() => { throw new Error('held by process 7') })) })
    await expect(publish('x')).rejects.toThrow('held by process 7')
  })
})

describe('toBody', () => {
  it('takes text and bytes as they are', () => {
    expect(toBody('{"a": 1e999}').toString()).toBe('{"a": 1e999}')
    expect(toBody(Buffer.from([1, 2]))).toEqual(Buffer.from([1, 2]))
  })

  it.each([[{ a: NaN }], [{ a: [Infinity] }], [{ a: 1n }], [{ a: () => 1 }], [{ a: { b: Symbol('x') } }]])(
    'refuses %o, which JSON would lose or change',
    (record) => {
      expect(() => toBody(record)).toThrow(/has no form in JSON/)
    },
  )

  it('refuses a cycle', () => {
    const record: Record<string, unknown> = {}
    record['self'] = record
    expect(() => toBody(record)).toThrow()
  })
})
