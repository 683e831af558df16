/**
 * Breaks one promise at a time, in a copy of the project, and shows which test notices.
 *
 *   npm run saboteurs [-- part-of-a-name] [-- --wire] [-- --json] [-- --list]
 *
 * Caught means that a test failed by its own judgement. A run that hangs, a test that only ran into vitest's time-out, and
 * a saboteur that no longer finds its place are not caught. Exit code 1 unless all are.
 */
import { spawn } from 'node:child_process'
import { cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { saboteurs } from './list.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const copied = ['src', 'test', 'examples', 'scripts', 'README.md', 'package.json', 'tsconfig.json', 'tsconfig.build.json', 'vitest.config.ts']
const linked = ['node_modules', '.brokers']
const limitMs = { marble: 30_000, wire: 120_000, control: 300_000 }
const workers = 2

const flags = process.argv.slice(2).filter((word) => word.startsWith('--'))
const [part = ''] = process.argv.slice(2).filter((word) => !word.startsWith('--'))
const unknown = flags.find((flag) => !['--wire', '--json', '--list'].includes(flag))
const [wire, json, list] = ['--wire', '--json', '--list'].map((flag) => flags.includes(flag))

const children = new Set()
/** The output, and undefined when the time limit ended it; nothing that it started is left behind. */
const run = (args, cwd, ms) =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    children.add(child)
    let output = ''
    let late = false
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data))
    const end = (signal) => {
      try {
        process.kill(-child.pid, signal)
      } catch {
        // It has ended.
      }
    }
    const limit = setTimeout(() => {
      late = true
      child.kill('SIGTERM') // so that a test can end the brokers it started
      setTimeout(() => end('SIGKILL'), 5000).unref()
    }, ms)
    child.on('close', () => {
      clearTimeout(limit)
      end('SIGKILL')
      children.delete(child)
      resolve(late ? undefined : output)
    })
  })

const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
/** Every test that ran, `{ file, title, status, message }`, or undefined when the time limit ended the run. */
const tests = async (copy, files, titles, ms, options) => {
  const report = join(copy, 'report.json')
  await rm(report, { force: true })
  const pattern = titles.map(literal).join('|')
  const args = ['node_modules/vitest/vitest.mjs', 'run', ...files, '-t', pattern, '--reporter=json', `--outputFile=${report}`, ...options]
  const output = await run(args, copy, ms)
  if (output === undefined) return undefined
  if (!existsSync(report)) throw new Error(output)
  const { testResults } = JSON.parse(await readFile(report, 'utf8'))
  return testResults.flatMap(({ name, message, assertionResults }) => [
    ...(message ? [{ file: name, title: '', status: 'broken', message }] : []),
    ...assertionResults.map(({ fullName, status, failureMessages }) => ({ file: name, title: fullName, status, message: failureMessages.join('\n') })),
  ])
}

const build = (copy) => run(['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], copy, limitMs.control)
/** One file of the built daemon, the others stay as they are. */
const buildOne = async (copy, name, text) => {
  const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, verbatimModuleSyntax: true }
  const { outputText } = ts.transpileModule(text, { fileName: name, compilerOptions: options })
  await writeFile(join(copy, name).replace('/src/', '/dist/').replace(/ts$/, 'js'), outputText)
}
const makeCopy = async () => {
  const copy = await mkdtemp(join(tmpdir(), 'backhaul-saboteurs-'))
  copies.push(copy)
  for (const name of copied) await cp(join(root, name), join(copy, name), { recursive: true })
  for (const name of linked) if (existsSync(join(root, name))) await symlink(join(root, name), join(copy, name))
  return copy
}
const copies = []
const clean = () => Promise.all(copies.map((copy) => rm(copy, { recursive: true, force: true })))
for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, () => {
    for (const child of children) process.kill(-child.pid, 'SIGKILL')
    clean().finally(() => process.exit(130))
  })

/** The one file that has it, and its sabotaged text; undefined when none has it, or more than one place. */
const sabotaged = async ({ file, find, replace }) => {
  const files = file.endsWith('/') ? (await readdir(join(root, file))).map((name) => join(file, name)) : [file]
  const sources = await Promise.all(files.map(async (name) => ({ name, text: await readFile(join(root, name), 'utf8').catch(() => '') })))
  const [found, ...others] = sources.flatMap(({ name, text }) => text.split(find).slice(1).map(() => ({ name, text })))
  return found === undefined || others.length > 0 ? undefined : { name: found.name, text: found.text.replace(find, () => replace) }
}

/** `caught`, or `survived`, `hung`, `broken` (nothing could be judged), `stale`. */
const judge = async (saboteur, copy) => {
  const { file, caughtBy, dist = false } = saboteur
  const broken = await sabotaged(saboteur)
  if (broken === undefined) return { verdict: 'stale', detail: `${file} does not have it exactly once` }
  await writeFile(join(copy, broken.name), broken.text)
  try {
    if (dist) await buildOne(copy, broken.name, broken.text)
    const [testFile, title] = caughtBy
    const options = ['--bail=1', ...(saboteur.wire || dist ? [] : ['--pool=threads', '--no-isolate'])]
    const ran = await tests(copy, [testFile], [title], saboteur.wire ? limitMs.wire : limitMs.marble, options)
    if (ran === undefined) return { verdict: 'hung', detail: 'ended by the time limit of this run' }
    const failed = ran.find(({ status }) => status === 'failed')
    if (failed !== undefined) return { verdict: /^Error: (Test|Hook) timed out/.test(failed.message) ? 'hung' : 'caught', detail: failed.title }
    const unread = ran.find(({ status }) => status === 'broken')
    if (unread !== undefined) return { verdict: 'broken', detail: unread.message.split('\n')[0] }
    return { verdict: 'survived', detail: caughtBy.join(': ') }
  } finally {
    await cp(join(root, broken.name), join(copy, broken.name))
    if (dist) await buildOne(copy, broken.name, await readFile(join(root, broken.name), 'utf8'))
  }
}

const say = (line) => json || console.log(line)
const width = Math.max(...saboteurs.map(({ name }) => name.length))
const row = (verdict, name, ms, detail) => `${verdict.padEnd(8)}  ${name.padEnd(width)}  ${ms === undefined ? '' : `${(ms / 1000).toFixed(1).padStart(5)} s  `}${detail}`

/** Without any saboteur the same tests must pass, and be there. */
const control = async ([copy, ...others], chosen) => {
  if (chosen.some(({ dist }) => dist)) {
    await build(copy)
    for (const other of others) await cp(join(copy, 'dist'), join(other, 'dist'), { recursive: true })
  }
  const files = [...new Set(chosen.map(({ caughtBy: [file] }) => file))]
  const titles = [...new Set(chosen.map(({ caughtBy: [, title] }) => title))]
  const ran = await tests(copy, files, titles, limitMs.control + limitMs.wire * chosen.filter((one) => one.wire).length, [])
  if (ran === undefined) throw new Error('control: the tests hang without any saboteur')
  const bad = ran.find(({ status }) => status === 'failed' || status === 'broken')
  if (bad !== undefined) throw new Error(`control: red without any saboteur: ${bad.title}\n${bad.message}`)
  for (const { name, caughtBy: [file, title] } of chosen)
    if (!ran.some((test) => test.status === 'passed' && test.file.endsWith(file) && test.title.includes(title)))
      throw new Error(`control: ${name}: no test of ${file} ran that is called "${title}"`)
  return ran.filter(({ status }) => status === 'passed').length
}

const main = async () => {
  if (unknown !== undefined) throw new Error(`unknown option ${unknown}`)
  const named = saboteurs.filter(({ name, file }) => `${name} ${file}`.includes(part))
  if (list) {
    for (const one of named) say(row((await sabotaged(one)) === undefined ? 'stale' : one.wire ? 'wire' : 'here', one.name, undefined, one.guarantee))
    return (await Promise.all(named.map(sabotaged))).every((one) => one !== undefined)
  }
  if (wire) process.env.BACKHAUL_TEST_REQUIRE_BROKERS = '1'
  const began = Date.now()
  const chosen = named.filter((one) => wire || !one.wire)
  if (chosen.length === 0) throw new Error('no saboteur to run')
  const made = await Promise.all(Array.from({ length: workers }, makeCopy))
  say(`without a saboteur: ${await control(made, chosen)} tests pass (${((Date.now() - began) / 1000).toFixed(1)} s)\n`)

  const results = []
  const work = async (waiting, copy) => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) {
      const from = Date.now()
      const { verdict, detail } = await judge(one, copy)
      const ms = Date.now() - from
      results.push({ ...one, verdict, detail, ms })
      say(row(verdict === 'caught' ? verdict : verdict.toUpperCase(), one.name, ms, detail))
    }
  }
  const here = chosen.filter((one) => !one.wire)
  await Promise.all(made.map((copy) => work(here, copy)))
  await work(chosen.filter((one) => one.wire), made[0]) // they share brokers: one at a time
  const left = named.filter((one) => !chosen.includes(one))
  for (const one of left) say(row('not run', one.name, undefined, 'needs brokers: --wire'))

  const caught = results.filter(({ verdict }) => verdict === 'caught').length
  const seconds = Math.round((Date.now() - began) / 1000)
  if (json) console.log(JSON.stringify({ caught, of: results.length, notRun: left.map(({ name }) => name), seconds, results }, null, 2))
  say(`\n${caught} of ${results.length} caught${left.length === 0 ? '' : `, ${left.length} not run`}, in ${seconds} s`)
  return caught === results.length
}

main()
  .then((good) => (process.exitCode = good ? 0 : 1))
  .catch((error) => {
    console.error(error.message)
    process.exitCode = 1
  })
  .finally(clean)
