import type { Settings } from '../settings.js'
import { ok, problem, skipped, warning } from './doctor-finding.js'
import type { Finding } from './doctor-finding.js'

/** What the doctor needs of the machine; `main.ts` gives the real one. */
export interface Machine {
  readonly nodeVersion: string
  /** `>=20.19` */
  readonly nodeWanted: string
  readonly now: () => number
  /** When Backhaul was installed here, in milliseconds since 1970. */
  readonly installedAt: number
  /** The zone that the process runs in, and what `TZ` says. */
  readonly timeZone: string | undefined
  readonly tz: string | undefined
  /** The text of a file; undefined when it cannot be read. */
  readonly read: (path: string) => string | undefined
}

const versionOf = (text: string): readonly number[] => (/(\d+)\.(\d+)/.exec(text) ?? []).slice(1).map(Number)

export const nodeFinding = ({ nodeVersion, nodeWanted }: Machine): Finding => {
  const [major = 0, minor = 0] = versionOf(nodeVersion)
  const [wantedMajor = 0, wantedMinor = 0] = versionOf(nodeWanted)
  const enough = major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
  return enough ? ok('Node.js', nodeVersion) : problem('Node.js', `${nodeVersion} is too old`, `install Node.js ${nodeWanted}`)
}

/** The daemon's own limit where one runs: a service has other limits than a shell. */
export const openFilesFinding = ({ read }: Machine, pid?: number): Finding => {
  const of = pid === undefined ? 'this shell' : `the daemon, process ${pid}`
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(read(`/proc/${pid ?? 'self'}/limits`) ?? '')?.[1]
  if (limit === undefined) return skipped('open files', 'the limit cannot be read here')
  const count = limit === 'unlimited' ? Infinity : Number(limit)
  const todo = 'raise it: LimitNOFILE=65536 in the service, or ulimit -n'
  if (count < 256) return problem('open files', `at most ${limit} for ${of}: connections will fail`, todo)
  return count < 1024 ? warning('open files', `at most ${limit} for ${of}`, todo) : ok('open files', `at most ${limit} for ${of}`)
}

const dayMs = 86_400_000
const sinceText = (at: number): string => new Date(at).toISOString()

/** A board without a clock starts in 1970; `newestMs` is the newest thing that Backhaul has written. */
export const clockFinding = ({ now, installedAt }: Machine, newestMs = 0): Finding => {
  const behind = Math.max(installedAt, newestMs) - now()
  const text = sinceText(now())
  const todo = 'set the clock, and let it be set at every start, before Backhaul runs: chrony, or systemd-timesyncd with systemd-time-wait-sync'
  if (behind > dayMs) return problem('clock', `${text}, but files here are from ${sinceText(now() + behind)}`, todo)
  return behind > 60_000 ? warning('clock', `${text} is ${Math.round(behind / 1000)} s behind files here: it has been set back`, todo) : ok('clock', text)
}

const offsetOf = (timeZone: string, at: number): string =>
  new Intl.DateTimeFormat('en', { timeZone, timeZoneName: 'longOffset' }).formatToParts(at).find(({ type }) => type === 'timeZoneName')?.value ?? ''

const isZone = (name: string): boolean => {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }) !== undefined
  } catch {
    return false
  }
}

export const timeZoneFinding = ({ timeZone, tz, now }: Machine, { timeZone: set }: Pick<Settings, 'timeZone'>): Finding => {
  const named = set ?? timeZone ?? 'UTC' // undefined where TZ is no zone
  if (set === undefined && tz !== undefined && tz !== '' && !tz.startsWith(':') && !isZone(tz))
    return warning('time zone', `TZ is '${tz}', which is no zone: local times are those of ${named}`, 'set TZ, or BACKHAUL_TIME_ZONE, to a name such as Europe/Berlin')
  return isZone(named)
    ? ok('time zone', `${named}, now ${offsetOf(named, now())}`)
    : warning('time zone', `'${named}' is no zone: local times are those of UTC`, 'set BACKHAUL_TIME_ZONE to a name such as Europe/Berlin')
}
