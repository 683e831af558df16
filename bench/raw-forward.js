/** The limit: consume, send over Pulsar's WebSocket API, acknowledge the confirmed prefix once a turn. */
import amqp from 'amqplib'
import WebSocket from 'ws'

const { amqpUrl, pulsarUrl, queue, topic, messages, window } = JSON.parse(process.argv[2])
const path = topic.replace('persistent://', 'persistent/')
const query = `batchingEnabled=true&batchingMaxMessages=1000&batchingMaxPublishDelay=5&maxPendingMessages=${2 * window}&sendTimeoutMillis=0`
const socket = new WebSocket(`${pulsarUrl}/ws/v2/producer/${path}?${query}`, { perMessageDeflate: false })
await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
const connection = await amqp.connect(amqpUrl, { noDelay: true })
const channel = await connection.createChannel()
await channel.prefetch(window)

let start
let done = 0
let acknowledged = 0
let flushing = false
const flush = () => {
  flushing = false
  if (done === acknowledged) return
  acknowledged = done
  channel.ack({ fields: { deliveryTag: done } }, true)
}
const finished = new Promise((resolve) => {
  socket.on('message', (text) => {
    const { result, context } = JSON.parse(text)
    if (result !== 'ok' || Number(context) !== done + 1) throw new Error(`unexpected answer ${text}`)
    done += 1
    if (!flushing) setImmediate(flush)
    flushing = true
    if (done === messages) resolve()
  })
})
await channel.consume(queue, ({ content, fields, properties }) => {
  start ??= performance.now()
  socket.send(
    JSON.stringify({
      payload: content.toString('base64'),
      context: String(fields.deliveryTag),
      key: 'bench',
      properties: { messageId: properties.messageId },
    }),
  )
})
await finished
const seconds = (performance.now() - start) / 1000
flush()
console.log(JSON.stringify({ rate: messages / seconds, messages }))
process.stdin.resume().once('end', async () => {
  await connection.close()
  socket.terminate()
})
