/** Rows in which the machine runs out of something: files, room on the disk, a disk that can be written to, the right time. */
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { get } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDisk, whyNoDisk } from '../disk.js'
import { throughProxies } from './rows-network.js'
import { endsWithItsConnection, keepsNothingWithYes, patientWithTheFuture } from './sabotage.js'
import { eventually, pause } from './wait.js'

/** Milliseconds until it holds. */
const until = async (what, holds, deadlineMs = 60_000) => {
  const began = Date.now()
  await eventually(what, holds, deadlineMs)
  return Date.now() - began
}
/** One message of nobody's ledger: the status that it gets, and after how long. */
const ask = async ({ url }) => {
  const began = Date.now()
  const reply = await fetch(`${url}/v1/messages`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"asked":true}', signal: AbortSignal.timeout(12_000) }).catch(() => undefined)
  return { status: reply?.status, ms: Date.now() - began }
}

// ---- files

const limitFiles = (pid, files) => execFileSync('prlimit', ['--pid', `${pid}`, `--nofile=${files}:${files}`])
const openFiles = (pid) => readdirSync(`/proc/${pid}/fd`).length

/** So many connections that say nothing, made again as soon as they are cut; gives their end. */
const flood = (url, many) => {
  const { hostname, port } = new URL(url)
  let going = true
  const all = new Set()
  const one = () => {
    if (!going) return
    const socket = connect(Number(port), hostname)
    all.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => {
      all.delete(socket)
      setTimeout(one, 50)
    })
  }
  for (let i = 0; i < many; i += 1) one()
  return () => {
    going = false
    for (const socket of all) socket.destroy()
  }
}

/** To somebody who was not there before. */
const answersAnew = ({ url }) =>
  new Promise((resolve) => {
    const call = get(`${url}/healthz`, { agent: false, timeout: 2000 }, (reply) => resolve(reply.resume().statusCode === 200))
    call.on('timeout', () => call.destroy())
    call.on('error', () => resolve(false))
  })

// ---- the disk

const onDisk = async (world) => {
  const proxies = await throughProxies(world)
  const disk = openDisk(48)
  return {
    ...proxies,
    settings: { ...proxies.settings, BACKHAUL_AMQP_URL: '', BACKHAUL_DATA_DIR: join(disk.folder, 'data') },
    world: { ...proxies.world, disk },
    close: () => {
      proxies.close()
      disk.close()
    },
  }
}

// ---- the clock

const library = () => ['/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1', '/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1'].find(existsSync)
const onWrongTime = async (world) => {
  const proxies = await throughProxies(world)
  const folder = mkdtempSync(join(tmpdir(), 'backhaul-clock-'))
  const file = join(folder, 'time')
  const setClock = (offset) => writeFileSync(file, offset)
  setClock('+0')
  return {
    ...proxies,
    // The monotonic clock is nobody's to set.
    settings: { ...proxies.settings, LD_PRELOAD: library(), FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1', DONT_FAKE_MONOTONIC: '1' },
    world: { ...proxies.world, setClock },
    close: () => {
      proxies.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
const stampOf = ({ text }) => Date.parse(`${/"UploadedUTCDateTime":"([^"]*)"/.exec(text)?.[1] ?? ''}`)
const hour = 3600
const jumps = [hour, -hour, 10 * 365 * 24 * hour, -10 * 365 * 24 * hour, '@1970-01-02 00:00:00', 0]

/** @type {readonly import('./rows.js').Row[]} */
export const machine = [
  {
    id: 'R18',
    fault: 'embedded queue: the disk is full (ext4, not a byte left) while Pulsar is away, then there is room again',
    counts: { short: 2, long: 20 },
    bar: '0 lost, refused within 100 ms, taking again 10 s after there is room, no restart',
    needs: whyNoDisk,
    prepare: onDisk,
    sabotage: keepsNothingWithYes,
    atMost: { refusedMs: 100, healedMs: 10_000, starts: 1 },
    atLeast: { refusals: 1 },
    faults: async ({ ingest, pulsar, disk, ledger, flowing, bite, count }) => {
      let [refusals, refusedMs, healedMs] = [0, 0, 0]
      for (let strike = 0; strike < count; strike += 1) {
        await flowing()
        await pulsar.set({ refuse: true })
        pulsar.reset()
        await bite(async () => {
          disk.fill()
          // What is refused and unanswered does not count as a yes; then somebody new asks.
          await eventually('nothing is taken any more', async () => {
            const before = ledger.accepted()
            await pause(500)
            return ledger.accepted() === before
          }).catch(() => undefined)
          const { status, ms } = await ask(ingest)
          if (status === 503 || status === 507) refusals += 1
          refusedMs = Math.max(refusedMs, ms)
          const accepted = ledger.accepted()
          disk.free()
          healedMs = Math.max(healedMs, await until('messages are taken again', () => ledger.accepted() > accepted))
        })
        await pulsar.heal()
      }
      await flowing()
      return { refusals, refusedMs, healedMs, starts: ingest.starts() }
    },
  },
  {
    id: 'R20',
    fault: 'embedded queue: its file system meets an error and turns read-only (ext4), is repaired, and Backhaul started again',
    counts: { short: 2, long: 20 },
    bar: '0 lost, refused within 100 ms, still answering, none of it a yes',
    needs: whyNoDisk,
    prepare: onDisk,
    sabotage: keepsNothingWithYes,
    atMost: { refusedMs: 100, dead: 0 },
    atLeast: { refusals: 1 },
    faults: async ({ ingest, disk, flowing, bite, count }) => {
      let [refusals, refusedMs, dead] = [0, 0, 0]
      for (let strike = 0; strike < count; strike += 1) {
        await flowing()
        await bite(async () => {
          disk.fail()
          await eventually('the disk is read-only', () => disk.isReadOnly())
          await pause(1000)
          const { status, ms } = await ask(ingest)
          if (status === 503 || status === 507) refusals += 1
          refusedMs = Math.max(refusedMs, ms)
          if ((await ingest.get('/healthz'))?.status !== 200) dead += 1
          await ingest.kill()
          disk.repair()
          await ingest.start()
        })
      }
      await flowing()
      return { refusals, refusedMs, dead }
    },
  },
  {
    id: 'R51',
    fault: 'the wall clock jumps (an hour and ten years, both ways, 1970, and back) in the moment in which RabbitMQ falls silent',
    counts: { short: 6, long: 198 },
    bar: '0 lost, 0 reordered, taking again within 4 s, and the new time is on the messages',
    needs: () => (library() === undefined ? "libfaketime is missing; Debian's package: libfaketime" : undefined),
    prepare: onWrongTime,
    sabotage: patientWithTheFuture,
    atMost: { answeringMs: 4000, wrongTime: 0 },
    faults: async ({ setClock, amqp, ledger, witness, flowing, bite, count }) => {
      let [answeringMs, wrongTime] = [0, 0]
      for (let strike = 0; strike < count; strike += 1) {
        const jump = jumps[strike % jumps.length]
        await flowing()
        await bite(async () => {
          await amqp.set({ up: { hold: true }, down: { hold: true } })
          setClock(typeof jump === 'number' ? `${jump < 0 ? '' : '+'}${jump}` : jump)
          const accepted = ledger.accepted()
          answeringMs = Math.max(answeringMs, await until('messages are taken', () => ledger.accepted() > accepted + 200))
          await amqp.heal()
        })
        await flowing(2000)
        const expected = typeof jump === 'number' ? Date.now() + jump * 1000 : Date.UTC(1970, 0, 2)
        if (!(Math.abs(stampOf(witness.deliveries().at(-1)) - expected) < 1_800_000)) wrongTime += 1
      }
      return { answeringMs, wrongTime }
    },
  },
  {
    id: 'R60',
    fault: '64 file descriptors, 500 connections that want one, and every connection to a broker cut meanwhile',
    counts: { short: 2, long: 20 },
    bar: '0 lost, no crash, answering 5 s after the flood',
    prepare: throughProxies,
    sabotage: endsWithItsConnection,
    atMost: { healedMs: 5000, starts: 1, dead: 0 },
    atLeast: { files: 64 },
    faults: async ({ ingest, amqp, pulsar, ledger, flowing, bite, count, long }) => {
      let [healedMs, files, dead] = [0, 0, 0]
      limitFiles(ingest.pid(), 64)
      for (let strike = 0; strike < count && dead === 0; strike += 1) {
        await flowing()
        await bite(async () => {
          const stop = flood(ingest.url, 500)
          for (const end = Date.now() + (long ? 20_000 : 5000); Date.now() < end; await pause(100)) {
            // All are taken, and one more is wanted.
            if (ingest.alive()) files = Math.max(files, openFiles(ingest.pid()) + 1)
            if (files >= 64) for (const proxy of [amqp, pulsar]) proxy.reset()
          }
          stop()
          if (!ingest.alive()) return void (dead += 1)
          const accepted = ledger.accepted()
          healedMs = Math.max(healedMs, await until('it answers, and takes messages', async () => (await answersAnew(ingest)) && ledger.accepted() > accepted))
        })
      }
      // The dead are started anew, so that what they lost can be told.
      if (dead > 0) await ingest.start()
      await flowing()
      return { healedMs, files, dead, starts: ingest.starts() }
    },
  },
]
