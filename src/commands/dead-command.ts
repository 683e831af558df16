import { Command } from 'commander'
import type { DeadSummary } from '../dead-letter.js'
import type { DeadChoice, DeadProgress } from '../pipelines/dead.js'
import { defaultRate, maxRate } from '../pipelines/dead-routes.js'
import type { Settings } from '../settings.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'
import { deadDesk } from './dead.js'
import type { DeadDesk, OpenQueues } from './dead.js'

type Act = (settings: Settings, options: Record<string, unknown>, args: readonly string[]) => Promise<number>

export interface DeadCommandParts {
  /** Makes a command that takes every setting as a flag. */
  readonly command: (name: string, about: string, act: Act) => Command
  readonly console: Console
  readonly open: OpenQueues
}

const pageLetters = 10_000

/** Control characters of somebody's text must not reach a terminal. */
const plain = (text: string): string => text.replace(/[\p{Cc}\p{Cf}]/gu, '?')

const row = ({ id, reason, stage, attempts, firstSeen, size }: DeadSummary): string =>
  plain([firstSeen, id, `${size} bytes`, `${stage}, tried ${attempts} times: ${reason}`].join('  ')).replace('tried 1 times', 'tried once')

/** Page by page: the store may be larger than the memory. */
const list = async (desk: DeadDesk, json: boolean, console: Console): Promise<number> => {
  let after: string | undefined
  let held: string | undefined // the last line, until it is known whether another follows
  let count = 0
  let all = 0
  do {
    const { dead, total, next } = await desk.list(pageLetters, after)
    all = total
    for (const letter of dead) {
      if (!json) console.out(row(letter))
      else if (held !== undefined) console.out(`${held},`)
      held = `${count > 0 ? ' ' : '['}${JSON.stringify(letter)}`
      count += 1
    }
    after = next
  } while (after !== undefined)
  if (json) console.out(held === undefined ? '[]' : `${held}]`)
  else if (count === 0) console.err('No dead letters.')
  if (count < all) console.err(`${all - count} more lie behind these: they can be seen when these are gone.`)
  return exitCodes.ok
}

const show = async (desk: DeadDesk, id: string, { json, body }: { json: boolean; body: boolean }, console: Console): Promise<number> => {
  const letter = await desk.show(id)
  if (letter === undefined) {
    console.err(`No dead letter ${plain(id)}.`)
    return exitCodes.failed
  }
  const { properties, body: bytes, ...known } = letter
  if (json) console.out(JSON.stringify({ ...known, properties, body: bytes.toString('base64') }))
  else {
    const lines = [...Object.entries(known), ...Object.entries(properties).map(([name, value]) => [`property ${name}`, value] as const)]
    if (!body) for (const [name, value] of lines) console.out(`${plain(name)}: ${plain(String(value))}`)
    if (!body) console.out('')
    console.write(bytes)
    if (!body) console.out('')
  }
  return exitCodes.ok
}

interface Work {
  readonly ids: readonly string[]
  readonly all: boolean
  readonly yes: boolean
  /** Whether single letters are asked for, too. */
  readonly asksAlways: boolean
  readonly question: (what: string) => string
  /** `put back`, `dropped` */
  readonly done: string
  readonly step: (choice: DeadChoice) => Promise<DeadProgress>
}

/** Request after request, until all that was there at the beginning has had its turn. */
const work = async (desk: DeadDesk, { ids, all, yes, asksAlways, question, done, step }: Work, console: Console): Promise<number> => {
  if ((ids.length === 0) !== all) {
    console.err('Say which: ids, or --all.')
    return exitCodes.usage
  }
  const { total } = await desk.list(1)
  if (!yes && (all || asksAlways)) {
    const what = all ? `all dead letters (${total})` : `${ids.length} of the dead letters`
    if ((await console.ask(`${question(what)} Type yes: `)) !== 'yes') {
      console.err('Nothing was done. To do it without being asked: --yes')
      return exitCodes.usage
    }
  }
  const found = new Set<string>()
  let count = 0
  let within: number | undefined
  for (;;) {
    const progress: DeadProgress = await step({ ...(all ? {} : { ids }), ...(within === undefined ? {} : { within }) })
    count += progress.ids.length
    within = progress.within
    for (const id of progress.ids) found.add(id)
    const stuck = progress.ids.length === 0
    if (stuck && progress.more && progress.failed === undefined && !all) {
      console.err('The last letters of the store could not be looked at: there are too many before them.')
      break
    }
    if (progress.failed !== undefined || (progress.more && stuck)) {
      console.err(`${progress.failed ?? 'nothing more could be reached'}. ${count} ${done}, the others are still there: say it again.`)
      return exitCodes.unavailable
    }
    if (!progress.more) break
    console.err(`${count} of ${all ? total : ids.length} ${done}`)
  }
  console.out(`${count} ${done}`)
  const missing = ids.filter((id) => !found.has(id))
  for (const id of missing) console.err(`No dead letter ${plain(id)}.`)
  return missing.length === 0 ? exitCodes.ok : exitCodes.failed
}

/** `backhaul dead list | show | replay | drop` */
export const deadCommand = ({ command, console, open }: DeadCommandParts): Command => {
  const at = async (settings: Settings, act: (desk: DeadDesk) => Promise<number>): Promise<number> => {
    const desk = await deadDesk(settings, open)
    try {
      return await act(desk)
    } catch (error) {
      const { code, status } = error as { code?: string; status?: number }
      if (code !== 'BACKHAUL_QUEUE_AWAY' && status !== 503) throw error
      console.err((error as Error).message)
      return exitCodes.unavailable
    } finally {
      desk.close()
    }
  }
  const rateOf = (text: unknown): number | undefined => {
    const rate = Number(text)
    return rate >= 1 && rate <= maxRate ? rate : undefined
  }
  const replay: Act = (settings, { rate: given, all, yes }, ids) =>
    at(settings, async (desk) => {
      const rate = rateOf(given)
      if (rate === undefined) {
        console.err(`--rate: expected a number from 1 to ${maxRate}`)
        return exitCodes.usage
      }
      const question = (what: string): string => `Put ${what} back at the end of ${settings.queue}?`
      return work(desk, { ids, all: all === true, yes: yes === true, asksAlways: false, question, done: 'put back', step: (choice) => desk.replay(choice, rate) }, console)
    })
  const drop: Act = (settings, { all, yes }, ids) =>
    at(settings, (desk) => {
      const question = (what: string): string => `Drop ${what}? They are gone for good.`
      return work(desk, { ids, all: all === true, yes: yes === true, asksAlways: true, question, done: 'dropped', step: desk.drop }, console)
    })
  return new Command('dead')
    .description('what was rejected: look at it, put it back, drop it')
    .addCommand(command('list', 'all dead letters, oldest first', (settings, { json }) => at(settings, (desk) => list(desk, json === true, console))).option('--json', 'a JSON array'))
    .addCommand(
      command('show', 'what is known of one, and its body', (settings, { json, body }, [id = '']) => at(settings, (desk) => show(desk, id, { json: json === true, body: body === true }, console)))
        .argument('<id>')
        .option('--json', 'JSON, the body in base64')
        .option('--body', 'the body alone, byte for byte'),
    )
    .addCommand(
      command('replay', 'put them back at the end of the queue, in their order', replay)
        .argument('[ids...]')
        .option('--all', 'every dead letter there is now')
        .option('--rate <number>', 'messages per second', String(defaultRate))
        .option('--yes', 'do not ask'),
    )
    .addCommand(command('drop', 'remove them for good', drop).argument('[ids...]').option('--all', 'every dead letter there is now').option('--yes', 'do not ask'))
}
