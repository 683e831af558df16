import type { Settings } from '../settings.js'

/** One thing that the doctor looked at. */
export interface Finding {
  readonly what: string
  /** `skipped` is neither good nor bad: there was nothing to look at. */
  readonly verdict: 'ok' | 'warning' | 'problem' | 'skipped'
  readonly detail: string
  /** What to do about it. */
  readonly todo?: string
}

export const ok = (what: string, detail: string): Finding => ({ what, verdict: 'ok', detail })
export const skipped = (what: string, detail: string): Finding => ({ what, verdict: 'skipped', detail })
export const warning = (what: string, detail: string, todo: string): Finding => ({ what, verdict: 'warning', detail, todo })
export const problem = (what: string, detail: string, todo: string): Finding => ({ what, verdict: 'problem', detail, todo })

export const masked = (url: string): string => url.replace(/:[^:@/]*@/, ':***@')

const passwordsIn = (url: string): readonly string[] => {
  const { password } = new URL(url)
  return [password, decodeURIComponent(password)]
}

/** Takes every secret of the settings out of a finding, in whatever words of a broker it came. */
export const withoutSecrets = ({ amqpUrl, amqpManagementUrl, pulsarUrl, pulsarToken, httpToken }: Settings): ((finding: Finding) => Finding) => {
  const urls = [...amqpUrl, amqpManagementUrl, pulsarUrl].filter((url) => url !== undefined)
  // A word of one or two letters is in every sentence.
  const secrets = [pulsarToken, httpToken, ...urls.flatMap(passwordsIn)].filter((secret) => secret !== undefined && secret.length > 2)
  const hide = (text: string): string => secrets.reduce<string>((hidden, secret) => hidden.replaceAll(secret as string, '***'), text)
  return ({ todo, ...finding }) => ({ ...finding, detail: hide(finding.detail), ...(todo === undefined ? {} : { todo: hide(todo) }) })
}
