/**
 * All rows, in the order of docs/reliability.md.
 *
 * @typedef {object} Row
 * @property {string} id                   as in docs/reliability.md
 * @property {string} fault                in plain words
 * @property {{short: number, long: number}} counts   how often the fault strikes
 * @property {string} bar                  what must hold, for people
 * @property {boolean} [split]             ingest and forward in processes of their own
 * @property {Record<string, string>} [settings]      of the daemon, beyond the usual
 * @property {object} [load]               of the sender, beyond the usual
 * @property {Record<string, number>} [atMost]        bars on the numbers of the result
 * @property {Record<string, number>} [atLeast]
 * @property {() => string | undefined} [needs]           why it cannot be run on this machine, or nothing
 * @property {object} [sabotage]           what must turn the row red
 * @property {(world: object) => Promise<{settings?: object, world?: object, close?: () => unknown} | void>} [prepare]
 *   before the daemons start: settings that are known only then, what the faults need of it, and its end
 * @property {(world: object) => Promise<object | void>} [faults]   the faults; what it gives is added to the result
 * @property {(count: number, how: {long: boolean, dist: string}) => Promise<object>} [drive]  instead of all that: a driver that has its own ledger
 */
import { brokerRows } from './rows-brokers.js'
import { drivers } from './rows-drivers.js'
import { loads } from './rows-load.js'
import { machine } from './rows-machine.js'
import { network } from './rows-network.js'
import { powerCuts } from './rows-power.js'
import { processes } from './rows-processes.js'
import { syscalls } from './rows-syscalls.js'

/** @type {readonly Row[]} */
export const rows = [...processes, ...brokerRows, ...loads, ...network, ...machine, ...syscalls, ...powerCuts, ...drivers].sort((a, b) => a.id.localeCompare(b.id))
