/** The page on delivery semantics tells the truth: its pictures run, and its links name tests that exist. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { amqpReader } from '../../src/connections/amqp-reader.js'
import type { Source } from '../../src/delivery.js'
import { deliver } from '../../src/operators/deliver.js'
import { rabbitmqSource } from '../../src/sources/rabbitmq.js'
import { marbles } from '../../src/testing.js'
import type { Marbles, Plan, Plans, Row } from '../../src/testing.js'

const docs = new URL('../../docs/', import.meta.url)
const page = readFileSync(new URL('delivery-semantics.md', docs), 'utf8')
type Picture = Readonly<Record<string, string>>

const pictures = [...page.matchAll(/^```\n([^`]*)```$/gm)].map(([, text = '']) => text)
const read = (text: string): Picture => Object.fromEntries(text.trimEnd().split('\n').map((line) => [line.slice(0, 12).trim(), line.slice(12).trim()]))
const plansOf = (text = ''): Plans<Plan> =>
  Object.fromEntries(
    text.split(', ').filter(Boolean).map((one) => {
      const [letter = '', ...plans] = one.split(/:? /)
      const read = plans.map((plan) => (Number.isNaN(Number(plan)) ? (plan as Plan) : Number(plan)))
      return [letter, read.length === 1 ? (read[0] as Plan) : read]
    }),
  )

const play = (m: Marbles, picture: Picture): void => {
  const { source, amqp, arrivals, far = '', plans, window, stop, cancel, ...expected } = picture
  const rows: Record<string, Row> = {}
  const end = m.far<unknown>(far, plansOf(plans))
  rows['writes'] = end.writes
  let deliveries: Source<unknown>
  if (amqp === undefined) {
    const made = m.source(source ?? '', stop === undefined ? {} : { stop: m.hot(stop) })
    deliveries = made.deliveries
    rows['settled'] = made.settled
  } else {
    const broker = m.amqp(amqp, {}, { arrivals: arrivals ?? '' })
    deliveries = rabbitmqSource(amqpReader({ urls: ['amqp://scripted'], open: broker.open }).channels({ queue: 'queue' }))
    Object.assign(rows, { given: broker.given, accepted: broker.accepted })
  }
  m.run(deliveries.pipe(deliver(end.connection, { sink: 'far', ...(window === undefined ? {} : { window: Number(window) }) })), cancel)
  m.rows(...Object.entries(expected).map(([name, row]) => [rows[name] as Row, row] as const))
}

describe('docs/delivery-semantics.md', () => {
  it('has pictures', () => expect(pictures.length).toBeGreaterThan(6))
  for (const text of pictures) it(`shows what happens:\n${text}`, () => marbles((m) => play(m, read(text))))
  it('links to tests by their titles', () => {
    const links = [...page.matchAll(/\[([^\]]+)\]\((\.\.\/test\/marbles\/[^)]+\.ts)\)/g)]
    expect(links.length).toBeGreaterThan(30)
    const missing = links.filter(([, title = '', path = '']) => !title.startsWith('test/') && !readFileSync(new URL(path, docs), 'utf8').includes(title))
    expect(missing.map(([link]) => link)).toEqual([])
  })
})
