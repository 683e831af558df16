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
}
