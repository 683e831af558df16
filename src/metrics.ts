import { Counter, Gauge, Registry } from 'prom-client'
import type { Books } from './books.js'
import type { QueueStats } from './connections/queue-engine.js'
import { alarmKinds } from './queue-problems.js'

/** Numbers that are asked for when somebody looks. */
export interface Depths {
  /** Messages in each queue, those outside with its reader included; a queue that cannot be asked is left out. */
  readonly queued: () => Promise<readonly { queue: string; messages: number }[]>
  readonly spooled: () => number
  /** The embedded queues that are open. */
  readonly stores: () => readonly { readonly store: string; readonly stats: QueueStats }[]
  readonly streamClients: () => number
  readonly streamClientsCut: () => number
}

/** The books as Prometheus text. Nothing is counted here: every number comes from the books when it is read. */
export const metrics = (books: Books, depths: Depths): { contentType: string; text: () => Promise<string> } => {
  const registry = new Registry()
  const counter = (name: string, help: string, read: () => number): void => {
    new Counter({
      name,
      help,
      registers: [registry],
      collect() {
        this.reset()
        this.inc(read())
      },
    })
  }
  const perPipeline = (name: string, help: string, count: 'taken' | 'accepted' | 'rejected' | 'released' | 'stale'): void => {
    new Counter({
      name,
      help,
      labelNames: ['pipeline'],
      registers: [registry],
      collect() {
        this.reset()
        for (const [pipeline, counts] of books.pipelines) this.inc({ pipeline }, counts[count])
      },
    })
  }
  const perStore = (kind: typeof Counter | typeof Gauge, name: string, help: string, count: keyof QueueStats): void => {
    new kind({
      name,
      help,
      labelNames: ['store'],
      registers: [registry],
      collect() {
        this.reset()
        for (const { store, stats } of depths.stores()) this.inc({ store }, stats[count])
      },
    })
  }
  counter('backhaul_accepted_total', 'Messages for which the sender got a yes', () => books.pipelines.get('ingest')?.accepted ?? 0)
  counter('backhaul_delivered_total', 'Messages that Pulsar confirmed', () => books.delivered)
  counter('backhaul_dead_lettered_total', 'Messages kept in the dead letters', () => books.deadLettered)
  counter('backhaul_repeats_dropped_total', 'Repeats of what was delivered before, dropped', () => books.repeatsDropped)
  counter('backhaul_foreign_total', 'Messages done that another program wrote to the queue', () => books.foreign)
  counter('backhaul_purged_total', 'Messages removed by an operator', () => books.purged)
  counter('backhaul_replayed_messages_total', 'Dead letters put back into the queue', () => books.replayed)
  counter('backhaul_dead_letters_dropped_total', 'Dead letters removed by an operator', () => books.deadDropped)
  counter('backhaul_configurations_accepted_total', 'Configuration documents kept', () => books.configurations.accepted)
  counter('backhaul_configurations_rejected_total', 'Configuration documents refused', () => books.configurations.rejected)
  counter('backhaul_stream_clients_cut_total', 'WebSocket clients cut off because they did not read', depths.streamClientsCut)
  perPipeline('backhaul_pipeline_taken_total', 'Deliveries taken from the source', 'taken')
  perPipeline('backhaul_pipeline_accepted_total', 'Deliveries accepted', 'accepted')
  perPipeline('backhaul_pipeline_rejected_total', 'Deliveries rejected', 'rejected')
  perPipeline('backhaul_pipeline_released_total', 'Deliveries released: they come again', 'released')
  perPipeline('backhaul_pipeline_stale_total', 'Answers that came too late or twice', 'stale')
  new Gauge({
    name: 'backhaul_pipeline_unsettled',
    help: 'Deliveries out and not answered',
    labelNames: ['pipeline'],
    registers: [registry],
    collect() {
      for (const [pipeline, counts] of books.pipelines) this.set({ pipeline }, counts.unsettled)
    },
  })
  new Counter({
    name: 'backhaul_copies_dropped_total',
    help: 'Copies for WebSocket or UDP that were dropped',
    labelNames: ['sink'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [sink, count] of books.copiesDropped) this.inc({ sink }, count)
    },
  })
  new Counter({
    name: 'backhaul_http_refused_total',
    help: 'Requests answered with something else than 2xx',
    labelNames: ['status'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [status, count] of books.refused) this.inc({ status }, count)
    },
  })
  new Gauge({
    name: 'backhaul_connected',
    help: '1 while the link is connected',
    labelNames: ['link'],
    registers: [registry],
    collect() {
      for (const [link, { state }] of books.links) this.set({ link }, state === 'connected' ? 1 : 0)
    },
  })
  new Gauge({
    name: 'backhaul_queued_messages',
    help: 'Messages in a queue, those outside with this process included',
    labelNames: ['queue'],
    registers: [registry],
    async collect() {
      this.reset()
      for (const { queue, messages } of await depths.queued()) this.set({ queue }, messages)
    },
  })
  new Gauge({
    name: 'backhaul_queue_alarm',
    help: '1 while a queue of RabbitMQ drops accepted messages, or would',
    labelNames: ['queue', 'problem'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [queue, problems] of books.queueProblems)
        for (const problem of alarmKinds)
          this.set({ queue, problem }, problems.some(({ severity, kind }) => severity === 'alarm' && kind === problem) ? 1 : 0)
    },
  })
  new Gauge({
    name: 'backhaul_spooled_messages',
    help: 'Messages in the spool',
    registers: [registry],
    collect() {
      this.set(depths.spooled())
    },
  })
  perStore(Counter, 'backhaul_store_lost_messages_total', 'Messages of an embedded queue that damage on the disk took', 'lostMessages')
  perStore(Counter, 'backhaul_store_damaged_places_total', 'Places of an embedded queue with broken bytes, or with messages missing', 'damagedRecords')
  perStore(Counter, 'backhaul_store_lost_files_total', 'Times that the growing file of an embedded queue was taken away', 'lostFiles')
  perStore(Counter, 'backhaul_store_write_errors_total', 'Failed writes of an embedded queue: each refused its batch', 'writeErrors')
  perStore(Counter, 'backhaul_store_sync_errors_total', 'Failed syncs of an embedded queue: each refused its batch', 'syncErrors')
  perStore(Gauge, 'backhaul_store_bytes', 'What an embedded queue takes up on the disk', 'usedBytes')
  new Gauge({
    name: 'backhaul_stream_clients',
    help: 'WebSocket clients that are connected',
    registers: [registry],
    collect() {
      this.set(depths.streamClients())
    },
  })
  return { contentType: registry.contentType, text: () => registry.metrics() }
}
