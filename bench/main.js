/**
 * One run, four legs, ratios: the raw limit of confirmed publishing and Backhaul's ingest;
 * raw consume → Pulsar and Backhaul's forward leg. Needs a RabbitMQ and a Pulsar (`npm run brokers`).
 *
 *   npm run bench [-- --messages 50000 --rounds 3]
 */
import { spawn } from 'node:child_process'
import { readFileSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { tmpdir, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import amqp from 'amqplib'

const { values } = parseArgs({ options: { messages: { type: 'string', default: '50000' }, rounds: { type: 'string', default: '3' } } })
const messages = Number(values.messages)
const rounds = Number(values.rounds)

const environment = () => {
  const read = (name) => process.env[name]
  if (read('BACKHAUL_TEST_AMQP_URL') && read('BACKHAUL_TEST_PULSAR_URL')) return process.env
  try {
    const lines = readFileSync(new URL('../.brokers/env', import.meta.url), 'utf8').trim().split('\n')
    return { ...process.env, ...Object.fromEntries(lines.map((line) => line.replace(/^export /, '').split(/=(.*)/s).slice(0, 2))) }
  } catch {
    console.error('The bench needs a RabbitMQ and a Pulsar: npm run brokers')
    process.exit(69)
  }
}
const env = environment()
const amqpUrl = env.BACKHAUL_TEST_AMQP_URL
const pulsarUrl = env.BACKHAUL_TEST_PULSAR_URL

/** CPU seconds and peak memory of a process that is still there. */
const usage = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  const peak = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return { cpuS: (Number(fields[11]) + Number(fields[12])) / 100, peakMiB: Number(peak?.[1] ?? 0) / 1024 }
}

const script = (name) => new URL(name, import.meta.url).pathname
/** Runs a leg in a process of its own; it prints one JSON line and waits to be measured. */
const leg = async (name, args) => {
  const child = spawn(process.execPath, [script(name), JSON.stringify(args)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const [line] = await once(createInterface({ input: child.stdout }), 'line')
  const used = usage(child.pid)
  child.stdin.end()
  await once(child, 'exit')
  return { ...JSON.parse(line), ...used }
}

const freshQueue = async (name) => {
  const connection = await amqp.connect(amqpUrl)
  const channel = await connection.createChannel()
  await channel.deleteQueue(name)
  await channel.assertQueue(name, { durable: true })
  await connection.close()
}
const dropQueues = async (names) => {
  const connection = await amqp.connect(amqpUrl)
  const channel = await connection.createChannel()
  for (const name of names) await channel.deleteQueue(name)
  await connection.close()
}

const daemon = async (settings) => {
  const folder = mkdtempSync(join(tmpdir(), 'backhaul-bench-'))
  const child = spawn(process.execPath, [script('../dist/main.js'), 'run'], {
    env: {
      PATH: env.PATH,
      BACKHAUL_HTTP_PORT: '0',
      BACKHAUL_DATA_DIR: folder,
      BACKHAUL_DEVICE_ID: 'bench',
      BACKHAUL_AMQP_URL: amqpUrl,
      BACKHAUL_PULSAR_URL: pulsarUrl,
      BACKHAUL_LOG_LEVEL: 'warn',
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })
  const url = await new Promise((resolve, reject) => {
    lines.on('line', (line) => {
      const found = /http:\/\/127\.0\.0\.1:\d+/.exec(line)
      if (found) resolve(found[0])
    })
    child.once('exit', () => reject(new Error('the daemon ended')))
  })
  return {
    url,
    used: () => usage(child.pid),
    stop: async () => {
      child.kill('SIGTERM')
      await once(child, 'exit')
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
const ready = async (url) => {
  for (const end = Date.now() + 30_000; Date.now() < end; ) {
    const reply = await fetch(`${url}/readyz`).catch(() => undefined)
    if (reply?.status === 200) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('the daemon did not get ready')
}
const metric = async (url, name) => {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1] ?? 0)
}

const queue = `bench-${process.pid}`
const topic = () => `persistent://public/default/bench-${process.pid}-${Math.random().toString(36).slice(2)}`

const ingest = async (kind) => {
  await freshQueue(queue)
  const { url, used, stop } = await daemon({ BACKHAUL_QUEUE: queue, BACKHAUL_ROLES: 'ingest' })
  await ready(url)
  const before = used()
  const load = await leg('load.js', kind === 'batches' ? { url, messages, batch: 100, connections: 8 } : { url, messages: Math.min(messages, 20_000), batch: 1, connections: 64 })
  const after = used()
  await stop()
  return { ...load, cpuS: after.cpuS - before.cpuS, peakMiB: after.peakMiB }
}
const forward = async () => {
  await freshQueue(queue)
  await leg('raw-publish.js', { amqpUrl, queue, messages, window: 1000 })
  const { url, used, stop } = await daemon({ BACKHAUL_QUEUE: queue, BACKHAUL_ROLES: 'forward', BACKHAUL_PULSAR_TOPIC: topic() })
  const until = async (count) => {
    for (const end = Date.now() + 120_000; Date.now() < end; ) {
      const delivered = await metric(url, 'backhaul_delivered_total')
      if (delivered >= count) return { delivered, at: performance.now() }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    throw new Error('the forward leg did not finish')
  }
  const first = await until(1)
  const before = used()
  const last = await until(messages)
  const after = used()
  await stop()
  const done = last.delivered - first.delivered
  return { rate: (done / (last.at - first.at)) * 1000, messages: done, cpuS: after.cpuS - before.cpuS, peakMiB: after.peakMiB }
}
const rawForward = async () => {
  await freshQueue(queue)
  await leg('raw-publish.js', { amqpUrl, queue, messages, window: 1000 })
  return leg('raw-forward.js', { amqpUrl, pulsarUrl, queue, topic: topic(), messages, window: 1000 })
}
const rawPublish = async () => {
  await freshQueue(queue)
  return leg('raw-publish.js', { amqpUrl, queue, messages, window: 1000 })
}

const legs = {
  'a  bare amqplib, persistent, confirmed, window 1000': rawPublish,
  'b1 ingest over HTTP, singles, 64 connections': () => ingest('singles'),
  'b2 ingest over HTTP, batches of 100': () => ingest('batches'),
  'c  bare consume → Pulsar WebSocket, window 1000': rawForward,
  'd  forward leg': forward,
}
const results = Object.fromEntries(Object.keys(legs).map((name) => [name, []]))
statSync(script('../dist/main.js'))
for (let round = 1; round <= rounds; round += 1) {
  for (const [name, run] of Object.entries(legs)) {
    const result = await run()
    results[name].push(result)
    console.error(`round ${round}  ${name}: ${Math.round(result.rate)}/s`)
  }
}
await dropQueues([queue, `${queue}.dead`])

const median = (numbers) => [...numbers].sort((x, y) => x - y)[Math.floor(numbers.length / 2)]
const rates = Object.fromEntries(Object.entries(results).map(([name, runs]) => [name.slice(0, 2).trim(), runs.map(({ rate }) => rate)]))
/** Paired within a round: what the machine does to one it does to the other. */
const ratio = (x, y) => median(rates[x].map((rate, i) => rate / rates[y][i])).toFixed(2)

console.log(`\n${messages} messages of 300 bytes, ${rounds} rounds, median; ${cpus().length} cores shared with both brokers\n`)
console.log(`${'leg'.padEnd(54)}${'per s'.padStart(8)}${'CPU s/100k'.padStart(12)}${'peak MiB'.padStart(10)}`)
for (const [name, runs] of Object.entries(results)) {
  const rate = Math.round(median(runs.map((run) => run.rate)))
  const cpu = median(runs.map((run) => (run.cpuS / run.messages) * 100_000)).toFixed(1)
  const peak = Math.round(median(runs.map((run) => run.peakMiB)))
  console.log(`${name.padEnd(54)}${String(rate).padStart(8)}${cpu.padStart(12)}${String(peak).padStart(10)}`)
}
console.log(`\nb1 / a = ${ratio('b1', 'a')}    b2 / a = ${ratio('b2', 'a')}    d / c = ${ratio('d', 'c')}`)
