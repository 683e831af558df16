import { createSocket } from 'node:dgram'
import type { Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { forkJoin, Observable } from 'rxjs'
import type { Connection, Sink, Writer } from '../delivery.js'
import { Rejection } from '../delivery.js'
import type { Message } from '../message.js'
import { deliver } from '../operators/deliver.js'

/** The most that one IPv4 datagram carries. */
export const maxDatagramBytes = 65_507

export interface UdpSettings {
  /** `host:port`, each of which gets every message. */
  readonly targets: readonly string[]
  /** Called for each datagram that did not leave, with its target and the reason. */
  readonly dropped: (target: string, reason: string) => void
}

interface Target {
  readonly name: string
  readonly host: string
  readonly port: number
}

const targetOf = (name: string): Target => {
  const colon = name.lastIndexOf(':')
  return { name, host: name.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(name.slice(colon + 1)) }
}

/** One socket for each family; a datagram that cannot leave is dropped and counted, and nobody waits for it. */
export const udpWriter = ({ targets, dropped }: UdpSettings): Connection<Message> =>
  new Observable<Writer<Message>>((subscriber) => {
    const sockets = new Map<string, Socket>()
    const socketFor = ({ host }: Target): Socket => {
      const family = isIPv6(host) ? 'udp6' : 'udp4'
      const socket = sockets.get(family) ?? createSocket(family)
      if (!sockets.has(family)) socket.on('error', (error) => dropped(family, error.message))
      sockets.set(family, socket)
      return socket
    }
    const parsed = targets.map(targetOf)
    const sendOne = (target: Target, body: Buffer): Observable<undefined> =>
      new Observable((sent) => {
        socketFor(target).send(body, target.port, target.host, (error) => {
          if (error !== null) dropped(target.name, error.message)
          sent.next(undefined)
          sent.complete()
        })
      })
    subscriber.next(({ body }) => {
      if (body.length > maxDatagramBytes) throw new Rejection(`larger than a datagram of ${maxDatagramBytes} bytes`, 'udp')
      return forkJoin(parsed.map((target) => sendOne(target, body)))
    })
    return () => sockets.forEach((socket) => socket.close())
  })

/**
 * Sends each message as one datagram to every target, never split.
 *
 * **Settles**: accepted when the system has taken the datagrams; rejected when the message is too large for one.
 * The receipts say `sent`: nobody confirms a datagram.
 */
export const udpSink = (settings: UdpSettings): Sink<Message> =>
  deliver(udpWriter(settings), { sink: 'udp', state: 'sent', window: 64 })
