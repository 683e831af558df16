/** A closed loop of keep-alive connections, each posting as soon as it has its answer. */
import { Pool } from 'undici'
import { record } from './record.js'

const { url, messages, batch, connections } = JSON.parse(process.argv[2])
const pool = new Pool(url, { connections, pipelining: 1 })
const bodies = Array.from({ length: 100 }, (_, n) =>
  batch === 1 ? record(n) : `[${Array.from({ length: batch }, (_, i) => record(n * batch + i)).join(',')}]`,
)
let posted = 0
const worker = async () => {
  while (posted < messages) {
    const body = bodies[(posted / batch) % 100]
    posted += batch
    const reply = await pool.request({ method: 'POST', path: '/v1/messages', headers: { 'content-type': 'application/json' }, body })
    const text = await reply.body.text()
    if (reply.statusCode !== 202) throw new Error(`${reply.statusCode} ${text}`)
  }
}
const start = performance.now()
await Promise.all(Array.from({ length: connections }, worker))
const seconds = (performance.now() - start) / 1000
console.log(JSON.stringify({ rate: posted / seconds, messages: posted }))
process.stdin.resume().once('end', () => pool.close())
