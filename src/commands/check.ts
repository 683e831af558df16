import type { Settings } from '../settings.js'
import { secretNames, settingNames } from '../settings.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'

const shown = (name: keyof Settings, value: unknown): unknown => {
  if (value === undefined || (Array.isArray(value) && value.length === 0)) return undefined
  if (name === 'amqpUrl' || name === 'pulsarUrl') return [value].flat().map((url) => String(url).replace(/:[^:@/]*@/, ':***@'))
  return secretNames.includes(name) ? '***' : value
}

/** Prints the settings in force, secrets masked. That they could be read is the check. */
export const checkCommand = (settings: Settings, json: boolean, console: Console): number => {
  const entries = settingNames.flatMap((name) => {
    const value = shown(name, settings[name])
    return value === undefined ? [] : [[name, value] as const]
  })
  if (json) console.out(JSON.stringify(Object.fromEntries(entries)))
  else for (const [name, value] of entries) console.out(`${name}: ${Array.isArray(value) ? value.join(', ') : String(value)}`)
  return exitCodes.ok
}
