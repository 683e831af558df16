/** The few words that this project logs with. `main.ts` gives pino; a host program its own. */
export interface Log {
  /** Data was lost, or a person is needed. */
  readonly error: (fields: object, text: string) => void
  /** Odd, but recovered. */
  readonly warn: (fields: object, text: string) => void
  /** Beginnings and ends. */
  readonly info: (fields: object, text: string) => void
  /** Never one line for each message. */
  readonly debug: (fields: object, text: string) => void
}
