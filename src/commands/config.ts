import { join } from 'node:path'
import { concatMap, distinctUntilChanged, filter, firstValueFrom, from, map, takeUntil, timer } from 'rxjs'
import type { Observable } from 'rxjs'
import { lastValueFrom } from 'rxjs'
import { keptConfiguration } from '../sinks/configuration-store.js'
import type { Settings } from '../settings.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'
import { askDaemon, daemonUrl, refusal } from './daemon-client.js'

/** The configuration in force: from the running daemon, else from the data folder. */
const current = async (settings: Settings): Promise<string | undefined> => {
  const reply = await askDaemon(settings, { method: 'GET', path: '/v1/configuration' })
  if (reply?.status === 200) return reply.text
  if (reply?.status === 404) return undefined
  if (reply !== undefined) throw new Error(`The daemon at ${daemonUrl(settings)} answered ${refusal(reply)}`)
  const kept = await firstValueFrom(keptConfiguration(join(settings.dataDir, 'configuration'), settings.configTopic))
  return kept?.toString()
}

export const getConfiguration = async (settings: Settings, console: Console): Promise<number> => {
  const text = await current(settings)
  if (text === undefined) {
    console.err(`No configuration has come on ${settings.configTopic} yet.`)
    return exitCodes.failed
  }
  console.out(text)
  return exitCodes.ok
}

/** Prints the configuration, and again each time another one comes, until stopped. */
export const watchConfiguration = async (settings: Settings, console: Console, stop: Observable<unknown>): Promise<number> => {
  const changes = timer(0, 1000).pipe(
    takeUntil(stop),
    concatMap(() => from(current(settings))),
    filter((text) => text !== undefined),
    distinctUntilChanged(),
    map((text) => console.out(text)),
  )
  await lastValueFrom(changes, { defaultValue: undefined })
  return exitCodes.ok
}
