/**
 * A TCP proxy that misbehaves as it is told, while connections run through it. `up` is from the client to the
 * server, `down` the way back; each has faults of its own:
 *
 *   latencyMs       every byte is late by so much
 *   bytesPerSecond  no faster than this, on each connection
 *   sliceBytes      in pieces of at most so many bytes, each a write of its own
 *   hold            nothing passes and nothing is lost: a partition, which ends with `heal`
 *   swallow         what comes is gone, the connection stays: half-open. `heal` resets what has lost bytes, for a
 *                   stream with a hole in it is nothing that TCP would show to anybody
 *   limitBytes      after so many more bytes on a connection it is reset
 *
 * `refuse` lets nobody new in; who is in stays.
 *
 * **Holds** at most 256 KiB for each connection and way: then it reads no more.
 */
import { once } from 'node:events'
import { connect, createServer } from 'node:net'

const maxHeldBytes = 256 * 1024
const late = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const turn = () => new Promise((resolve) => setImmediate(resolve))

/** With an RST, where that can be had: Node has none after an end, and would wait for what is not written yet. */
const abort = (socket) => {
  if (socket.writableEnded || socket.writableLength > 0) socket.destroy()
  else socket.resetAndDestroy()
  socket.unref()
}

/** One way of one connection; `check` has it look again at its faults. */
const startWay = (from, to, faults, counts, reset) => {
  const held = []
  let heldBytes = 0
  let passed = 0
  let ended = false
  let wake = () => {}
  let hole = false

  const lose = (bytes) => {
    hole = true
    counts.swallowed += bytes.length
  }
  from.on('data', (bytes) => {
    if (faults().swallow) return lose(bytes)
    held.push({ bytes, came: performance.now() })
    heldBytes += bytes.length
    if (heldBytes > maxHeldBytes) from.pause()
    wake()
  })
  from.on('end', () => {
    ended = true
    wake()
  })
  const changed = () => new Promise((resolve) => (wake = resolve))
  const give = async (piece) => {
    const { bytesPerSecond, limitBytes, sliceBytes } = faults()
    const began = performance.now()
    if (!to.writable) return
    passed += piece.length
    counts.passed += piece.length
    counts.pieces += 1
    if (!to.write(piece)) await Promise.race([once(to, 'drain'), once(to, 'close')]).catch(() => undefined)
    if (limitBytes !== undefined && passed >= limitBytes) return reset()
    if (sliceBytes !== undefined) await turn()
    if (bytesPerSecond !== undefined) await late((piece.length * 1000) / bytesPerSecond - (performance.now() - began))
  }
  const run = async () => {
    while (!to.destroyed) {
      const { swallow, hold, latencyMs = 0, bytesPerSecond, limitBytes, sliceBytes } = faults()
      const [first] = held
      if (first === undefined && ended) return void to.end()
      if (first === undefined || hold) {
        await changed()
        continue
      }
      const early = first.came + latencyMs - performance.now()
      if (!swallow && early > 0) {
        await Promise.race([late(early), changed()])
        continue
      }
      const most = Math.min(sliceBytes ?? Infinity, bytesPerSecond === undefined ? Infinity : Math.max(1, bytesPerSecond / 50), limitBytes === undefined ? Infinity : Math.max(1, limitBytes - passed))
      const piece = swallow ? first.bytes : first.bytes.subarray(0, most)
      first.bytes = first.bytes.subarray(piece.length)
      if (first.bytes.length === 0) held.shift()
      heldBytes -= piece.length
      if (heldBytes <= maxHeldBytes && from.isPaused()) from.resume()
      if (swallow) lose(piece)
      else await give(piece)
    }
  }
  void run()
  to.once('close', () => wake())
  return { check: () => wake(), hasHole: () => hole, begin: () => (passed = 0) }
}

/** Listens on a port of its own, which it keeps, in front of `host` and `port`. */
export const openProxy = async ({ host = '127.0.0.1', port: target }) => {
  let faults = { up: {}, down: {} }
  let refuse = false
  const counts = { connections: 0, resets: 0, up: { passed: 0, pieces: 0, swallowed: 0 }, down: { passed: 0, pieces: 0, swallowed: 0 } }
  const links = new Set()

  const accept = (client) => {
    const server = connect({ host, port: target, noDelay: true, allowHalfOpen: true })
    client.setNoDelay(true)
    counts.connections += 1
    const cut = () => {
      abort(client)
      abort(server)
    }
    const link = {
      reset: () => {
        counts.resets += 1
        cut()
      },
    }
    let closed = 0
    for (const socket of [client, server]) {
      socket.on('error', cut)
      socket.on('close', () => {
        closed += 1
        if (closed === 2) links.delete(link)
      })
    }
    // The client's first bytes wait until there is somebody to give them to.
    server.once('connect', () => {
      link.up = startWay(client, server, () => faults.up, counts.up, link.reset)
      link.down = startWay(server, client, () => faults.down, counts.down, link.reset)
      client.resume()
    })
    links.add(link)
  }
  let listener
  const listen = async (port) => {
    listener = createServer({ allowHalfOpen: true, pauseOnConnect: true }, accept).listen(port, '127.0.0.1')
    await once(listener, 'listening')
    return listener.address().port
  }
  const port = await listen(0)
  const reset = () => {
    for (const link of links) link.reset()
  }
  const change = async ({ up = {}, down = {}, refuse: refused = false }) => {
    faults = { up, down }
    for (const link of links) {
      for (const way of [link.up, link.down]) {
        way?.begin()
        way?.check()
      }
      if ((link.up?.hasHole() && !up.swallow) || (link.down?.hasHole() && !down.swallow)) link.reset()
    }
    if (refused === refuse) return
    refuse = refused
    if (refuse) listener.close()
    else await listen(port)
  }
  return {
    port,
    /** The same address, through here. */
    through: (address) => {
      const url = new URL(address)
      url.host = `127.0.0.1:${port}`
      return url.href.replace(/\/$/, address.endsWith('/') ? '/' : '')
    },
    /** Exactly these faults from now on, also for what runs already. */
    set: change,
    heal: () => change({}),
    /** Everything that is open ends with an RST, on both sides. */
    reset,
    connections: () => links.size,
    counts: () => structuredClone(counts),
    close: () => {
      reset()
      listener.close()
    },
  }
}
