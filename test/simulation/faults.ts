/** Makes the faults of a plan strike, at their time or at the next thing of a kind, and ends them. */
import { clock } from './clock.js'
import type { Outside } from './daemon.js'
import type { Point } from './ground.js'
import type { Fault } from './plan.js'
import type { Random } from './random.js'

export interface Machine extends Outside {
  readonly crash: (how: 'kill' | 'power', downMs: number) => void
  readonly stop: (downMs: number) => void
  readonly queue: string
}

/** How often each kind struck, and how often something was under way that it could hurt. */
export type Strikes = Map<string, { struck: number; bit: number }>

export interface Faults {
  readonly plan: (fault: Fault) => void
  readonly point: (at: Point) => void
  /** Everything works again. */
  readonly heal: () => void
}

/** A fault that waits for something that does not happen strikes all the same. */
const patienceMs = 3000

export const faults = (machine: Machine, untilMs: number, random: Random, strikes: Strikes, inFlight: (fault: Fault) => number): Faults => {
  const { rabbit, pulsar, disk } = machine
  const armed: { readonly at: Point; readonly strike: () => void }[] = []
  const until = new Map<string, { at: number; end: () => void }>()

  /** A condition that lasts; of several at once the longest counts. */
  const last = (name: string, ms: number, begin: () => void, end: () => void): void => {
    const at = Math.min(untilMs, clock.now() + ms)
    const before = until.get(name)
    if (before === undefined) begin()
    else if (before.at >= at) return
    const mine = { at, end }
    until.set(name, mine)
    clock.at(at, () => {
      if (until.get(name) !== mine) return
      until.delete(name)
      end()
    })
  }
  const strike = (fault: Fault): void => {
    if (clock.now() >= untilMs) return
    const count = strikes.get(fault.kind) ?? { struck: 0, bit: 0 }
    strikes.set(fault.kind, count)
    count.struck += 1
    if (inFlight(fault) > 0) count.bit += 1
    const { kind, ms } = fault
    switch (kind) {
      case 'crash':
        return machine.crash('kill', ms)
      case 'power-cut':
        return machine.crash('power', ms)
      case 'stop':
        return machine.stop(ms)
      case 'rabbitmq-kill':
        return last(kind, ms, rabbit.kill, rabbit.start)
      case 'rabbitmq-freeze':
        return last(kind, ms, rabbit.freeze, rabbit.thaw)
      case 'rabbitmq-slow':
        return last(kind, ms, () => rabbit.slow(random.between(100, 1400)), () => rabbit.slow(0))
      case 'rabbitmq-block':
        return last(kind, ms, rabbit.block, rabbit.unblock)
      case 'rabbitmq-cut':
        return rabbit.cut()
      case 'rabbitmq-mute':
        return rabbit.mute()
      case 'rabbitmq-delete-queue':
        return rabbit.deleteQueue(machine.queue)
      case 'rabbitmq-cancel':
        return rabbit.cancelConsumers()
      case 'rabbitmq-close-channels':
        return rabbit.closeChannels()
      case 'rabbitmq-refuse':
        return last(kind, ms, () => rabbit.refuse(true), () => rabbit.refuse(false))
      case 'pulsar-kill':
        return last(kind, ms, pulsar.kill, pulsar.start)
      case 'pulsar-freeze':
        return last(kind, ms, pulsar.freeze, pulsar.thaw)
      case 'pulsar-slow':
        return last(kind, ms, () => pulsar.slow(random.between(200, 5000)), () => pulsar.slow(0))
      case 'pulsar-cut':
        return pulsar.cut()
      case 'pulsar-mute':
        return pulsar.mute()
      case 'pulsar-fail':
        return pulsar.failSends()
      case 'pulsar-unload':
        return pulsar.unload()
      case 'pulsar-refuse':
        return last(
          kind,
          ms,
          () => {
            pulsar.refuse(fault.status)
            pulsar.cut()
          },
          () => pulsar.refuse(undefined),
        )
      case 'disk-full':
        return last(kind, ms, () => disk.full(random.between(0, 2000)), () => disk.full(undefined))
      case 'disk-slow':
        return last(kind, ms, () => disk.slow(random.between(50, 1500)), () => disk.slow(0))
      case 'disk-bad-syncs':
        return last(kind, ms, () => disk.failSyncs(random.between(1, 4)), () => disk.failSyncs(0))
      case 'disk-bad-writes':
        return last(kind, ms, () => disk.failWrites(random.between(1, 4)), () => disk.failWrites(0))
      case 'clock-jump':
        return clock.jump(fault.by)
    }
  }
  return {
    plan: (fault) =>
      clock.at(fault.at, () => {
        if (fault.when === undefined) return strike(fault)
        let done = false
        const once = (): void => {
          if (!done) strike(fault)
          done = true
        }
        armed.push({ at: fault.when, strike: once })
        clock.after(patienceMs, once)
      }),
    point: (at) => {
      const index = armed.findIndex((one) => one.at === at)
      if (index >= 0) armed.splice(index, 1)[0]?.strike()
    },
    heal: () => {
      armed.length = 0
      for (const { end } of [...until.values()]) end()
      until.clear()
    },
  }
}
