/** @type {readonly import('./list.js').Saboteur[]} */
export const commands = [
  {
    name: 'purge without asking',
    guarantee: 'What destroys messages asks first, and does nothing where nobody can answer.',
    file: 'src/commands/queues.ts',
    find: "!== 'yes') {",
    replace: "=== 'no') {",
    caughtBy: ['test/contract/commands.test.ts', 'purge asks first, and does nothing where nobody can answer'],
    dist: true,
  },
  {
    name: 'print a secret',
    guarantee: 'No command prints a secret.',
    file: 'src/commands/check.ts',
    find: "secretNames.includes(name) ? '***' :",
    replace: 'secretNames.includes(name) ? (value as string) :',
    caughtBy: ['test/contract/commands.test.ts', 'check prints the settings with secrets masked'],
    dist: true,
  },
  {
    name: 'tell a wrong value',
    guarantee: 'An error of the settings names path and expected type, never a value.',
    file: 'src/settings.ts',
    find: 'errors.map(({ context }) => `',
    replace: 'errors.map(({ context, value }) => `${String(value)} for ',
    caughtBy: ['test/unit/settings.test.ts', 'name each wrong setting and what was expected, and never the value'],
  },
  {
    name: 'listen to the network without a token',
    guarantee: 'Nobody on the network can post without a token.',
    file: 'src/settings.ts',
    find: ": ['httpHost: expected a loopback address, or an httpToken as well: anyone on the network could post']),",
    replace: ': []),',
    caughtBy: ['test/unit/settings.test.ts', 'refuse to listen beyond loopback without a token'],
  },
]
