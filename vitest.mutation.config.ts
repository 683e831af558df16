import { defineConfig } from 'vitest/config'

/** What judges a mutant of the core: everything in virtual time, and the unit tests of the operators that need no stream. */
export default defineConfig({
  test: {
    include: ['test/marbles/*.test.ts', 'test/unit/{delivery,enrich,drop-repeats}.test.ts'],
    // Too long to run for each mutant, and one that a worker thread cannot run: it sets the process's own zone.
    testNamePattern: /^(?!100,000 generated messages|local time is that of the process)/,
    testTimeout: 60_000,
  },
})
