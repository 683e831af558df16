import { defineConfig } from 'vitest/config'

/** What judges a mutant of the core: its marbles, and the unit tests of what needs no stream. */
export default defineConfig({
  test: {
    include: [
      'test/marbles/{backoff,batch,best-effort,cases,clock,deliver,each,fan-out,forward,guarantees,invariants,ledger,pipeline,rescue,while-open}.test.ts',
      'test/unit/{delivery,drop-repeats,enrich}.test.ts',
    ],
    // Too long to run for each mutant, and one that a worker thread cannot run: it sets the process's own zone.
    testNamePattern: /^(?!100,000 generated messages|local time is that of the process)/,
    testTimeout: 60_000,
  },
})
