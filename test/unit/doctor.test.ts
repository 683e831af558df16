import { describe, expect, it } from 'vitest'
import { ok, withoutSecrets } from '../../src/commands/doctor-finding.js'
import { fileSystemFinding, spaceFinding } from '../../src/commands/doctor-folder.js'
import { clockFinding, nodeFinding, openFilesFinding, timeZoneFinding } from '../../src/commands/doctor-machine.js'
import type { Machine } from '../../src/commands/doctor-machine.js'
import { defaults } from '../../src/settings.js'
import type { Settings } from '../../src/settings.js'

const at = Date.parse('2026-05-01T00:00:00Z')
const machine = (given: Partial<Machine> = {}): Machine => ({
  nodeVersion: '22.1.0', nodeWanted: '>=20.19', now: () => at, installedAt: at - 1e9, timeZone: 'Europe/Berlin', tz: undefined, read: () => undefined, ...given,
})
const limits = (soft: string) => ({ read: (path: string) => (path === '/proc/77/limits' ? `Limit  Soft Limit  Hard Limit  Units\nMax open files            ${soft}                 4096                 files\n` : undefined) })
const told = ({ verdict, detail }: { verdict: string; detail: string }): string => `${verdict}: ${detail}`

describe('the doctor', () => {
  it.each([['20.18.9', 'problem'], ['20.19.0', 'ok'], ['18.99.0', 'problem'], ['22.0.0', 'ok']])('finds Node.js %s %s', (nodeVersion, verdict) => {
    expect(nodeFinding(machine({ nodeVersion })).verdict).toBe(verdict)
  })
  it.each([['128', 'problem'], ['512', 'warning'], ['65536', 'ok'], ['unlimited', 'ok']])('finds a limit of %s open files, of the daemon that runs, %s', (soft, verdict) => {
    const finding = openFilesFinding(machine(limits(soft)), 77)
    expect([finding.verdict, finding.detail]).toEqual([verdict, expect.stringContaining('the daemon, process 77')])
    expect(openFilesFinding(machine(limits(soft))).verdict).toBe('skipped')
  })
  it('finds a clock that starts in 1970, or has been set back behind what Backhaul wrote', () => {
    expect(clockFinding(machine()).verdict).toBe('ok')
    expect(told(clockFinding(machine({ now: () => 0 })))).toMatch(/^problem: 1970-01-01T00:00:00.000Z, but files here are from 2026-/)
    expect(told(clockFinding(machine(), at + 600_000))).toMatch(/^warning: .* is 600 s behind/)
    expect(clockFinding(machine(), at + 30_000).verdict).toBe('ok')
  })
  it('finds a time zone that is none', () => {
    const set = { timeZone: undefined }
    expect(told(timeZoneFinding(machine(), set))).toBe('ok: Europe/Berlin, now GMT+02:00')
    expect(told(timeZoneFinding(machine(), { timeZone: 'Asia/Tokyo' }))).toBe('ok: Asia/Tokyo, now GMT+09:00')
    expect(timeZoneFinding(machine({ tz: 'Nowhere/Land', timeZone: undefined }), set).verdict).toBe('warning')
    expect(timeZoneFinding(machine({ tz: 'Nowhere/Land', timeZone: undefined }), { timeZone: 'Asia/Tokyo' }).verdict).toBe('ok')
    expect(timeZoneFinding(machine({ tz: ':/etc/localtime' }), set).verdict).toBe('ok')
  })
  it.each([[0xef53, 'ok'], [0x01021994, 'problem'], [0x794c7630, 'warning'], [0x6969, 'warning'], [0x1234, 'skipped']])('finds a file system of kind %i %s', (magic, verdict) => {
    expect(fileSystemFinding(magic).verdict).toBe(verdict)
  })
  it.each([[1e6, 'problem'], [5e8, 'warning'], [2e9, 'ok']])('finds %d bytes free %s, where a gigabyte may be kept', (free, verdict) => {
    expect(spaceFinding(free, { storeMaxBytes: 1e9 }).verdict).toBe(verdict)
  })
  it('takes every secret out of what others said', () => {
    const settings = {
      ...defaults('d'), pulsarToken: 'tokentoken', httpToken: 'http-secret', amqpUrl: ['amqp://u:pass%40word@h'], amqpManagementUrl: 'http://u:manage-me@h', pulsarUrl: 'ws://u:wspass@h',
    } as Settings
    const all = 'tokentoken http-secret pass%40word pass@word manage-me wspass'
    const { detail, todo } = withoutSecrets(settings)({ ...ok('what', all), todo: all })
    expect([detail, todo]).toEqual(Array(2).fill('*** *** *** *** *** ***'))
  })
})
