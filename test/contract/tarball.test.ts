/** The package as a user gets it: packed, unpacked, and tested under plain Node by the three usual runners. */
import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const example = readFileSync(join(root, 'examples', 'delivery.test.js'), 'utf8')
const run = promisify(execFile)
let user = ''

const link = (name: string): void => {
  const path = join(user, 'node_modules', name)
  mkdirSync(dirname(path), { recursive: true })
  symlinkSync(join(root, 'node_modules', name), path)
}
/** Only what the package declares, and the runners: what else it needed would be missing. */
beforeAll(() => {
  user = mkdtempSync(join(tmpdir(), 'backhaul-tarball-'))
  const packed = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', user], { cwd: root, encoding: 'utf8' })) as [{ filename: string }]
  const home = join(user, 'node_modules', 'backhaul')
  mkdirSync(home, { recursive: true })
  execFileSync('tar', ['-xzf', join(user, packed[0].filename), '-C', home, '--strip-components=1'])
  const { dependencies } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')) as { dependencies: Record<string, string> }
  for (const name of [...Object.keys(dependencies), 'vitest', 'jest', 'typescript', '@types/node']) link(name)
  writeFileSync(join(user, 'package.json'), '{ "private": true, "type": "module", "jest": { "transform": {}, "testEnvironment": "node" } }')
})
afterAll(() => rmSync(user, { recursive: true, force: true }))

/** What the README shows of a run that is not as expected. */
const promised = (/```text\nthe rows ([^`]*)```/.exec(readFileSync(join(root, 'README.md'), 'utf8'))?.[1] ?? '').split('\n').slice(1).map((line) => line.trim()).filter(Boolean)
const wrong = (text: string): string => text.replace("'    -ab-------c'", "'    -ab------c-'")

/** Runs the example, made for this runner, in the user's folder. */
const test = async (runner: string, command: readonly string[], text: string) => {
  const file = `${runner.replace(/\W/g, '')}.test.js`
  writeFileSync(join(user, file), text.replace("import { test } from 'node:test'", `import { test } from '${runner}'`))
  const ended = await run(process.execPath, [...command, file], { cwd: user, env: { ...process.env, CI: '1', FORCE_COLOR: '0', NO_COLOR: '1', VITEST: undefined, NODE_OPTIONS: undefined, NODE_V8_COVERAGE: undefined } }).then(
    ({ stdout, stderr }) => ({ code: 0, output: stdout + stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({ code, output: stdout + stderr }),
  )
  rmSync(join(user, file))
  return ended
}

describe('the packed kit', () => {
  const bin = (path: string): string => join(root, 'node_modules', path)
  for (const [runner, command, passed] of [
    ['node:test', ['--test'], /pass 2/],
    ['vitest', [bin('vitest/vitest.mjs'), 'run', '--dir', '.'], /2 passed/],
    ['@jest/globals', ['--experimental-vm-modules', bin('jest/bin/jest.js'), '--runInBand'], /2 passed/],
  ] as const) {
    it(`runs a user's test with ${runner}`, async () => {
      const { code, output } = await test(runner, command, example)
      expect(code, output).toBe(0)
      expect(output).toMatch(passed)
    })
    it(`shows in ${runner} what was expected, what came, and the timeline`, async () => {
      const { code, output } = await test(runner, command, wrong(example))
      expect(code).not.toBe(0)
      const said = output.split('\n').map((line) => line.trim())
      for (const line of promised) expect(said).toContain(line)
    })
  }
  it('does what the README shows', () => expect(promised).toHaveLength(22))
  it('has types for the kit', async () => {
    writeFileSync(join(user, 'kit.ts'), "import { marbles, message } from 'backhaul/testing'\nmarbles(({ source, far }) => void [source('a', { values: message }).deliveries, far('w').connection])\n")
    const { stdout } = await run(process.execPath, [bin('typescript/bin/tsc'), '--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--types', 'node', 'kit.ts'], { cwd: user }).catch((error: { stdout: string }) => error)
    expect(stdout).toBe('')
  })
})
