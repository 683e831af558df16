import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
let folder = ''
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** A folder of a user: the package under its own name, the peers beside it, the example as printed. */
const userFolder = (example: string): string => {
  folder = mkdtempSync(join(tmpdir(), 'backhaul-example-'))
  mkdirSync(join(folder, 'node_modules'))
  symlinkSync(root, join(folder, 'node_modules', 'backhaul'))
  symlinkSync(join(root, 'node_modules', 'rxjs'), join(folder, 'node_modules', 'rxjs'))
  cpSync(join(root, 'examples', example), join(folder, example))
  writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }')
  return folder
}
const run = (example: string, args: readonly string[] = [], cwd = userFolder(example)) => {
  const child = spawn(process.execPath, [...args, example], { cwd, stdio: ['pipe', 'pipe', 'pipe'] })
  const lines: string[] = []
  let errors = ''
  const output = createInterface({ input: child.stdout })
  output.on('line', (line) => lines.push(line))
  child.stderr.on('data', (data: Buffer) => (errors += data.toString()))
  const until = async (enough: (lines: readonly string[]) => boolean) => {
    while (!enough(lines)) await once(output, 'line', { signal: AbortSignal.timeout(10_000) })
    return lines
  }
  return { child, lines, until, errors: () => errors, cwd }
}

describe('examples', () => {
  it('are all run here', () => {
    expect(readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.js')).sort()).toEqual(['custom-source.js', 'delivery.test.js', 'one-process.js', 'pipeline.js'])
  })

  it('pipeline.js does what the README says, and is what the README shows', async () => {
    const readme = readFileSync(join(root, 'README.md'), 'utf8')
    expect(readme).toContain(readFileSync(join(root, 'examples', 'pipeline.js'), 'utf8').trim())
    const { child, until } = run('pipeline.js')
    const lines = await until((seen) => seen.length === 4)
    const promised = /```\n((topic-log|udp) [^`]*)```/.exec(readme)?.[1]?.trim().split('\n')
    expect([...lines].sort()).toEqual([...(promised ?? [])].sort())
    const closed = once(child, 'close')
    child.kill()
    await closed
  })

  it.each(['pipeline.js', 'one-process.js'])('%s runs in a checkout too, from wherever one is', async (example) => {
    folder = mkdtempSync(join(tmpdir(), 'backhaul-example-'))
    const { child, until, errors } = run(join(root, 'examples', example), [], folder)
    const closed = once(child, 'close')
    await Promise.race([until((seen) => seen.length > 0), closed])
    expect(errors()).toBe('')
    child.kill()
    // Its folder is removed after it: it would look for it for ever.
    await closed
  })

  it('custom-source.js filters, keeps and shows, and tells what it refused', async () => {
    const { child, lines, cwd, errors } = run('custom-source.js')
    child.stdin.end('{"kind":"sale","price":3}\n{"kind":"idle"}\nnot json\n{"no":"kind"}\n{"kind":"sale","price":5}\n')
    const [code] = (await once(child, 'close')) as [number]
    expect([code, errors()]).toEqual([0, ''])
    expect(lines.filter((line) => line.startsWith('display'))).toEqual(['display 3', 'display 5'])
    expect(lines.filter((line) => line.startsWith('refused'))).toEqual(['refused parse not JSON not json', 'refused each no kind {"no":"kind"}'])
    const kept = readFileSync(join(cwd, 'sales.ndjson'), 'utf8').trim().split('\n').map((line) => JSON.parse((JSON.parse(line) as { payload: string }).payload) as { price: number })
    expect(kept.map(({ price }) => price)).toEqual([3, 5])
  })

  it('one-process.js takes over HTTP, delivers, and stops with code 0', async () => {
    const { child, until, cwd, errors } = run('one-process.js')
    const [url] = await until((seen) => seen.length === 1)
    const reply = await fetch(`${url}/v1/messages`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '[{"n":1},{"n":2}]' })
    const { ids } = (await reply.json()) as { ids: string[] }
    const lines = await until((seen) => seen.length === 3)
    expect(lines.slice(1)).toEqual(ids.map((id) => `delivered ${id}`))
    child.kill('SIGTERM')
    expect((await once(child, 'close'))[0], errors()).toBe(0)
    expect(readFileSync(join(cwd, 'topic.ndjson'), 'utf8').trim().split('\n')).toHaveLength(2)
  })

  it('delivery.test.js passes under plain Node, and is what the README shows', async () => {
    expect(readFileSync(join(root, 'README.md'), 'utf8')).toContain(readFileSync(join(root, 'examples', 'delivery.test.js'), 'utf8').trim())
    const { child, lines } = run('delivery.test.js', ['--test'])
    const [code] = (await once(child, 'close')) as [number]
    expect(code, lines.join('\n')).toBe(0)
    expect(lines.join('\n')).toMatch(/pass 2/)
  })
})

it('a folder below a working directory that is gone is not looked for for ever', async () => {
  folder = mkdtempSync(join(tmpdir(), 'backhaul-gone-'))
  const module = new URL('../../dist/make-folder.js', import.meta.url).href
  const program = `import { rmdirSync } from 'node:fs'; import { makeFolder } from '${module}'; rmdirSync(process.cwd()); makeFolder('./a/b').then(() => console.log('made'), ({ code }) => console.log(code))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { cwd: folder, timeout: 10_000 })
  const said = await once(child.stdout, 'data')
  expect(['made', 'ENOENT']).toContain(String(said[0]).trim())
})
