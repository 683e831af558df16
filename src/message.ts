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
