/** A saboteur whose place is gone breaks nothing, and nobody would notice that its test is not tried any more. */
import { existsSync, readFileSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { saboteurs as simulated } from '../simulation/saboteurs.js'

interface Sabotage {
  readonly name: string
  readonly file?: string
  readonly find: string
}

describe('every saboteur finds its place, exactly once', () => {
  it('of the tests', () => {
    const { stdout, status } = spawnSync(process.execPath, ['test/saboteurs/run.js', '--list'], { encoding: 'utf8' })
    const lines = stdout.split('\n').filter((line) => line !== '')
    expect(status).toBe(0)
    expect(lines.length).toBeGreaterThan(200)
    expect(lines.filter((line) => !/^(here|wire) /.test(line))).toEqual([])
  })

  it('of the simulator', () => {
    expect(simulated.length).toBeGreaterThan(20)
    expect(simulated.filter(({ file, find }) => readFileSync(file, 'utf8').split(find).length !== 2).map(({ name }) => name)).toEqual([])
  })

  it.skipIf(!existsSync('dist'))('of the fault suite, in what is built', async () => {
    const { rows } = (await import(new URL('../faults/suite/rows.js', import.meta.url).href)) as { rows: readonly { sabotage?: Sabotage }[] }
    const edits = rows.flatMap(({ sabotage }) => (sabotage?.file === undefined ? [] : [sabotage]))
    expect(edits.length).toBeGreaterThan(20)
    expect(edits.filter(({ file, find }) => readFileSync(`dist/${file ?? ''}`, 'utf8').split(find).length !== 2).map(({ name }) => name)).toEqual([])
  })
})
