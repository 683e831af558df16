import fastify from 'fastify'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { asyncScheduler, firstValueFrom, Observable } from 'rxjs'
import { allowsOrigin, guard } from './http-guards.js'
import type { GuardSettings } from './http-guards.js'

export interface DoorRequest {
  readonly headers: IncomingHttpHeaders
  readonly query: Readonly<Record<string, string | undefined>>
  /** What stands in the path for `:name`. */
  readonly params: Readonly<Record<string, string | undefined>>
  readonly body: Buffer
}

export interface DoorReply {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** An object goes as JSON; bytes and text go as they are. */
  readonly body?: object | string | Buffer
}

export interface Route {
  readonly method: 'GET' | 'POST'
  readonly path: string
  /** Answers without a token. */
  readonly open?: boolean
  /** The media types of the body; `''` is none at all. Left out when the route takes no body. */
  readonly accepts?: readonly string[]
  /** Runs to its end, also when the client leaves: what is on its way is not called back. */
  readonly handle: (request: DoorRequest) => Observable<DoorReply>
}

/** A path that becomes a WebSocket. */
export interface UpgradeRoute {
  readonly path: string
  readonly upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer, query: URLSearchParams) => void
}

export interface HttpServerSettings extends GuardSettings {
  readonly port: number
  /** The whole request. @default 16 MiB */
  readonly maxBodyBytes?: number
  /** A client that needs longer for its headers is cut off, in milliseconds. @default 10000 */
  readonly headersTimeoutMs?: number
  /** A client that needs longer for the whole request is cut off. @default 12000 */
  readonly requestTimeoutMs?: number
  /** @default 1000 */
  readonly maxConnections?: number
  /** Called with the status of each answer that is not a success. */
  readonly refused?: (status: number) => void
}

/** How often Node looks for clients that are too slow. */
const lookMs = 2000
const closeGraceMs = 300

const problem = (code: string, reason: string): object => ({ error: { code, reason } })
const mediaType = (header: string | undefined): string => (header ?? '').split(';')[0]?.trim().toLowerCase() ?? ''

/** An answer before the body was read: the connection ends with it, unread. */
const turnAway = (reply: FastifyReply, status: number, code: string, reason: string): FastifyReply =>
  reply.code(status).header('connection', 'close').send(problem(code, reason))

const errorOf = (error: unknown): { status: number; code: string; reason: string } => {
  const { code, statusCode } = error as { code?: string; statusCode?: number }
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return { status: 413, code: 'too-large', reason: 'the request is too large' }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) return { status: statusCode, code: 'bad-request', reason: 'the request is malformed' }
  return { status: 500, code: 'internal', reason: 'something went wrong here' }
}

const badRequests: Readonly<Record<string, readonly [number, string]>> = {
  HPE_HEADER_OVERFLOW: [431, 'Request Header Fields Too Large'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'Request Timeout'],
}

const answerRaw = (socket: Duplex, status: number, title: string, code: string): void => {
  if (!socket.writable) return void socket.destroy()
  const body = JSON.stringify(problem(code, title.toLowerCase()))
  socket.end(
    `HTTP/1.1 ${status} ${title}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
  )
}

const onRequest = (settings: HttpServerSettings, routes: readonly Route[]) => {
  const { maxBodyBytes = 16 * 1024 * 1024 } = settings
  const find = (request: FastifyRequest): Route | undefined =>
    routes.find(({ method, path }) => path === request.routeOptions.url && (method === request.method || request.method === 'HEAD'))
  return (request: FastifyRequest, reply: FastifyReply): FastifyReply | undefined => {
    const { headers, method } = request
    const route = find(request)
    const { origin } = headers
    if (origin !== undefined && allowsOrigin(origin, settings)) reply.header('access-control-allow-origin', origin).header('vary', 'Origin')
    const preflight = method === 'OPTIONS' && origin !== undefined
    const refusal = guard(headers, preflight || route?.open === true, settings)
    if (refusal !== undefined) {
      if (refusal.status === 401) reply.header('www-authenticate', 'Bearer')
      return turnAway(reply, refusal.status, refusal.code, refusal.reason)
    }
    if (preflight)
      return reply
        .code(204)
        .header('access-control-allow-methods', 'GET, POST')
        .header('access-control-allow-headers', headers['access-control-request-headers'] ?? 'content-type')
        .header('access-control-max-age', '600')
        .send()
    if (route?.accepts === undefined) return undefined
    if (!route.accepts.includes(mediaType(headers['content-type']))) return turnAway(reply, 415, 'wrong-type', `expected ${route.accepts.filter((type) => type !== '').join(' or ')}`)
    if (!['', 'identity'].includes(headers['content-encoding'] ?? '')) return turnAway(reply, 415, 'wrong-encoding', 'expected a body without content encoding')
    if (Number(headers['content-length'] ?? 0) > maxBodyBytes) return turnAway(reply, 413, 'too-large', 'the request is too large')
    return undefined
  }
}

const answer = async (route: Route, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
  const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
  const query = request.query as DoorRequest['query']
  const params = request.params as DoorRequest['params']
  const { status, headers = {}, body: content } = await firstValueFrom(route.handle({ headers: request.headers, query, params, body }))
  return reply.code(status).headers(headers).send(content)
}

const build = (settings: HttpServerSettings, routes: readonly Route[]): FastifyInstance => {
  const { maxBodyBytes = 16 * 1024 * 1024, headersTimeoutMs = 10_000, requestTimeoutMs = 12_000, refused = () => {} } = settings
  const app = fastify({
    bodyLimit: maxBodyBytes,
    requestTimeout: requestTimeoutMs,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    exposeHeadRoutes: true,
    // An id in a path: 255 bytes of AMQP, each as three characters.
    routerOptions: { maxParamLength: 1024 },
    http: { headersTimeout: headersTimeoutMs, requestTimeout: requestTimeoutMs, connectionsCheckingInterval: Math.min(lookMs, headersTimeoutMs) },
    clientErrorHandler: (error, socket) => {
      const [status, title] = badRequests[(error as { code?: string }).code ?? ''] ?? [400, 'Bad Request']
      refused(status)
      answerRaw(socket, status, title, 'bad-request')
    },
  })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
  const check = onRequest(settings, routes)
  app.addHook('onRequest', (request, reply, done) => {
    if (check(request, reply) === undefined) done()
  })
  app.addHook('onResponse', (_request, reply, done) => {
    if (reply.statusCode >= 400) refused(reply.statusCode)
    done()
  })
  app.setErrorHandler((error, _request, reply) => {
    const { status, code, reason } = errorOf(error)
    return status === 413 ? turnAway(reply, status, code, reason) : reply.code(status).send(problem(code, reason))
  })
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?')[0]
    const allowed = [...new Set(routes.filter((route) => route.path === path).map(({ method }) => method))]
    return allowed.length === 0
      ? reply.code(404).send(problem('not-found', 'no such path'))
      : reply.code(405).header('allow', allowed.join(', ')).send(problem('wrong-method', `expected ${allowed.join(' or ')}`))
  })
  for (const route of routes) app.route({ method: route.method, url: route.path, handler: (request, reply) => answer(route, request, reply) })
  app.server.maxConnections = settings.maxConnections ?? 1000
  return app
}

const onUpgrade = (settings: HttpServerSettings, upgrades: readonly UpgradeRoute[]) => (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
  const refuse = (status: number, title: string, code: string): void => {
    settings.refused?.(status)
    answerRaw(socket, status, title, code)
  }
  socket.on('error', () => socket.destroy())
  const refusal = guard(request.headers, false, settings)
  if (refusal !== undefined) return refuse(refusal.status, refusal.status === 401 ? 'Unauthorized' : 'Forbidden', refusal.code)
  // Not parsed as a URL: `//` is none, and what this throws would end the process.
  const [pathname, query] = (request.url ?? '/').split('?', 2)
  const route = upgrades.find(({ path }) => path === pathname)
  if (route === undefined) return refuse(404, 'Not Found', 'not-found')
  route.upgrade(request, socket, head, new URLSearchParams(query))
}

/**
 * Listens while subscribed; emits its address once. Unsubscribing takes no new requests, lets
 * those that are being answered end, and closes.
 *
 * Every request is judged by its headers first: a foreign Host or Origin is 403, a missing
 * token 401, a wrong type 415, all before the body is read.
 *
 * **Fails** when it cannot listen.
 */
export const httpServer = (settings: HttpServerSettings, routes: readonly Route[], upgrades: readonly UpgradeRoute[] = []): Observable<AddressInfo> =>
  new Observable((subscriber) => {
    const app = build(settings, routes)
    const sockets = new Set<Socket>()
    app.server.on('upgrade', onUpgrade(settings, upgrades))
    app.server.on('connection', (socket: Socket) => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
    app.listen({ host: settings.host.replace(/^\[|\]$/g, ''), port: settings.port }).then(
      () => subscriber.next(app.server.address() as AddressInfo),
      (error: unknown) => subscriber.error(error),
    )
    return () => {
      const late = asyncScheduler.schedule(() => sockets.forEach((socket) => socket.destroy()), closeGraceMs)
      app.close().then(
        () => late.unsubscribe(),
        () => undefined,
      )
    }
  })
