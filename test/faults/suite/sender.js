/**
 * The driver: a process of its own that no fault touches. Several sources, each a sequence that waits for its
 * answer, post batches over HTTP. An unknown outcome is tried again under the same Idempotency-Key, so that
 * its order is kept; a refusal too, or with `insist: false` it is let go. With `perSecond` a source waits for its next
 * batch's time, and for its answer: what an outage has held up is not made good.
 *
 *   node sender.js '{"url","run","ledger","sources","batch","pad","insist","limit","perSecond"}'
 *
 * SIGTERM: each source ends with the batch it is at, once that is answered. Exit 0 then.
 */
import { Agent, request } from 'node:http'
import { hashOf, openLedger } from './ledger.js'
import { pause } from './wait.js'

const { url, run, ledger: file, sources = 4, batch = 20, pad = 100, insist = true, limit = Infinity, perSecond = 0 } = JSON.parse(process.argv[2])
const ledger = openLedger(file)
const agent = new Agent({ keepAlive: true, maxSockets: sources })
let going = true
let sent = 0
process.on('SIGTERM', () => (going = false))

/** Status and body, or why there is none. */
const post = (key, body) =>
  new Promise((resolve) => {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), 'idempotency-key': key }
    const call = request(`${url}/v1/messages`, { method: 'POST', agent, headers, timeout: 12_000 }, (reply) => {
      let text = ''
      reply.on('data', (data) => (text += data))
      reply.on('end', () => resolve({ status: reply.statusCode, text }))
      reply.on('error', () => resolve({ status: 0 }))
    })
    call.on('timeout', () => call.destroy(new Error('timeout')))
    // Where nobody listens, nothing was kept.
    call.on('error', ({ code }) => resolve({ status: code === 'ECONNREFUSED' ? -1 : 0 }))
    call.end(body)
  })

/** One word of the ledger for each message. */
const wordsOf = ({ status, text }, count) => {
  const all = (word) => Array(count).fill(word)
  if (status === 202) return all('yes')
  if (status === 207) return JSON.parse(text).results.map((one) => ({ accepted: 'yes', released: 'no', rejected: 'no', unknown: 'who' })[one.status])
  return all(status === 0 || status === 504 || status === 500 ? 'who' : 'no')
}

const source = async (name) => {
  const everyMs = perSecond === 0 ? 0 : (1000 * sources * batch) / perSecond
  for (let number = 0; going && sent < limit; number += 1) {
    const due = Date.now() + everyMs
    const key = `${run}.${name}.${number}`
    const bodies = Array.from({ length: batch }, (_, i) => JSON.stringify({ run, source: name, sequence: number * batch + i, pad: 'x'.repeat(pad) }))
    const messages = bodies.map((text, i) => ({ id: batch === 1 ? key : `${key}-${i}`, source: name, sequence: number * batch + i, hash: hashOf(text) }))
    sent += batch
    for (let settled = false; !settled; ) {
      ledger.tries(messages)
      const reply = await post(key, batch === 1 ? bodies[0] : `[${bodies.join()}]`)
      const words = wordsOf(reply, batch)
      for (const word of ['yes', 'no', 'who']) ledger.outcomes(word, messages.filter((_, i) => words[i] === word).map(({ id }) => id))
      settled = words.every((word) => word === 'yes' || (word === 'no' && !insist))
      if (!settled) await pause(20)
    }
    while (going && Date.now() < due) await pause(Math.min(50, due - Date.now()))
  }
}

await Promise.all(Array.from({ length: sources }, (_, i) => source(`s${i}`)))
agent.destroy()
