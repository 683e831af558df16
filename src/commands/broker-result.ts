/** What RabbitMQ's tools said, and what that means: a state, a reason, an exit code. */
export const exitCodes = { ok: 0, failed: 1, refused: 2, notRunning: 3, unavailable: 69 } as const

/** Ends a command: what to tell, and the exit code. */
export class Ended extends Error {
  override readonly name = 'Ended'
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message)
  }
}

export interface Result {
  readonly exit: number
  readonly stdout: readonly string[]
  readonly lines: readonly string[]
}

export type State = 'running' | 'app-stopped' | 'node-stopped' | 'failed'

/**
 * The exit code alone does not tell: 69 is a node that is not there, an unknown queue and a
 * refused cookie alike.
 */
export const stateOf = ({ exit, lines }: Result): State => {
  const text = lines.join('\n')
  if (exit === 0) return 'running'
  if (/requires the 'rabbit' app to be running|rabbit_is_not_running/.test(text)) return 'app-stopped'
  if (/Authentication failed|TCP connection succeeded but Erlang distribution failed/i.test(text)) return 'failed'
  return /unable to (perform an operation on|connect to) node|nodedown/i.test(text) ? 'node-stopped' : 'failed'
}

export const stateText: Readonly<Record<State, string>> = {
  running: 'RabbitMQ is running.',
  'app-stopped': 'The Erlang node runs, but RabbitMQ in it is stopped: `backhaul broker start-app` starts it.',
  'node-stopped': 'The Erlang node is not running: `backhaul broker start` starts it.',
  failed: 'RabbitMQ did not tell its state.',
}

/** What the tool gave as its reason: its `Error:` line, else its last one. */
export const reasonOf = ({ exit, lines }: Result): string => {
  const said = lines.map((line) => line.trim()).filter((line) => line !== '')
  const error = said.findIndex((line) => line.startsWith('Error'))
  const reason = error < 0 ? said.at(-1) : said[error] === 'Error:' ? said[error + 1] : said[error]
  return reason ?? `it ended with exit code ${exit} and said nothing`
}

export const ended = (result: Result): Ended => {
  const state = stateOf(result)
  return state === 'failed'
    ? new Ended(exitCodes.failed, reasonOf(result))
    : new Ended(exitCodes.notRunning, stateText[state])
}

/** rabbitmqctl may put lines of its own before the JSON. */
export const jsonIn = (stdout: readonly string[]): unknown => {
  const text = stdout.join('\n')
  try {
    return JSON.parse(text.slice(text.search(/^[[{]/m)))
  } catch {
    return undefined
  }
}
