import type { LinkState } from './reconnect.js'
import type { OpenSettings, OpenWebSocket } from './web-socket.js'

/** Where a topic is, and who asks. */
export interface PulsarSettings extends Pick<OpenSettings, 'ca' | 'pingMs' | 'silenceMs' | 'handshakeTimeoutMs'> {
  /** `ws://host:8080`, without the path. */
  readonly url: string
  /** `persistent://tenant/namespace/topic` */
  readonly topic: string
  /** Asked for anew before each attempt. */
  readonly token?: () => string | undefined
  readonly onState?: (state: LinkState) => void
  /** The WebSocket client. @default ws */
  readonly open?: OpenWebSocket
}

export const topicPath = (topic: string): string => {
  const [domain, rest] = topic.split('://')
  return `${domain}/${(rest ?? '').split('/').map(encodeURIComponent).join('/')}`
}

export const authorization = (token: PulsarSettings['token']): Record<string, string> => {
  const given = token?.()
  return given === undefined ? {} : { authorization: `Bearer ${given}` }
}
