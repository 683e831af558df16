import type { Settings } from '../settings.js'
import { secretNames, settingNames } from '../settings.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'

const shown = (name: keyof Settings, value: unknown): string | number | boolean | readonly string[] | undefined => {
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return undefined
  if (name === 'amqpUrl' || name === 'amqpManagementUrl' || name === 'pulsarUrl') return ([value].flat() as string[]).map((url) => url.replace(/:[^:@/]*@/, ':***@'))
  return secretNames.includes(name) ? '***' : (value as string | number | boolean | readonly string[])
}

/** Prints the settings in force, secrets masked. That they could be read is the check. */
export const checkCommand = (settings: Settings, json: boolean, console: Console): number => {
  const entries = settingNames.flatMap((name) => {
    const value = shown(name, settings[name])
    return value === undefined ? [] : [[name, value] as const]
  })
  if (json) console.out(JSON.stringify(Object.fromEntries(entries)))
  else for (const [name, value] of entries) console.out(`${name}: ${[value].flat().join(', ')}`)
  return exitCodes.ok
}
