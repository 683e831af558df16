import { hash, randomFillSync } from 'node:crypto'
import { v7 } from 'uuid'

/** What travels: an id, the bytes of one JSON object, and what the producer said about it. */
export interface Message {
  /** Stable from acceptance to Pulsar; a repeat carries the same one. */
  readonly id: string
  /** The JSON text in UTF-8, exactly as it will arrive. */
  readonly body: Buffer
  /** Text only: string AMQP headers, `Backhaul-Property-<name>` HTTP headers. */
  readonly properties: Readonly<Record<string, string>>
  /** The queue gave it out before: an earlier delivery was not answered. */
  readonly redelivered?: boolean
  /** The producer's digest of the bytes as sent; absent on messages that are not ours. */
  readonly digest?: string
  /** It was a dead letter and was put back: which one. Travels through queues, and never to Pulsar. */
  readonly replayed?: string
}

/** Tells two messages under one id apart: 22 characters of the SHA-256 of the bytes as the producer sent them. */
export const digestOf = (body: Uint8Array): string => hash('sha256', body, 'base64url').slice(0, 22)

/** A larger body is refused, unless told otherwise: what Pulsar's WebSocket takes as shipped. */
export const defaultMaxMessageBytes = 700 * 1024
/** The longest id, and name of a property, that AMQP carries, in bytes. */
export const maxNameBytes = 255
/** All properties together: RabbitMQ takes them in one frame, and the client writes at most 64 KiB of them, ours included. */
export const maxPropertiesBytes = 60 * 1024
/** All properties together, as headers of one HTTP request: names and values. */
export const maxPostedPropertiesBytes = 8 * 1024

/** What they take up in AMQP. */
export const propertiesBytes = (properties: Message['properties']): number =>
  Object.entries(properties).reduce((sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value) + 6, 0)

/**
 * Why a queue of RabbitMQ can never carry it; undefined when it can. Doors ask this even when
 * the queue is embedded, for that may drain into RabbitMQ: one that cannot go would hold up all behind it.
 */
export const uncarriable = ({ id, properties }: Pick<Message, 'id' | 'properties'>): string | undefined => {
  if (typeof id !== 'string' || id === '' || Buffer.byteLength(id) > maxNameBytes) return `its id is not a text of 1 to ${maxNameBytes} bytes`
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value !== 'string') return 'a property is not a text'
    if (Buffer.byteLength(name) > maxNameBytes) return `the name of a property is longer than ${maxNameBytes} bytes`
  }
  return propertiesBytes(properties) > maxPropertiesBytes ? `its properties are larger than ${maxPropertiesBytes} bytes` : undefined
}

/** All but the body, as an embedded queue keeps it. */
export const encodeHeaders = ({ id, properties, digest, replayed }: Message): Buffer =>
  Buffer.from(JSON.stringify({ id, properties, digest, replayed }))

/** The body is copied out of the queue's read buffer, for a delivery may be held for long. */
export const decodeMessage = (body: Buffer, headers: Buffer): Message => ({
  ...(JSON.parse(headers.toString()) as Pick<Message, 'id' | 'properties' | 'digest' | 'replayed'>),
  body: Buffer.from(body),
})

const pool = new Uint8Array(16 * 1024)
let next = pool.length

/** A UUID, version 7: ids sort by time. Chance is drawn in bulk, for the system's call costs more than the id. */
export const newId = (): string => {
  if (next >= pool.length) {
    randomFillSync(pool)
    next = 0
  }
  next += 16
  return v7({ random: pool.subarray(next - 16, next) })
}
