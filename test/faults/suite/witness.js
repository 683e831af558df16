/**
 * Who says what arrived: a consumer straight over Pulsar's WebSocket API, on a subscription made before the first
 * message is sent, and made again whenever Pulsar goes away. Nothing of Backhaul's own is in here.
 * What Pulsar shows twice under one message id of its own is one delivery.
 */
import WebSocket from 'ws'
import { eventually } from './wait.js'

export const openWitness = async (pulsarUrl, topic) => {
  const path = topic.replace('://', '/')
  const address = `${pulsarUrl}/ws/v2/consumer/${path}/witness?subscriptionType=Exclusive&receiverQueueSize=1000&ackTimeoutMillis=0`
  const shown = new Set()
  const deliveries = []
  const ids = new Set()
  let closed = false
  let socket
  let subscribed = false

  const connect = () => {
    socket = new WebSocket(address, { perMessageDeflate: false, handshakeTimeout: 5000 })
    socket.on('open', () => (subscribed = true))
    socket.on('message', (data) => {
      const { messageId, payload, properties = {} } = JSON.parse(data.toString())
      socket.send(JSON.stringify({ messageId }))
      if (shown.has(messageId)) return
      shown.add(messageId)
      const id = properties.messageId ?? '(none)'
      deliveries.push({ id, text: Buffer.from(payload, 'base64').toString('utf8') })
      ids.add(id)
    })
    socket.on('error', () => {})
    socket.on('close', () => closed || setTimeout(connect, 250))
  }
  connect()
  await eventually('the witness has its subscription', () => subscribed, 60_000)
  return {
    deliveries: () => deliveries,
    /** How many different messages have arrived. */
    unique: () => ids.size,
    has: (id) => ids.has(id),
    close: () => {
      closed = true
      socket.terminate()
    },
  }
}
