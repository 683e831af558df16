/** `npm run simulate:teeth [-- part-of-a-name]`: breaks one promise at a time, and shows after how many runs the simulator notices. */
import { spawn } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { saboteurs } from './saboteurs.js'
import type { Saboteur } from './saboteurs.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
/** Rare among the faults of a run, and costly to look for. */
const mostRuns = 4000

const outputOf = (copy: string): Promise<string> =>
  new Promise((resolve) => {
    const args = [join(copy, '.simulate/test/simulation/main.js'), '--seed', '1', '--runs', String(mostRuns), '--workers', '2', '--quiet']
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout.on('data', (data: Buffer) => (output += data.toString()))
    child.on('close', () => resolve(output))
  })

/** The seed and the verdict of the first run that failed. */
const tryOne = async ({ file, find, replace }: Saboteur): Promise<string | undefined> => {
  const source = await readFile(join(root, file), 'utf8')
  if (!source.includes(find)) throw new Error(`nothing to replace in ${file}`)
  const copy = await mkdtemp(join(tmpdir(), 'backhaul-simulate-'))
  try {
    await cp(join(root, '.simulate'), join(copy, '.simulate'), { recursive: true })
    await cp(join(root, 'package.json'), join(copy, 'package.json'))
    await symlink(join(root, 'node_modules'), join(copy, 'node_modules'))
    const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, verbatimModuleSyntax: true }
    const { outputText } = ts.transpileModule(source.replace(find, () => replace), { fileName: join(root, file), compilerOptions })
    await writeFile(join(copy, '.simulate', file.replace(/ts$/, 'js')), outputText)
    const output = await outputOf(copy)
    if (!output.includes(' runs, ')) throw new Error(`the simulator did not run:\n${output}`)
    const failures = [...output.matchAll(/^seed (\d+): (.*)$/gm)].sort((a, b) => Number(a[1]) - Number(b[1]))
    return failures[0] === undefined ? undefined : `run ${String(failures[0][1]).padStart(4)}  ${failures[0][2]?.slice(0, 100)}`
  } finally {
    await rm(copy, { recursive: true, force: true })
  }
}

const [part = ''] = process.argv.slice(2)
for (const saboteur of saboteurs.filter(({ name }) => name.includes(part))) {
  const caught = await tryOne(saboteur)
  if (caught === undefined) process.exitCode = 1
  process.stdout.write(`${saboteur.name.padEnd(40)} ${caught ?? `NOT CAUGHT in ${mostRuns} runs`}\n`)
}
