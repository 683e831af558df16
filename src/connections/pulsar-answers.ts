import { HandshakeRefused, SocketClosed } from './web-socket.js'

/** What an answer of Pulsar's WebSocket producer means for the message, or for the socket. */
export type Answer =
  /** A repeat, by producer name and number, was not stored: an earlier one was. */
  | { readonly kind: 'stored'; readonly context: string; readonly repeat: boolean }
  /** Never: this message alone. */
  | { readonly kind: 'refused'; readonly context: string; readonly reason: string }
  /** Not now: the socket is given up, and everything is sent again in order. */
  | { readonly kind: 'failed'; readonly reason: string; readonly retryAfterMs: number }
  /** An answer that cannot be attributed: some message in flight was not understood. */
  | { readonly kind: 'fault'; readonly reason: string }

const messageLevel = new Set([
  'InvalidMessageException',
  'InvalidConfigurationException',
  'SchemaSerializationException',
  'IncompatibleSchemaException',
  'CryptoException',
])
const topicLevel = new Set(['TopicTerminatedException', 'NotAllowedException', 'TopicDoesNotExistException'])

/** How long to stay away when only a person can change something. */
export const slowProbeMs = 60_000

interface Reply {
  readonly result?: unknown
  readonly errorMsg?: unknown
  readonly context?: unknown
  readonly messageId?: unknown
}

/** Ledger -1, entry -1: what the broker's deduplication answers for a repeat. */
const repeatId = 'CP///////////wEQ////////////A'

const parsed = (text: string): Reply | undefined => {
  try {
    const reply: unknown = JSON.parse(text)
    return typeof reply === 'object' && reply !== null ? reply : undefined
  } catch {
    return undefined
  }
}

/** The code stands in `result`; `errorCode` is always 0. The exception's class name tells more than the code. */
export const classify = (text: string): Answer => {
  const reply = parsed(text)
  if (reply === undefined || typeof reply.result !== 'string') return { kind: 'fault', reason: 'an answer that is not JSON' }
  const { result, context, messageId } = reply
  const reason = typeof reply.errorMsg === 'string' ? reply.errorMsg.slice(0, 300) : result
  if (typeof context !== 'string') return { kind: 'fault', reason }
  if (result === 'ok') return { kind: 'stored', context, repeat: typeof messageId === 'string' && messageId.startsWith(repeatId) }
  const exception = /PulsarClientException\$(\w+)/.exec(reason)?.[1] ?? ''
  if (result === 'send-error:7' || messageLevel.has(exception)) return { kind: 'refused', context, reason }
  if (result === 'send-error:3') return { kind: 'fault', reason }
  return { kind: 'failed', reason, retryAfterMs: topicLevel.has(exception) ? slowProbeMs : 0 }
}

/** Close codes with which a server answers a frame that it cannot bear, and would again. */
const poisonCodes = new Set([1002, 1007, 1009, 1011])
export const isPoison = (error: unknown): boolean => error instanceof SocketClosed && poisonCodes.has(error.closeCode)

/** Says what stands in the way in words for a log, and how soon it is worth another try. */
export class PulsarUnavailable extends Error {
  override readonly name = 'PulsarUnavailable'
  constructor(
    readonly kind: 'unauthorised' | 'misconfigured' | 'away',
    reason: string,
    readonly retryAfterMs: number,
    options?: ErrorOptions,
  ) {
    super(`${kind}: ${reason}`, options)
  }
}

const text = (error: unknown): string => (error instanceof Error ? error.message || error.name : String(error))

export const unavailable = (error: unknown): PulsarUnavailable => {
  if (error instanceof PulsarUnavailable) return error
  if (!(error instanceof HandshakeRefused)) return new PulsarUnavailable('away', text(error), 0, { cause: error })
  const { status, message } = error
  if (status === 401 || status === 403) return new PulsarUnavailable('unauthorised', message, 5000, { cause: error })
  const wrong = status === 404 || status === 400 || (status === 500 && message.includes('IllegalArgumentException'))
  return new PulsarUnavailable(wrong ? 'misconfigured' : 'away', message, wrong ? slowProbeMs : 0, { cause: error })
}
