import { maxNameBytes, newId } from '../message.js'
import type { Message } from '../message.js'
import type { RawMessage } from './amqp-port.js'

const digestHeader = 'backhaul-digest'
/** A table, where properties are text: nobody's property is ever taken for it. */
const replayedHeader = 'backhaul-replayed'

/** Which dead letter a message was, and the producer's own property of that name. */
interface ReplayedMark {
  readonly letter: string
  readonly was?: string
}

/** What AMQP carries beside the body. */
export interface AmqpProperties {
  readonly messageId: string
  readonly deliveryMode: 2
  readonly mandatory: true
  readonly contentType: 'application/json'
  readonly timestamp: number
  readonly appId: 'backhaul'
  readonly headers: Readonly<Record<string, string | ReplayedMark>>
}

const markOf = (letter: string, was: string | undefined): ReplayedMark => (was === undefined ? { letter } : { letter, was })

/** What is remembered of a message has a bound. Bytes that are no UTF-8 grow when they are read, and could not be sent on under such a name. */
const isShort = (text: unknown): text is string => typeof text === 'string' && Buffer.byteLength(text) <= maxNameBytes

const isMark = (header: unknown): header is ReplayedMark =>
  typeof header === 'object' && header !== null && isShort((header as Partial<ReplayedMark>).letter)

/** Persistent and mandatory; string headers are the properties, two more may be ours. */
export const toAmqp = ({ id, properties, digest, replayed }: Message): AmqpProperties => ({
  messageId: id,
  deliveryMode: 2,
  mandatory: true,
  contentType: 'application/json',
  timestamp: Math.floor(Date.now() / 1000),
  appId: 'backhaul',
  headers: {
    ...properties,
    ...(digest === undefined ? {} : { [digestHeader]: digest }),
    ...(replayed === undefined ? {} : { [replayedHeader]: markOf(replayed, properties[replayedHeader]) }),
  },
})

/** Any program may have written it: without an id it gets one, and headers that are not text stay behind. */
export const fromAmqp = ({ content, fields, properties: { messageId, headers = {} } }: RawMessage): Message => {
  const { [digestHeader]: digest, ...others } = headers
  const { [replayedHeader]: mark } = headers
  const own = isMark(mark) ? { ...others, [replayedHeader]: mark.was } : others
  const properties = Object.fromEntries(Object.entries(own).filter((entry): entry is [string, string] => typeof entry[1] === 'string' && isShort(entry[0])))
  return {
    id: isShort(messageId) && messageId !== '' ? messageId : newId(),
    body: content,
    properties,
    redelivered: fields.redelivered,
    ...(isShort(digest) ? { digest } : {}),
    ...(isMark(mark) ? { replayed: mark.letter } : {}),
  }
}
