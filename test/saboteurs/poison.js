const wire = (title) => ['test/wire/poison.test.ts', title]

/** @type {readonly import('./list.js').Saboteur[]} */
export const poison = [
  {
    name: 'publish what AMQP cannot carry',
    guarantee: 'What RabbitMQ can never carry is rejected, and holds up nobody.',
    file: 'src/connections/amqp-writer.ts',
    find: "if (reason !== undefined) return throwError(() => new Rejection(reason, 'rabbitmq'))",
    replace: "if (reason === 'never') return throwError(() => new Rejection(reason, 'rabbitmq'))",
    caughtBy: ['test/marbles/rabbitmq.test.ts', 'rejects what AMQP cannot carry, unsent, and that alone'],
  },
  {
    name: 'bury what no queue carries',
    guarantee: 'A dead letter can always be kept.',
    file: 'src/dead-letter.ts',
    find: 'if (propertiesBytes(properties) <= maxPropertiesBytes &&',
    replace: 'if (propertiesBytes(properties) <= 10 * maxPropertiesBytes &&',
    caughtBy: ['test/unit/dead-letter.test.ts', 'leaves properties behind that no queue carries'],
  },
  {
    name: 'take any name from a queue',
    guarantee: 'What another program wrote can be sent on.',
    file: 'src/connections/amqp-message.ts',
    find: 'Buffer.byteLength(text) <= maxNameBytes',
    replace: 'Buffer.byteLength(text) <= 9 * maxNameBytes',
    caughtBy: ['test/unit/dead-letter.test.ts', 'can be sent on'],
  },
  {
    name: 'wait for room that never comes',
    guarantee: 'What an embedded queue can never keep is rejected, and holds up nobody.',
    file: 'src/connections/log-writer.ts',
    find: 'if (bytes > maxBytes * LARGEST)',
    replace: 'if (bytes > maxBytes * 9 * LARGEST)',
    caughtBy: ['test/contract/never-fits.test.ts', 'a record larger than three quarters of the embedded queue is rejected'],
  },
  {
    name: 'take settings under which the largest message never fits',
    guarantee: 'The door accepts nothing that the embedded queue can never keep.',
    file: 'src/settings.ts',
    find: 'settings.maxMessageBytes + maxPropertiesBytes <= 0.75',
    replace: 'settings.maxMessageBytes + maxPropertiesBytes <= 75',
    caughtBy: ['test/unit/settings.test.ts', 'keep room for the largest message in an embedded queue'],
  },
  {
    name: 'wire: take at the door what no queue carries',
    guarantee: 'The door accepts nothing that would hold up the road.',
    file: 'src/sources/http.ts',
    find: "if (reason !== undefined) throw new BadMessage('notMessage', reason)",
    replace: "if (reason === 'never') throw new BadMessage('notMessage', reason)",
    caughtBy: wire('is refused by the door, and those behind it arrive'),
    dist: true,
    wire: true,
  },
  {
    name: 'wire: post what HTTP cannot carry',
    guarantee: 'A record that no request carries is rejected, and holds up nobody.',
    file: 'src/connections/http-publisher.ts',
    find: "if (reason !== undefined) return throwError(() => new Rejection(reason, 'http'))",
    replace: "if (reason === 'never') return throwError(() => new Rejection(reason, 'http'))",
    caughtBy: wire('is refused by a publisher to http://, for a property that no header carries'),
    wire: true,
  },
]
