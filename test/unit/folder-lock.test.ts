import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, realpathSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { firstValueFrom, lastValueFrom } from 'rxjs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FolderInUse, lockFolder, type Holder, type Lock } from '../../src/connections/folder-lock.js'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'backhaul-lock-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const take = (where = folder, holder?: Holder): Promise<Lock> => firstValueFrom(lockFolder(where, holder))
const free = (lock: Lock): Promise<unknown> => lastValueFrom(lock.release(), { defaultValue: undefined })
const refusal = (where = folder): Promise<unknown> =>
  take(where).then(
    (lock) => free(lock).then(() => undefined),
    (error: unknown) => error,
  )

/** Binds the same socket from another process, as a holder would. */
const otherHolder = async (name: string) => {
  const script = `require('net').createServer().listen('\\0' + ${JSON.stringify(name)}, () => console.log('held'))`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

describe('a locked folder', () => {
  it('is refused to a second taker within a second, who learns process and HTTP address', async () => {
    const lock = await take(folder, { pid: process.pid, httpAddress: 'http://127.0.0.1:8787' })
    const begun = performance.now()
    const error = await refusal()
    expect(performance.now() - begun).toBeLessThan(1000)
    expect(error).toBeInstanceOf(FolderInUse)
    expect(error).toMatchObject({ code: 'BACKHAUL_FOLDER_IN_USE', holder: { pid: process.pid } })
    expect((error as Error).message).toContain(String(process.pid))
    expect((error as Error).message).toContain('http://127.0.0.1:8787')
    await free(lock)
  })

  it('is refused under another name too', async () => {
    const lock = await take()
    const link = `${folder}-link`
    symlinkSync(folder, link)
    expect(await refusal(link)).toBeInstanceOf(FolderInUse)
    rmSync(link)
    await free(lock)
  })

  it('is free again after release, and its file is gone', async () => {
    await free(await take())
    expect(() => statSync(join(folder, 'lock'))).toThrow('ENOENT')
    await free(await take())
  })

  it('keeps its file from other users', async () => {
    const lock = await take()
    expect(statSync(join(folder, 'lock')).mode & 0o777).toBe(0o600)
    await free(lock)
  })

  it('is given back when nobody waits for it any more', async () => {
    lockFolder(folder).subscribe().unsubscribe()
    await expect.poll(async () => refusal().then((e) => e === undefined), { timeout: 2000 }).toBe(true)
  })
})

describe('a holder that died', () => {
  it('leaves a file that does not count', async () => {
    const child = spawn(process.execPath, ['-e', ''])
    await once(child, 'exit')
    const lock = await take()
    const left = { ...(JSON.parse(readFileSync(join(folder, 'lock'), 'utf8')) as object), pid: child.pid }
    await free(lock)
    writeFileSync(join(folder, 'lock'), JSON.stringify(left))
    await free(await take())
  })

  it('is not mistaken for a new process with its number', async () => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
    const lock = await take()
    const left = { ...(JSON.parse(readFileSync(join(folder, 'lock'), 'utf8')) as object), pid: child.pid, startedAt: '1' }
    await free(lock)
    writeFileSync(join(folder, 'lock'), JSON.stringify(left))
    const again = await take()
    await free(again)
    child.kill()
  })

  it('may leave anything at all in the file', async () => {
    for (const left of ['', '{', 'null', '{"pid":-1}', '[]']) {
      writeFileSync(join(folder, 'lock'), left)
      await free(await take())
    }
  })
})

it('a live holder that only the file tells of is respected', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
  const lock = await take(folder, { pid: child.pid!, httpAddress: 'http://127.0.0.1:1' })
  const left = readFileSync(join(folder, 'lock'))
  await free(lock)
  writeFileSync(join(folder, 'lock'), left)
  expect(await refusal()).toMatchObject({ holder: { pid: child.pid } })
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
  await free(await take())
})

it.runIf(process.platform === 'linux')('the socket of another process holds the folder, and a killed one frees it', async () => {
  const { createHash } = await import('node:crypto')
  const child = await otherHolder(`backhaul-${createHash('sha256').update(realpathSync(folder)).digest('hex').slice(0, 32)}`)
  expect(await refusal()).toBeInstanceOf(FolderInUse)
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
  await free(await take())
})
