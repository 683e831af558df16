import { firstValueFrom } from 'rxjs'
import type { Queue } from '../pipelines/queue.js'
import type { Settings } from '../settings.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'
import { askDaemon, daemonUrl, refusal } from './daemon-client.js'

export interface QueueDepth {
  readonly queue: string
  /** Left out when the queue cannot be asked. */
  readonly messages?: number
}

/** Opens the queues in this process: only while no daemon runs. */
export type OpenQueues = () => readonly Queue[]

const table = (depths: readonly QueueDepth[]): readonly string[] => {
  const width = Math.max(...depths.map(({ queue }) => queue.length))
  return depths.map(({ queue, messages }) => `${queue.padEnd(width)}  ${messages ?? 'not reached'}`)
}

const depthOf = async ({ name, depth }: Queue): Promise<QueueDepth> => {
  const messages = await firstValueFrom(depth(), { defaultValue: undefined })
  return { queue: name, ...(messages === undefined ? {} : { messages }) }
}

export const listQueues = async (settings: Settings, open: OpenQueues, json: boolean, console: Console): Promise<number> => {
  const reply = await askDaemon(settings, { method: 'GET', path: '/v1/queues' })
  if (reply !== undefined && reply.status !== 200) {
    console.err(`The daemon at ${daemonUrl(settings)} answered ${refusal(reply)}`)
    return exitCodes.failed
  }
  const depths = reply === undefined ? await Promise.all(open().map(depthOf)) : (JSON.parse(reply.text) as { queues: QueueDepth[] }).queues
  for (const line of json ? [JSON.stringify(depths)] : table(depths)) console.out(line)
  return depths.some(({ messages }) => messages === undefined) ? exitCodes.unavailable : exitCodes.ok
}

/** Removes everything that waits in a queue, after asking. */
export const purgeQueue = async (
  settings: Settings,
  open: OpenQueues,
  queue: string,
  yes: boolean,
  console: Console,
): Promise<number> => {
  if (!yes && (await console.ask(`Remove every message in ${queue}? They are not delivered. Type yes: `)) !== 'yes') {
    console.err('Nothing was removed. To do it without being asked: --yes')
    return exitCodes.usage
  }
  const reply = await askDaemon(settings, { method: 'POST', path: `/v1/queues/purge?queue=${encodeURIComponent(queue)}` })
  if (reply !== undefined && reply.status !== 200) {
    console.err(`The daemon at ${daemonUrl(settings)} answered ${refusal(reply)}`)
    return exitCodes.failed
  }
  const own = reply === undefined ? open().find(({ name }) => name === queue) : undefined
  if (reply === undefined && own === undefined) {
    console.err(`No queue ${queue} here.`)
    return exitCodes.usage
  }
  const removed =
    reply === undefined ? await firstValueFrom((own as Queue).purge()) : (JSON.parse(reply.text) as { removed: number }).removed
  console.out(`${removed} removed from ${queue}`)
  return exitCodes.ok
}
