import { firstValueFrom, lastValueFrom } from 'rxjs'
import { httpClient } from '../connections/http-client.js'
import type { HttpReply, HttpRequest } from '../connections/http-client.js'
import type { Settings } from '../settings.js'

/** Where the daemon of these settings answers. */
export const daemonUrl = ({ httpHost, httpPort }: Settings): string =>
  `http://${httpHost.includes(':') && !httpHost.startsWith('[') ? `[${httpHost}]` : httpHost}:${httpPort}`

/** One request to the running daemon; undefined when none answers. */
export const askDaemon = async (settings: Settings, request: HttpRequest, timeoutMs = 10_000): Promise<HttpReply | undefined> => {
  const { httpToken: token } = settings
  const client = httpClient({ url: daemonUrl(settings), timeoutMs, ...(token === undefined ? {} : { token }) })
  try {
    return await firstValueFrom(client.request(request))
  } catch (error) {
    if (['ECONNREFUSED', 'UND_ERR_CONNECT_TIMEOUT', 'ENOTFOUND'].includes((error as { code?: string }).code ?? '')) return undefined
    throw error
  } finally {
    await lastValueFrom(client.close(), { defaultValue: undefined })
  }
}

/** What a daemon said that is not the answer asked for. */
export const refusal = ({ status, text }: HttpReply): string => {
  try {
    return `${status}: ${(JSON.parse(text) as { error: { reason: string } }).error.reason}`
  } catch {
    return `HTTP ${status}`
  }
}
