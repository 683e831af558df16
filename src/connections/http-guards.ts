import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'

export interface GuardSettings {
  /** The address that is listened on. */
  readonly host: string
  readonly token?: string
  /** Origins beside those on loopback whose pages may post. */
  readonly origins?: readonly string[]
}

export interface Refusal {
  readonly status: 401 | 403
  readonly code: 'unauthorised' | 'foreign-host' | 'foreign-origin'
  readonly reason: string
}

export const isLoopback = (host: string): boolean => /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/i.test(host)

const hostOf = (header: string): string => header.replace(/:\d+$/, '')

const isLoopbackOrigin = (origin: string): boolean => {
  try {
    const { protocol, hostname } = new URL(origin)
    return /^https?:$/.test(protocol) && isLoopback(hostname)
  } catch {
    return false
  }
}

/** Digests have one length, so that neither the time nor an error tells anything about the token. */
const sameToken = (given: string, token: string): boolean => {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(token))
}

/** What a WebSocket of ours speaks. */
export const socketProtocol = 'backhaul.v1'

/** A page cannot give `new WebSocket` a header, only protocols: `['backhaul.v1', 'bearer.<base64url of the token>']`. */
const tokenOf = ({ authorization = '', upgrade, 'sec-websocket-protocol': offered = '' }: IncomingHttpHeaders): string | undefined => {
  const given = /^Bearer (.+)$/i.exec(authorization)?.[1]
  const protocols = offered.split(',').map((protocol) => protocol.trim())
  if (given !== undefined || upgrade === undefined || !protocols.includes(socketProtocol)) return given
  const encoded = protocols.find((protocol) => protocol.startsWith('bearer.'))
  return encoded === undefined ? undefined : Buffer.from(encoded.slice('bearer.'.length), 'base64url').toString()
}

/** True when a page of this origin may read the answer. */
export const allowsOrigin = (origin: string, { origins = [] }: GuardSettings): boolean =>
  isLoopbackOrigin(origin) || origins.some((allowed) => new URL(allowed).origin === origin)

/** Whether a request may go on, from its headers alone: nothing of the body has been read. */
export const guard = (headers: IncomingHttpHeaders, open: boolean, settings: GuardSettings): Refusal | undefined => {
  const { host = '', origin } = headers
  // A page of a foreign site that had its name point here would still send its own name.
  if (isLoopback(settings.host) && !isLoopback(hostOf(host))) return { status: 403, code: 'foreign-host', reason: 'foreign Host' }
  if (origin !== undefined && !allowsOrigin(origin, settings)) return { status: 403, code: 'foreign-origin', reason: 'foreign Origin' }
  if (open || settings.token === undefined) return undefined
  const given = tokenOf(headers)
  if (given !== undefined && sameToken(given, settings.token)) return undefined
  return { status: 401, code: 'unauthorised', reason: 'a bearer token is needed' }
}
