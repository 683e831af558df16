import type { Host } from '../connections/rabbitmqctl.js'
import type { Settings } from '../settings.js'
import type { Console } from './console.js'
import { exitCodes } from './console.js'
import { askDaemon, daemonUrl, refusal } from './daemon-client.js'
import { pulsarFindings, rabbitFindings } from './doctor-brokers.js'
import { ok, problem, skipped, warning, withoutSecrets } from './doctor-finding.js'
import type { Finding } from './doctor-finding.js'
import { folderFindings } from './doctor-folder.js'
import { clockFinding, nodeFinding, openFilesFinding, timeZoneFinding } from './doctor-machine.js'
import type { Machine } from './doctor-machine.js'

export interface DoctorParts {
  /** The settings, or one line for each thing that is wrong with them. */
  readonly settings: Settings | readonly string[]
  readonly warnings: readonly string[]
  readonly host: Host
  readonly machine: Machine
  readonly json: boolean
}

interface Readyz {
  readonly accept?: { readonly reasons: readonly string[] }
  readonly deliver?: { readonly reasons: readonly string[] }
}

const noDaemon = (url: string, pid: number | undefined): Finding =>
  pid === undefined
    ? skipped('daemon', `none answers at ${url}`)
    : warning('daemon', `process ${pid} has the data folder, but nobody answers at ${url}`, 'give this command the same settings as the daemon')

/** The running daemon’s own opinion. */
const daemonFinding = async (settings: Settings, pid: number | undefined): Promise<Finding> => {
  const url = daemonUrl(settings)
  if (settings.httpPort === 0) return skipped('daemon', 'httpPort is 0: its address is not known')
  try {
    const reply = await askDaemon(settings, { method: 'GET', path: '/readyz' })
    if (reply === undefined) return noDaemon(url, pid)
    const { accept, deliver } = JSON.parse(reply.text) as Readyz
    if (accept === undefined || deliver === undefined) return problem('daemon', `another program answers at ${url}`, 'set BACKHAUL_HTTP_PORT to a free port')
    const reasons = [...new Set([...accept.reasons, ...deliver.reasons])]
    if (reasons.length > 0) return problem('daemon', `at ${url} is not ready: ${reasons.join('; ')}`, 'see the other lines, and its log')
    const mine = await askDaemon(settings, { method: 'GET', path: '/v1/configuration' })
    if (mine?.status === 401) return warning('daemon', `at ${url} is ready, but has another token: ${refusal(mine)}`, 'give this command the same BACKHAUL_HTTP_TOKEN')
    return ok('daemon', `at ${url} is ready`)
  } catch (error) {
    return problem('daemon', `${url} answers, but not as Backhaul does: ${(error as Error).message}`, 'set BACKHAUL_HTTP_PORT to a free port')
  }
}

const settingsFindings = ({ settings, warnings }: DoctorParts): readonly Finding[] => {
  const odd = warnings.map((line) => warning('settings', line, 'correct the name: see the README for all of them'))
  if (!('deviceId' in settings)) return [...odd, ...settings.map((line) => problem('settings', line, 'correct it: backhaul check prints what is in force'))]
  return odd.length > 0 ? odd : [ok('settings', `of device ${settings.deviceId}`)]
}

const examined = async (parts: DoctorParts): Promise<readonly Finding[]> => {
  const { settings, machine, host } = parts
  const first = [nodeFinding(machine), ...settingsFindings(parts)]
  if (!('deviceId' in settings)) return [...first, openFilesFinding(machine), clockFinding(machine)]
  const [folder, rabbit, pulsar] = await Promise.all([folderFindings(settings), rabbitFindings(settings, host), pulsarFindings(settings)])
  const pid = folder.holder?.pid
  const all = [
    ...first,
    openFilesFinding(machine, pid),
    clockFinding(machine, folder.newestMs),
    timeZoneFinding(machine, settings),
    ...folder.findings,
    ...rabbit,
    ...pulsar,
    await daemonFinding(settings, pid),
  ]
  return all.map(withoutSecrets(settings))
}

const count = (findings: readonly Finding[], verdict: Finding['verdict']): number => findings.filter((each) => each.verdict === verdict).length
const plural = (number: number, word: string): string => `${number} ${word}${number === 1 ? '' : 's'}`

const lines = (findings: readonly Finding[]): readonly string[] => {
  const width = Math.max(...findings.map(({ what }) => what.length))
  const told = findings.flatMap(({ what, verdict, detail, todo }) => [
    `${(verdict === 'skipped' ? '–' : verdict).padEnd('warning'.length)}  ${what.padEnd(width)}  ${detail}`,
    ...(todo === undefined ? [] : [`${' '.repeat('warning'.length + width + 4)}→ ${todo}`]),
  ])
  const [problems, warnings] = [count(findings, 'problem'), count(findings, 'warning')]
  return [...told, '', problems + warnings === 0 ? 'All well.' : `${plural(problems, 'problem')}, ${plural(warnings, 'warning')}.`]
}

/**
 * Looks at everything that Backhaul needs: what, verdict, and what to do, one line each, or all
 * of it as one JSON object. Changes nothing, and prints no secret; opening a producer makes the
 * topic where Pulsar makes topics by itself.
 *
 * Exit code 0 when all is well, warnings included; 1 with a problem.
 */
export const doctorCommand = async (parts: DoctorParts, console: Console): Promise<number> => {
  const findings = await examined(parts)
  const well = count(findings, 'problem') === 0
  for (const line of parts.json ? [JSON.stringify({ ok: well, findings })] : lines(findings)) console.out(line)
  return well ? exitCodes.ok : exitCodes.failed
}
