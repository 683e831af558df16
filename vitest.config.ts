import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // Wire tests share two brokers and two cores: one file at a time keeps them honest.
    fileParallelism: false,
  },
})
