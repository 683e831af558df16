const writer = 'src/connections/amqp-writer.ts'
const client = 'src/connections/amqp-client.ts'
const properties = 'src/connections/amqp-message.ts'
const reader = 'src/connections/amqp-reader.ts'
const queue = 'src/connections/amqp-queue.ts'
const source = 'src/sources/rabbitmq.ts'
const marbles = (title) => ['test/marbles/rabbitmq.test.ts', title]
const wire = (title) => ['test/wire/rabbitmq.test.ts', title]

const early = { file: writer, find: '(refused) => answered(write, refused))\n', replace: '(refused) => answered(write, refused))\n        write.done.complete()\n' }
const optional = { file: properties, find: '  mandatory: true,', replace: '  mandatory: false as true,' }
const deaf = { file: writer, find: 'if (write.returned) return fail(', replace: 'if (write.returned === undefined) return fail(' }
const yes = { file: writer, find: 'if (refused) return fail(', replace: 'if (refused === undefined) return fail(' }
const patient = { file: writer, find: 'patience(confirmTimeoutMs, oldest', replace: 'patience(confirmTimeoutMs + 1e9, oldest' }
const fleeting = { file: properties, find: '  deliveryMode: 2,', replace: '  deliveryMode: 1 as 2,' }

/** @type {readonly import('./list.js').Saboteur[]} */
export const rabbitmq = [
  {
    name: 'settle before RabbitMQ’s confirm',
    guarantee: 'Accepted means that RabbitMQ has confirmed.',
    ...early,
    caughtBy: marbles('accepts when RabbitMQ has confirmed, and not before'),
  },
  {
    name: 'forget mandatory',
    guarantee: 'A message that no queue received is not accepted, though RabbitMQ confirms it.',
    ...optional,
    caughtBy: marbles('does not accept what no queue received, though it was confirmed'),
  },
  {
    name: 'ignore returns',
    guarantee: 'A returned message is not accepted.',
    ...deaf,
    caughtBy: marbles('does not accept what no queue received, though it was confirmed'),
  },
  {
    name: 'take a refusal for a confirm',
    guarantee: 'What RabbitMQ refuses is not accepted.',
    ...yes,
    caughtBy: marbles('does not accept what RabbitMQ refuses'),
  },
  {
    name: 'no time limit for a confirm',
    guarantee: 'A frozen broker is given up by our own time-out.',
    ...patient,
    caughtBy: marbles('gives up a broker that confirms nothing, by its own time-out'),
  },
  {
    name: 'publish what is not persistent',
    guarantee: 'What was accepted survives the broker’s restart.',
    ...fleeting,
    caughtBy: marbles('has in a restarted broker what it said was accepted'),
  },
  {
    name: 'publish to a broker that blocks',
    guarantee: 'Nothing is sent while the broker blocks publishers.',
    file: writer,
    find: 'if (mayGo() && held.size === 0) return publish(write)',
    replace: 'if (blocked || !blocked) return publish(write)',
    caughtBy: marbles('sends nothing while the broker blocks publishers'),
  },
  {
    name: 'take a blocking broker for a frozen one',
    guarantee: 'While the broker blocks publishers we wait as long as that lasts.',
    file: writer,
    find: 'blocked = true\n',
    replace: "blocked = true\n        fail(new Error('blocked'))\n",
    caughtBy: marbles('sends nothing while the broker blocks publishers'),
  },
  {
    name: 'one connection for both directions',
    guarantee: 'A publisher that the broker blocks does not hold the acknowledgements: they have a connection of their own.',
    file: queue,
    find: 'export const amqpLinks = (',
    replace:
      "import { shareReplay } from 'rxjs'\nlet one: Observable<AmqpLink> | undefined\nexport const amqpLinks = (settings: AmqpSettings): Observable<AmqpLink> => (one ??= each(settings).pipe(shareReplay({ bufferSize: 1, refCount: true })))\nconst each = (",
    caughtBy: marbles('reads over a connection of its own'),
  },
  {
    name: 'a classic queue on RabbitMQ 4',
    guarantee: 'A queue that we make syncs before it confirms.',
    file: queue,
    find: 'Number.parseInt(serverVersion, 10) >= 4',
    replace: 'Number.parseInt(serverVersion, 10) >= 40',
    caughtBy: marbles('makes a missing queue so that RabbitMQ 4.0.5 syncs before it confirms'),
  },
  {
    name: 'drop after twenty redeliveries',
    guarantee: 'A queue that we make never drops what comes again and again.',
    file: queue,
    find: "isFour(link) ? { 'x-delivery-limit': -1 } : {}",
    replace: '{}',
    caughtBy: marbles('makes a missing queue so that RabbitMQ 4.0.5 syncs before it confirms'),
  },
  {
    name: 'drop at the first return on RabbitMQ 3',
    guarantee: 'A queue that we make never drops what comes again and again.',
    file: queue,
    find: "isFour(link) ? { 'x-delivery-limit': -1 } : {}",
    replace: "{ 'x-delivery-limit': -1 }",
    caughtBy: marbles('gives a quorum queue of RabbitMQ 3 no delivery limit'),
  },
  {
    name: 'acknowledge across a gap',
    guarantee: 'Only the contiguous accepted prefix is acknowledged together.',
    file: source,
    find: 'while (beyond.delete(upTo + 1)) upTo += 1',
    replace: 'upTo = Math.max(upTo, tag)\n      beyond.clear()',
    caughtBy: marbles('acknowledges no more than the contiguous prefix'),
  },
  {
    name: 'acknowledge what was refused',
    guarantee: 'A queue source never destroys what was only refused.',
    file: source,
    find: "if (outcome.kind !== 'accepted') return lost()",
    replace: "if (outcome.kind === 'released') return lost()",
    caughtBy: marbles('destroys nothing that was rejected: it comes again'),
  },
  {
    name: 'wait for what was released',
    guarantee: 'Released comes again, and everything behind it, by closing the channel.',
    file: source,
    find: "if (outcome.kind !== 'accepted') return lost()",
    replace: "if (outcome.kind !== 'accepted') return",
    caughtBy: marbles('lets what was released come again in its place, before anything new, and destroys nothing'),
  },
  {
    name: 'consume again before all is answered',
    guarantee: 'After a loss nothing new is consumed until all that was outside is answered.',
    file: source,
    find: ' || book.room() < window) return',
    replace: ') return',
    caughtBy: marbles('takes nothing after a loss until all that was outside is answered'),
  },
  {
    name: 'forget the last acknowledgements',
    guarantee: 'What was accepted is acknowledged before the channel is closed: a stop doubles nothing.',
    file: source,
    find: 'if (last !== undefined) tags.tellAll(last)',
    replace: '',
    caughtBy: marbles('acknowledges no more than the contiguous prefix'),
  },
  {
    name: 'give up a cancelled consumer',
    guarantee: 'A consumer that the broker cancels is healed.',
    file: source,
    find: 'error: (error: unknown) => gone(current, error instanceof Error ? error.message : String(error)),',
    replace: 'complete: () => undefined,',
    caughtBy: marbles('heals a consumer that the broker cancels'),
  },

  { name: 'wire: settle before RabbitMQ’s confirm', guarantee: 'Accepted means that RabbitMQ has confirmed.', ...early, caughtBy: wire('a queue that refuses: never counted as accepted'), wire: true },
  { name: 'wire: forget mandatory', guarantee: 'A message that no queue received is not accepted.', ...optional, caughtBy: wire('a queue that is deleted under load'), wire: true },
  { name: 'wire: ignore returns', guarantee: 'A returned message is not accepted.', ...deaf, caughtBy: wire('a queue that is deleted under load'), wire: true },
  { name: 'wire: take a refusal for a confirm', guarantee: 'What RabbitMQ refuses is not accepted.', ...yes, caughtBy: wire('a queue that refuses: never counted as accepted'), wire: true },
  { name: 'wire: no time limit for a confirm', guarantee: 'A frozen broker is given up by our own time-out.', ...patient, caughtBy: wire('frozen, it is given up by our own confirm time-out'), wire: true },
  { name: 'wire: publish what is not persistent', guarantee: 'What was accepted survives the broker’s restart.', ...fleeting, caughtBy: wire('killed and started again, it has everything that was accepted'), wire: true },
  {
    name: 'wire: take a lost channel for a refusal',
    guarantee: 'The log tells why a connection was lost; a refusal is one.',
    file: client,
    find: 'if (!closed) answered(',
    replace: 'answered(',
    caughtBy: wire('closes the channel on what is larger than its max_message_size'),
    wire: true,
  },
  {
    name: 'wire: blame the channel for its connection',
    guarantee: 'The log tells why a connection was lost.',
    file: client,
    find: "asapScheduler.schedule(() => subscriber.error(new Error('the channel was closed')))",
    replace: "subscriber.error(new Error('the channel was closed'))",
    caughtBy: wire('connections that the broker closes under load'),
    wire: true,
  },
  {
    name: 'wire: requeue one by one',
    guarantee: 'What is released comes again in order: the channel is closed, and nothing is requeued singly.',
    file: client,
    find: 'await channel.close()',
    replace: 'channel.nackAll(true)',
    caughtBy: wire('a released delivery comes again, with everything after it, in order'),
    wire: true,
  },
  {
    name: 'wire: let the connection overtake its channels',
    guarantee: 'A stop acknowledges what was accepted before the connection is closed.',
    file: client,
    find: 'await Promise.allSettled([...(closing.get(model) ?? [])])\n',
    replace: '\n',
    caughtBy: wire('stopped under load, it leaves nothing that comes twice'),
    wire: true,
  },
  {
    name: 'wire: tell a password',
    guarantee: 'No error text holds a password.',
    file: client,
    find: 'return new Error(`${host}: ${hidden}`)',
    replace: 'return new Error(`${url}: ${hidden}`)',
    caughtBy: wire('never tells a password'),
    wire: true,
  },
  {
    name: 'a whole window after a refusal',
    guarantee: 'A queue that has refused is tried with one message: nothing that it takes again arrives before what it still refused.',
    file: writer,
    find: 'if (refused || write.returned) caution.wary = true\n',
    replace: '\n',
    caughtBy: ['test/marbles/amqp.test.ts', 'after a refusal sends one message and waits for its confirm'],
  },
  {
    name: 'consume beside a consumer that is about to go',
    guarantee: 'What a dead consumer was given comes before what is new.',
    file: reader,
    find: 'consumers > 0 ||',
    replace: 'consumers < 0 ||',
    caughtBy: ['test/marbles/amqp.test.ts', 'takes nothing while another consumer is left'],
  },
  {
    name: 'wire: consume beside a consumer that is about to go',
    guarantee: 'What a dead consumer was given comes before what is new.',
    file: reader,
    find: 'consumers > 0 ||',
    replace: 'consumers < 0 ||',
    caughtBy: wire('takes nothing before an earlier consumer is gone'),
    wire: true,
  },
  {
    name: 'wait for ever for other consumers',
    guarantee: 'A queue can be shared.',
    file: reader,
    find: 'const vacateMs = 5000',
    replace: 'const vacateMs = 2 ** 31 - 1',
    caughtBy: ['test/marbles/amqp.test.ts', 'shares the queue with a consumer that stays'],
  },
  {
    name: 'believe a quorum queue that says it is empty',
    guarantee: 'A quorum queue that starts again is consumed when it knows who held what.',
    file: reader,
    find: '|| (quorum && messages === 0)',
    replace: '|| (!quorum && messages < 0)',
    caughtBy: ['test/marbles/amqp.test.ts', 'begins with a quorum queue when that has something'],
  },
  {
    name: 'wire: consume as soon as a quorum queue can be reached',
    guarantee: 'A quorum queue that starts again is consumed when it knows who held what.',
    file: reader,
    find: 'consumers > 0 || (quorum && messages === 0)',
    replace: 'consumers < 0 || (!quorum && messages < 0)',
    caughtBy: wire('its quorum queue gives what a consumer held before what lies behind it'),
    wire: true,
  },
]
