/** A command as a user runs it. */
import { spawn } from 'node:child_process'
import { mainFile } from '../wire/daemon-process.js'

export interface Ran {
  readonly code: number | null
  readonly out: string
  readonly bytes: Buffer
  readonly err: string
  readonly ms: number
}

export const runCommand = (args: readonly string[], { env = {}, input = '' }: { env?: Record<string, string>; input?: string } = {}): Promise<Ran> =>
  new Promise((resolve) => {
    const began = performance.now()
    const child = spawn(process.execPath, [mainFile, ...args], { env: { PATH: process.env['PATH'], BACKHAUL_DEVICE_ID: 'test-device', ...env } })
    const out: Buffer[] = []
    let err = ''
    child.stdout.on('data', (data: Buffer) => out.push(data))
    child.stderr.on('data', (data: Buffer) => (err += data.toString()))
    child.stdin.on('error', () => undefined)
    child.stdin.end(input)
    child.on('close', (code) => resolve({ code, out: Buffer.concat(out).toString(), bytes: Buffer.concat(out), err, ms: performance.now() - began }))
  })
