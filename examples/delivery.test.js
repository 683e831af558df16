// A marble test of a step and a sink of your own, under plain Node: node --test delivery.test.js
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deliver, each } from 'backhaul'
import { map, Subject, timer } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'

const run = (body) => new TestScheduler((actual, expected) => assert.deepEqual(actual, expected)).run(body)

test('a reading is settled when the far end has it, and one that is filtered at once', () => {
  run(({ hot, cold, expectObservable }) => {
    const settled = new Subject()
    const deliveries = hot('  a-b-c--- ').pipe(map((value) => ({ value, settle: ({ kind }) => settled.next(`${value} ${kind}`) })))
    const noB = each((value) => (value === 'b' ? [] : [value]))
    const slow = deliver(cold('w').pipe(map(() => () => timer(3))), { sink: 'slow' })

    expectObservable(settled).toBe('  --ba---c', { a: 'a accepted', b: 'b accepted', c: 'c accepted' })
    expectObservable(deliveries.pipe(noB, slow, map(({ value }) => value))).toBe('---a---c')
  })
})

test('after a reconnect everything unconfirmed is written again, in order, before anything new', () => {
  run(({ hot, expectObservable }) => {
    const written = new Subject()
    const writer = (ms) => (value) => (written.next(value), timer(ms))
    const connection = hot('   w---x--v', { w: writer(99), x: undefined, v: writer(1) })
    const deliveries = hot('   ab---c--').pipe(map((value) => ({ value, settle: () => {} })))

    expectObservable(written).toBe('ab-----(abc)')
    expectObservable(deliveries.pipe(deliver(connection, { sink: 'far' }), map(({ value }) => value))).toBe('--------(abc)')
  })
})
