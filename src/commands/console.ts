/** The world outside a command. `main.ts` gives the real one; a test gives its own. */
export interface Console {
  readonly out: (line: string) => void
  readonly err: (line: string) => void
  /** Bytes as they are, on standard output. */
  readonly write: (bytes: Uint8Array) => void
  /** Writes without a line break: progress. */
  readonly isTerminal: boolean
  /** Asks for a line; undefined when nobody can answer. */
  readonly ask: (question: string) => Promise<string | undefined>
}

/** Exit codes that scripts can use; the higher ones are those of sysexits.h. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  /** Not said right, or not confirmed. */
  usage: 2,
  notRunning: 3,
  unavailable: 69,
  internal: 70,
  /** Another process has the data folder. */
  inUse: 75,
  settings: 78,
} as const
