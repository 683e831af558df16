import { newId } from '../message.js'
import type { Message } from '../message.js'
import type { RawMessage } from './amqp-port.js'

const digestHeader = 'backhaul-digest'

/** What AMQP carries beside the body. */
export interface AmqpProperties {
  readonly messageId: string
  readonly deliveryMode: 2
  readonly mandatory: true
  readonly contentType: 'application/json'
  readonly timestamp: number
  readonly appId: 'backhaul'
  readonly headers: Record<string, string>
}

/** Persistent and mandatory; string headers are the properties, one more is our digest. */
export const toAmqp = ({ id, properties, digest }: Message): AmqpProperties => ({
  messageId: id,
  deliveryMode: 2,
  mandatory: true,
  contentType: 'application/json',
  timestamp: Math.floor(Date.now() / 1000),
  appId: 'backhaul',
  headers: digest === undefined ? { ...properties } : { ...properties, [digestHeader]: digest },
})

/** Any program may have written it: without an id it gets one, and headers that are not text stay behind. */
export const fromAmqp = ({ content, fields, properties: { messageId, headers = {} } }: RawMessage): Message => {
  const { [digestHeader]: digest, ...others } = headers
  const properties = Object.fromEntries(Object.entries(others).filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
  return {
    id: typeof messageId === 'string' && messageId !== '' ? messageId : newId(),
    body: content,
    properties,
    redelivered: fields.redelivered,
    ...(typeof digest === 'string' ? { digest } : {}),
  }
}
