/** Rows in which the power of a machine with RabbitMQ and Backhaul fails, and in which RabbitMQ does not come up after it. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { whyNoDisk } from '../disk.js'
import { copyImage, freshImage, mounted, run } from '../power-cut/image.js'
import { answersEarly, waitsForRabbitmq } from './sabotage.js'
import { eventually } from './wait.js'

/**
 * RabbitMQ's data and Backhaul's on a disk of their own. Pulsar is not on it, and lives: as it comes, it does not sync
 * before it answers, and would be blamed on us.
 */
const onImage = async ({ brokers }) => {
  const home = mkdtempSync(join(tmpdir(), 'backhaul-power-'))
  const folder = join(home, 'disk')
  let image = join(home, 'image-0')
  let cuts = 0
  let release = () => {}
  // A process that was killed may keep its files open for a moment.
  const unmount = () =>
    eventually('nobody uses the disk', () => {
      try {
        release()
        release = () => {}
        return true
      } catch {
        return false
      }
    })
  const close = async () => {
    await brokers.kill('rabbitmq')
    rmSync(brokers.rabbitmqData, { recursive: true, force: true })
    await unmount()
    rmSync(home, { recursive: true, force: true })
  }
  const disk = {
    /** What was written until now is there after a cut. */
    sync: () => run('sync', '--file-system', folder),
    /** Puts the disk aside as it is found now, while all that write to it stand still. */
    photograph: () => {
      cuts += 1
      copyImage(image, join(home, `image-${cuts}`))
    },
    /** The last photograph takes the disk's place. */
    restore: async () => {
      await unmount()
      rmSync(image)
      image = join(home, `image-${cuts}`)
      release = mounted(image, folder).unmount
    },
  }
  try {
    await brokers.kill('rabbitmq')
    freshImage(image, 512)
    release = mounted(image, folder).unmount
    mkdirSync(join(folder, 'rabbitmq'))
    rmSync(brokers.rabbitmqData, { recursive: true, force: true })
    symlinkSync(join(folder, 'rabbitmq'), brokers.rabbitmqData)
    await brokers.start('rabbitmq')
  } catch (error) {
    await close()
    throw error
  }
  return { settings: { BACKHAUL_DATA_DIR: join(folder, 'backhaul') }, world: { disk }, close }
}

/** Milliseconds from the start of the daemon's process to the next message that it takes; at most the deadline. */
const startedAndTaking = async ({ ingest, ledger }) => {
  const accepted = ledger.accepted()
  const began = Date.now()
  await ingest.start()
  await eventually('messages are taken', () => ledger.accepted() > accepted, 20_000).catch(() => undefined)
  return Date.now() - began
}

const cutPower = async (world) => {
  const { ingest, brokers, disk } = world
  // RabbitMQ first: between the two it could sync what it has confirmed.
  await brokers.freeze('rabbitmq')
  ingest.signal('SIGSTOP')
  await eventually('Backhaul stands still', () => ingest.frozen())
  disk.photograph()
  await Promise.all([ingest.kill(), brokers.kill('rabbitmq')])
  await disk.restore()
  const [takingMs] = await Promise.all([startedAndTaking(world), brokers.start('rabbitmq')])
  return takingMs
}

const powerCut = (id, queueType) => ({
  id,
  fault: `power cut of RabbitMQ and Backhaul, ext4 image, ${queueType} queue`,
  counts: { short: 1, long: 20 },
  bar: '0 lost, taking 5 s after its start',
  settings: { BACKHAUL_QUEUE_TYPE: queueType },
  needs: whyNoDisk,
  prepare: onImage,
  sabotage: answersEarly,
  atMost: { takingMs: 5000 },
  faults: async (world) => {
    let [takingMs, due] = [0, 0]
    // Right after its first boot RabbitMQ 3.10 may not come up again from what it has synced.
    world.disk.sync()
    for (let cut = 0; cut < world.count; cut += 1) {
      await world.flowing(2000)
      await world.bite(async () => {
        due += world.outstanding()
        takingMs = Math.max(takingMs, await cutPower(world))
      })
    }
    await world.flowing()
    return { takingMs, due }
  },
})

/** RabbitMQ's own list of what it has is spoilt, as a power cut right after its first boot may leave it; gives its repair. */
const spoil = (data) => {
  const kept = `${data}.kept`
  cpSync(data, kept, { recursive: true })
  const schemas = readdirSync(data, { recursive: true }).filter((name) => name.endsWith('schema.DAT'))
  if (schemas.length !== 1) throw new Error('RabbitMQ has no schema.DAT to spoil')
  writeFileSync(join(data, schemas[0]), Buffer.alloc(5000))
  return () => {
    rmSync(data, { recursive: true })
    renameSync(kept, data)
  }
}

/** @type {readonly import('./rows.js').Row[]} */
export const powerCuts = [
  powerCut('R12', 'classic'),
  powerCut('R12q', 'quorum'),
  {
    id: 'R13',
    fault: 'kill -9 of Backhaul and RabbitMQ, and RabbitMQ cannot boot from what it finds, until that is repaired',
    counts: { short: 1, long: 20 },
    bar: '0 lost, taking 5 s after its start, RabbitMQ told as away',
    load: { sources: 2, batch: 5 },
    sabotage: waitsForRabbitmq,
    atMost: { takingMs: 5000, untold: 0 },
    faults: async (world) => {
      const { ingest, brokers, sender, flowing, bite, count } = world
      let [takingMs, untold] = [0, 0]
      for (let strike = 0; strike < count; strike += 1) {
        await flowing()
        await bite(() => Promise.all([ingest.kill(), brokers.kill('rabbitmq')]))
        const repair = spoil(brokers.rabbitmqData)
        const boot = brokers.start('rabbitmq').then(() => true, () => false)
        takingMs = Math.max(takingMs, await startedAndTaking(world))
        // What has been taken is enough: all of it has to drain.
        await sender.whileStill(async () => {
          if (await boot) throw new Error('RabbitMQ booted all the same')
          if ((await ingest.metrics())('backhaul_connected', 'link="rabbitmq"') !== 0) untold += 1
          repair()
          await brokers.start('rabbitmq')
        })
      }
      await flowing()
      return { takingMs, untold }
    },
  },
]
