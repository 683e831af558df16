/** Programs that post records, wait for the answer, and send again what they may. */
import { clock } from './clock.js'
import type { Process } from './daemon.js'
import { pipe } from './ground.js'
import type { Ground } from './ground.js'
import type { Post } from './plan.js'

/** What the judge knows of a record. */
export interface Sent {
  readonly record: number
  readonly post: Post
  readonly index: number
  readonly body: string
  /** When it was first sent, and when its yes came, as the clock numbers what happens. */
  sent: number | undefined
  yes: number | undefined
  attempts: number
  /** No attempt has left open whether it was kept. */
  surelyRefused: boolean
  /** Ids under which it may arrive; empty, if it was sent without a key and nobody told. */
  readonly ids: Set<string>
}

export interface Producers {
  readonly post: (post: Post) => void
  readonly sent: ReadonlyMap<number, Sent>
  /** Everything has been answered, or was given up. */
  readonly idle: () => boolean
  readonly waiting: () => number
  /** The process died: whoever waits for it hears that the connection is gone. */
  readonly died: (process: Process) => void
  readonly overdue: () => readonly number[]
}

interface Result {
  readonly status: string
  readonly id?: string
}
interface Answer {
  readonly id?: string
  readonly ids?: readonly string[]
  readonly results?: readonly Result[]
}
/** The door's own deadline, and a moment. */
const deadlineMs = 10_000 + 200

const bodyOf = ({ poison, fillBytes }: Post, record: number, index: number): string => {
  if (poison === 'nonsense' && index === 0) return `{"n":${record},`
  const mark = poison !== undefined && index === 0 ? `,"poison":"${poison}"` : ''
  return `{"n":${record}${mark},"fill":"${'x'.repeat(fillBytes)}"}`
}

export const producers = (running: () => Process | undefined, { random, trace, point }: Ground): Producers => {
  const sent = new Map<number, Sent>()
  const lines = new Map<number, { readonly posts: Post[]; busy: boolean }>()
  const open = new Map<{ readonly process: Process; readonly since: number; readonly post: Post }, () => void>()
  const latency = (): number => random.between(1, 4) / 2

  /** What became of a record in one attempt. */
  const learn = (record: Sent, status: string, id: string | undefined): void => {
    if (id !== undefined && id !== '') record.ids.add(id)
    if (status === 'accepted') record.yes ??= clock.number()
    if (status === 'accepted' || status === 'unknown') record.surelyRefused = false
  }
  const read = (post: Post, status: number, answer: Answer): void => {
    const ids = answer.ids ?? (answer.id === undefined ? [] : [answer.id])
    post.records.forEach((number, index) => {
      const record = sent.get(number) as Sent
      const result = status === 207 ? answer.results?.[index] : undefined
      const all = status === 202 ? 'accepted' : status === 504 ? 'unknown' : 'refused'
      learn(record, result?.status ?? all, result?.id ?? ids[index])
    })
  }
  const lost = (post: Post): void => {
    for (const number of post.records) learn(sent.get(number) as Sent, 'unknown', undefined)
  }

  const attempt = (post: Post, number: number, done: () => void): void => {
    const over = (again: boolean): void => {
      const line = lines.get(post.from)
      if (!again || number > post.retries || line === undefined) return done()
      clock.after(random.between(500, 3000), () => attempt(post, number + 1, done))
    }
    clock.after(latency(), () => {
      const process = running()
      const route = process?.door?.routes.find(({ method, path }) => method === 'POST' && path === '/v1/messages')
      if (process?.alive !== true || route === undefined) {
        trace(`client ${post.from} finds nobody`)
        return over(true)
      }
      const bodies = post.records.map((record, index) => bodyOf(post, record, index))
      post.records.forEach((record, index) => {
        const known = sent.get(record) ?? {
          record,
          post,
          index,
          body: bodies[index] as string,
          sent: clock.number(),
          yes: undefined,
          attempts: 0,
          surelyRefused: true,
          ids: new Set(post.key === undefined ? [] : [bodies.length === 1 ? post.key : `${post.key}-${index}`]),
        }
        known.attempts += 1
        sent.set(record, known)
      })
      trace(`client ${post.from} sends ${post.records.join(' ')}`)
      const asLines = post.poison === 'nonsense' || (post.records[0] as number) % 2 === 0
      const type = bodies.length === 1 || !asLines ? 'application/json' : 'application/x-ndjson'
      const body = bodies.length === 1 ? (bodies[0] as string) : asLines ? bodies.join('\n') : `[${bodies.join(',')}]`
      const wire = pipe(latency)
      const request = { process, since: clock.now(), post }
      open.set(request, () => {
        open.delete(request)
        wire(() => {
          trace(`client ${post.from} is cut off`)
          lost(post)
          over(true)
        })
      })
      const headers = { 'content-type': type, ...(post.key === undefined ? {} : { 'idempotency-key': post.key }) }
      route.handle({ headers, query: {}, params: {}, body: Buffer.from(body) }).subscribe(({ status, body: answer }) => {
        if (!process.alive || !open.has(request)) return
        point('reply')
        if (!process.alive) return
        open.delete(request)
        wire(() => {
          trace(`client ${post.from} hears ${status} for ${post.records.join(' ')}`)
          read(post, status, answer as Answer)
          const open = (answer as Answer).results?.some((one) => one.status === 'released' || one.status === 'unknown') ?? false
          over(status === 503 || status === 504 || status === 429 || (status === 207 && open))
        })
      })
    })
  }
  const next = (from: number): void => {
    const line = lines.get(from)
    const post = line?.posts.shift()
    if (line === undefined || post === undefined) return
    line.busy = true
    attempt(post, 1, () => {
      line.busy = false
      next(from)
    })
  }
  return {
    post: (post) => {
      const line = lines.get(post.from) ?? { posts: [], busy: false }
      lines.set(post.from, line)
      line.posts.push(post)
      if (!line.busy) next(post.from)
    },
    sent,
    idle: () => [...lines.values()].every(({ posts, busy }) => !busy && posts.length === 0),
    waiting: () => open.size,
    died: (process) => {
      for (const [request, cut] of [...open]) if (request.process === process) cut()
    },
    overdue: () => [...open.keys()].filter(({ process, since }) => process.alive && clock.now() - since > deadlineMs).flatMap(({ post }) => post.records),
  }
}
