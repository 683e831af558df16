import { timer } from 'rxjs'
import { TestScheduler } from 'rxjs/testing'
import { expect, it } from 'vitest'
import type { QueueStats } from '../../src/connections/queue-engine.js'
import { watchStores } from '../../src/pipelines/watch-stores.js'

const well: QueueStats = { depth: 0, bytes: 0, usedBytes: 0, unsettled: 0, damagedRecords: 0, damagedBytes: 0, lostMessages: 0, tornBytes: 0, lostFiles: 0, writeErrors: 0, syncErrors: 0 }

/** What is told in five seconds, and when, of stats that change as given (by milliseconds). */
const told = (changes: Readonly<Record<number, Partial<QueueStats> | undefined>>): string[] => {
  let stats: QueueStats | undefined = well
  const lines: string[] = []
  const time = new TestScheduler(() => undefined)
  const say = (level: string) => (fields: object): void => void lines.push(`${time.now()} ${level} ${JSON.stringify(fields)}`)
  time.run(({ expectObservable }) => {
    for (const [at, change] of Object.entries(changes)) timer(Number(at)).subscribe(() => (stats = change && { ...well, ...change }))
    expectObservable(watchStores([{ name: 'spool', stats: () => stats }], { error: say('error'), warn: say('warn'), info: say('info'), debug: say('debug') }), '5s !')
  })
  return lines
}

it('tells nothing while all is well, or while the queue is not open', () => {
  expect(told({ 500: { usedBytes: 9, depth: 9, tornBytes: 9 }, 1500: undefined })).toEqual([])
})

it('tells a change within a second, once', () => {
  expect(told({ 500: { lostMessages: 2 }, 2500: { lostMessages: 3, syncErrors: 1 } })).toEqual([
    '1000 error {"store":"spool","lostMessages":2}',
    '3000 error {"store":"spool","lostMessages":3}',
    '3000 warn {"store":"spool","syncErrors":1}',
  ])
})

it('tells what a queue that was opened again has met anew', () => {
  expect(told({ 500: { lostFiles: 1 }, 1500: {}, 2500: { lostFiles: 1 } })).toEqual(['1000 error {"store":"spool","lostFiles":1}', '3000 error {"store":"spool","lostFiles":1}'])
})

it('looks once more when it ends', () => {
  expect(told({ 4500: { writeErrors: 1 } })).toEqual(['5000 warn {"store":"spool","writeErrors":1}'])
})
