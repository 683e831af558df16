import { defer, EMPTY, finalize, ignoreElements, interval, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import type { QueueStats } from '../connections/queue-engine.js'
import type { Log } from '../log.js'
import type { Store } from './queue.js'

const tickMs = 1000

/** What somebody must hear of, and how bad it is. */
const troubles = [
  ['lostMessages', 'error', 'damage on the disk took messages that had been accepted'],
  ['damagedRecords', 'error', 'there is damage on the disk; it is stepped around, and the files are kept aside'],
  ['lostFiles', 'error', 'the file that is being written was removed, replaced or shortened by somebody; it is written anew'],
  ['writeErrors', 'warn', 'the disk refuses to write; nothing of that was accepted'],
  ['syncErrors', 'warn', 'the disk fails to sync; nothing of that was accepted'],
] as const satisfies readonly (readonly [keyof QueueStats, 'error' | 'warn', string])[]

/**
 * Tells in the log, within a second and once for each change, what the embedded queues count as
 * damage and as failures of their disk. Emits nothing; ends when it is unsubscribed.
 */
export const watchStores = (stores: readonly Store[], log: Log): Observable<never> =>
  defer(() => {
    if (stores.length === 0) return EMPTY
    const told = new Map<string, number>()
    const look = (): void => {
      for (const { name: store, stats } of stores) {
        const now = stats()
        if (now === undefined) continue
        for (const [count, level, text] of troubles) {
          const key = `${store} ${count}`
          if (now[count] > (told.get(key) ?? 0)) log[level]({ store, [count]: now[count] }, text)
          // An embedded queue that was opened again counts anew.
          told.set(key, now[count])
        }
      }
    }
    return interval(tickMs).pipe(tap(look), finalize(look), ignoreElements())
  })
