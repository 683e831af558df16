/** The limit: persistent, mandatory, confirmed, one channel, a window, nothing else. */
import amqp from 'amqplib'
import { record } from './record.js'

const { amqpUrl, queue, messages, window } = JSON.parse(process.argv[2])
const connection = await amqp.connect(amqpUrl, { noDelay: true })
const channel = await connection.createConfirmChannel()
const bodies = Array.from({ length: 1000 }, (_, n) => Buffer.from(record(n)))
const start = performance.now()
await new Promise((resolve, reject) => {
  let sent = 0
  let confirmed = 0
  const pump = () => {
    while (sent < messages && sent - confirmed < window) {
      const id = String(sent)
      channel.publish('', queue, bodies[sent % 1000], { deliveryMode: 2, mandatory: true, messageId: id, contentType: 'application/json' }, (error) => {
        if (error) return reject(error)
        confirmed += 1
        if (confirmed === messages) resolve()
        else pump()
      })
      sent += 1
    }
  }
  pump()
})
const seconds = (performance.now() - start) / 1000
console.log(JSON.stringify({ rate: messages / seconds, messages }))
process.stdin.resume().once('end', () => connection.close())
