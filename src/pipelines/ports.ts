import type { OpenAmqp } from '../connections/amqp-port.js'
import type { httpServer } from '../connections/http-server.js'
import type { InspectQueues } from '../connections/queue-inspector.js'
import type { Host } from '../connections/rabbitmqctl.js'
import type { SegmentLogOptions } from '../connections/segment-log.js'
import type { OpenWebSocket, webSocketServer } from '../connections/web-socket.js'

/** The world outside a daemon, so that a simulator can be it; what is left out is the real one. */
export interface Ports {
  readonly openAmqp?: OpenAmqp
  /** The client that Pulsar is written through. */
  readonly openWebSocket?: OpenWebSocket
  /** Under the embedded queues. */
  readonly disk?: Omit<SegmentLogOptions, 'maxBytes' | 'httpAddress'>
  readonly httpServer?: typeof httpServer
  readonly webSocketServer?: typeof webSocketServer
  /** The machine with rabbitmqctl; left out: policies are seen by the management API alone. */
  readonly host?: Host
  /** Looks at RabbitMQ's queues. @default over amqplib; none when `openAmqp` is given */
  readonly inspectQueues?: InspectQueues
}
