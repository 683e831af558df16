import type { Settings } from '../settings.js'
import { topicLogFile } from '../pipelines/parts.js'

const masked = (url: string): string => url.replace(/:[^:@/]*@/, ':***@')

/** What runs where, in plain lines, and one command to try. */
export const banner = (settings: Settings, url: string): readonly string[] => {
  const { amqpUrl, queue, dataDir, pulsarUrl, pulsarTopic, configTopic, websocket, udp, roles, httpToken } = settings
  const queued = amqpUrl.length > 0 ? `RabbitMQ, ${queue} at ${amqpUrl.map(masked).join(', ')}` : `embedded, in ${dataDir}/spool`
  const far = pulsarUrl === undefined ? `the local topic log, ${topicLogFile(dataDir)}` : `Pulsar, ${pulsarTopic} at ${masked(pulsarUrl)}`
  const ingests = roles.includes('ingest')
  return [
    `Backhaul is running at ${url} (${roles.join(', ')}).`,
    `  messages in    ${ingests ? `${url}/v1/messages` : 'not here'}`,
    `  queue          ${queued}`,
    `  messages out   ${far}`,
    ...(websocket ? [`  WebSocket      ${url.replace(/^http/, 'ws')}/v1/stream`] : []),
    ...(udp.length > 0 ? [`  UDP            ${udp.join(', ')}`] : []),
    ...(pulsarUrl !== undefined && roles.includes('configuration') ? [`  configuration  ${configTopic}`] : []),
    ...(amqpUrl.length === 0 ? ['No broker is configured: BACKHAUL_AMQP_URL is empty, the queue is embedded in this process.'] : []),
    ...(pulsarUrl === undefined ? ['MESSAGES DO NOT LEAVE THIS MACHINE: BACKHAUL_PULSAR_URL is empty, they end in the local topic log.'] : []),
    ...(ingests
      ? [
          'Try it:',
          `  curl -X POST ${url}/v1/messages -H 'content-type: application/json'${httpToken === undefined ? '' : ` -H "authorization: Bearer $BACKHAUL_HTTP_TOKEN"`} -d '{"temperature": 21.5}'`,
        ]
      : []),
  ]
}
