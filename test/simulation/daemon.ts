/** The real daemon, as one process after the other of a simulated machine. */
import * as E from 'fp-ts/lib/Either.js'
import { firstValueFrom, Observable, Subject } from 'rxjs'
import type { Books } from '../../src/books.js'
import { newBooks } from '../../src/books.js'
import type { DoorReply, Route, UpgradeRoute } from '../../src/connections/http-server.js'
import type { ServedSocket, SocketServer } from '../../src/connections/web-socket.js'
import { daemon } from '../../src/pipelines/daemon.js'
import { decodeSettings } from '../../src/settings.js'
import type { Settings } from '../../src/settings.js'
import { clock } from './clock.js'
import type { Owner } from './clock.js'
import type { Disk } from './disk.js'
import type { Plan } from './plan.js'
import type { Pulsar } from './pulsar.js'
import type { Rabbit } from './rabbitmq.js'

export interface Process extends Owner {
  readonly number: number
  readonly books: Books
  readonly stop: Subject<void>
  /** While it listens. */
  door: { readonly routes: readonly Route[]; readonly upgrades: readonly UpgradeRoute[] } | undefined
}

export interface Outside {
  readonly rabbit: Rabbit
  readonly pulsar: Pulsar
  readonly disk: Disk
  readonly log: (level: string, fields: object, text: string) => void
}

export const dataFolder = '/data'

export const settingsOf = ({ middle, window, patienceMs }: Plan): Settings => {
  const decoded = decodeSettings({
    flags: {
      ...(middle === 'rabbitmq' ? { amqpUrl: 'amqp://rabbitmq' } : {}),
      pulsarUrl: 'ws://pulsar:8080',
      websocket: true,
      dataDir: dataFolder,
      roles: 'ingest,forward,broadcast',
      timeZone: 'UTC',
      window,
      patienceMs,
    },
    deviceId: 'simulated',
  })
  if (E.isLeft(decoded)) throw new Error(decoded.left.join(', '))
  return decoded.right.settings
}

/** Upgrading gives the client's end to the one who joins it to a stream. */
const sockets = (): SocketServer => ({
  upgrade: (_request, client, _head, opened) => opened(client as unknown as ServedSocket),
  clients: () => 0,
  close: () => {},
})

/** Begins a process; `ended` is told when it has ended by itself, with the error if one ended it. */
export const startProcess = (number: number, plan: Plan, { rabbit, pulsar, disk, log }: Outside, ended: (error?: unknown) => void): Process => {
  const started: Process = { number, alive: true, books: newBooks(Date.now()), stop: new Subject(), door: undefined }
  const listen = (_settings: unknown, routes: readonly Route[], upgrades: readonly UpgradeRoute[] = []) =>
    new Observable<{ address: string; port: number; family: string }>((subscriber) => {
      started.door = { routes, upgrades }
      subscriber.next({ address: '127.0.0.1', port: 8787, family: 'IPv4' })
      return () => {
        started.door = undefined
      }
    })
  clock.running(started)
  daemon(settingsOf(plan), {
    stop: started.stop,
    books: started.books,
    log: {
      error: (fields, text) => log('error', fields, text),
      warn: (fields, text) => log('warn', fields, text),
      info: (fields, text) => log('info', fields, text),
      debug: () => {},
    },
    ports: {
      openAmqp: rabbit.open(started),
      openWebSocket: pulsar.open(started),
      disk: { fs: disk.fs(started), lock: disk.lock(started), segmentBytes: plan.segmentBytes, reserveBytes: plan.reserveBytes },
      httpServer: listen,
      webSocketServer: sockets,
    },
  }).subscribe({ error: (error: unknown) => ended(error ?? new Error('unknown')), complete: () => ended() })
  return started
}

/** What the daemon answers to a request without a body. */
export const ask = (process: Process, path: string): Promise<DoorReply | undefined> => {
  const route = process.door?.routes.find((one) => one.method === 'GET' && one.path === path)
  return route === undefined ? Promise.resolve(undefined) : firstValueFrom(route.handle({ headers: {}, query: {}, params: {}, body: Buffer.alloc(0) }))
}
