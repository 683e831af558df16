import { Observable, throwError } from 'rxjs'
import type { Subscriber, Subscription } from 'rxjs'
import { v7 } from 'uuid'
import { Rejection } from '../delivery.js'
import type { Connection, Writer } from '../delivery.js'
import { maxPostedPropertiesBytes } from '../message.js'
import type { HttpClient, HttpReply } from './http-client.js'
import { reconnect } from './reconnect.js'
import type { LinkState } from './reconnect.js'

/** A record on its way to a daemon. */
export interface Posted {
  readonly body: Buffer
  readonly properties: Readonly<Record<string, string>>
  /** Asked for by the caller, else given by the daemon when it accepts. */
  id?: string
}

/** Why no request can carry it; undefined when one can. Asked for again and again it would hold up all behind it. */
const unpostable = ({ id, properties }: Posted): string | undefined => {
  if (id !== undefined && !/^[!-~]{1,200}$/.test(id)) return 'over HTTP an id has 1 to 200 visible ASCII characters'
  const all = Object.entries(properties)
  for (const [name, value] of all) {
    if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name)) return 'over HTTP the name of a property has the characters of a header only'
    if (typeof value !== 'string' || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) return 'over HTTP a property is a text of Latin-1 characters'
  }
  const bytes = all.reduce((sum, [name, value]) => sum + name.length + value.length, 0)
  return bytes > maxPostedPropertiesBytes ? `over HTTP properties have at most ${maxPostedPropertiesBytes} bytes in all` : undefined
}

/** Records that travel in one request, under one key: a repeat of the request repeats their ids. */
interface Group {
  readonly key: string
  readonly records: Posted[]
}

interface Verdict {
  readonly status: string
  readonly id?: string
  readonly reason?: string
}

const maxRecords = 1000
const maxBytes = 1024 * 1024

const fits = (group: Group, record: Posted): boolean =>
  record.id === undefined &&
  group.records.length < maxRecords &&
  group.records.reduce((sum, { body }) => sum + body.length, record.body.length) <= maxBytes &&
  JSON.stringify(group.records[0]?.properties) === JSON.stringify(record.properties)

const newGroup = (record: Posted): Group => ({ key: record.id ?? v7(), records: [record] })

const verdicts = ({ status, text }: HttpReply, group: Group): readonly Verdict[] => {
  const reply = JSON.parse(text) as { id?: string; ids?: string[]; results?: Verdict[]; error?: { reason?: string } }
  if (status === 202) return (reply.ids ?? [reply.id]).map((id) => ({ status: 'accepted', ...(id === undefined ? {} : { id }) }))
  if (reply.results !== undefined) return reply.results
  const reason = reply.error?.reason ?? `HTTP ${status}`
  const never = status >= 400 && status < 500 && ![401, 403, 408, 429].includes(status)
  if (!never) throw new Error(`the daemon answered ${status}: ${reason}`)
  if (group.records.length === 1) return [{ status: 'rejected', reason }]
  return group.records.map(() => ({ status: 'rejected', reason }))
}

/** One line for each record: a line break inside a record is white space there, and becomes a space. */
const oneLine = (body: Buffer): Buffer => {
  if (!body.includes(0x0a) && !body.includes(0x0d)) return body
  return Buffer.from(body.map((byte) => (byte === 0x0a || byte === 0x0d ? 0x20 : byte)))
}

const request = ({ key, records }: Group, alone: boolean) => ({
  method: 'POST' as const,
  path: '/v1/messages',
  headers: {
    'content-type': alone ? 'application/json' : 'application/x-ndjson',
    'idempotency-key': key,
    ...Object.fromEntries(
      Object.entries(records[0]?.properties ?? {}).map(([name, value]) => [`backhaul-property-${name}`, value]),
    ),
  },
  body: alone ? (records[0] as Posted).body : Buffer.concat(records.flatMap(({ body }) => [oneLine(body), Buffer.from('\n')])),
})

/**
 * Writes records to a running daemon: one request at a time, and in it what has come meanwhile.
 *
 * A failed request ends the attempt; when its records are written again they travel in the
 * same group under the same key, so the daemon gives them the same ids. What no request can
 * carry is rejected, unsent.
 */
export const httpPublisher = (client: HttpClient, onState?: (state: LinkState) => void): Connection<Posted> => {
  let unanswered: Group | undefined // its request failed: perhaps some of it was accepted
  const attempt = (proven: () => void): Observable<Writer<Posted>> =>
    new Observable((subscriber) => {
      const groups: Group[] = []
      const answers = new Map<Posted, Subscriber<never>>()
      let again = unanswered?.records.length ?? 0 // how many of them have yet to be written again
      let asking: Subscription | undefined
      if (unanswered !== undefined) groups.push(unanswered)

      const answer = (group: Group, reply: HttpReply): void => {
        const given = verdicts(reply, group)
        const kept = given.every(({ status }) => status === 'accepted' || status === 'rejected')
        if (!kept || given.length !== group.records.length) throw new Error('the daemon kept only some of the records')
        unanswered = undefined
        proven()
        group.records.forEach((record, i) => {
          const verdict = given[i]
          if (verdict?.id !== undefined) record.id = verdict.id
          const waiting = answers.get(record)
          answers.delete(record)
          if (verdict?.status === 'accepted') waiting?.complete()
          else waiting?.error(new Rejection(verdict?.reason ?? 'rejected', 'http'))
        })
      }
      const ask = (): void => {
        if (asking !== undefined || again > 0) return
        const group = groups.shift()
        if (group === undefined) return
        unanswered = group
        asking = client.request(request(group, group.records[0]?.id === group.key)).subscribe({
          next: (reply) => {
            try {
              answer(group, reply)
            } catch (error) {
              subscriber.error(error)
            }
          },
          error: (error: unknown) => subscriber.error(error),
          complete: () => {
            asking = undefined
            ask()
          },
        })
      }
      const place = (record: Posted): void => {
        if (again > 0) {
          again -= 1
          return
        }
        const last = groups.at(-1)
        if (last !== undefined && last !== unanswered && last.records[0]?.id === undefined && fits(last, record))
          last.records.push(record)
        else groups.push(newGroup(record))
      }
      subscriber.next((record) => {
        const reason = unpostable(record)
        if (reason !== undefined) return throwError(() => new Rejection(reason, 'http'))
        return new Observable<never>((done) => {
          answers.set(record, done)
          place(record)
          queueMicrotask(ask)
        })
      })
      return () => asking?.unsubscribe()
    })
  return reconnect(attempt, onState === undefined ? {} : { onState })
}
