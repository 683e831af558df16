const command = 'src/commands/doctor.ts'
const folder = 'src/commands/doctor-folder.ts'
const machine = 'src/commands/doctor-machine.ts'
const unit = (title) => ['test/unit/doctor.test.ts', title]
const contract = (title) => ['test/contract/doctor.test.ts', title]
const wire = (title) => ['test/wire/honest-queues.test.ts', title]

/** @type {readonly import('./list.js').Saboteur[]} */
export const doctor = [
  {
    name: 'doctor: repeat a secret that a broker told',
    guarantee: 'The doctor prints no secret, whoever said it.',
    file: 'src/commands/doctor-finding.ts',
    find: "hidden.replaceAll(secret as string, '***')",
    replace: 'hidden',
    caughtBy: unit('takes every secret out of what others said'),
  },
  {
    name: 'doctor: exit with 0 whatever is wrong',
    guarantee: 'A problem is exit code 1.',
    file: command,
    find: 'return well ? exitCodes.ok : exitCodes.failed',
    replace: 'return well ? exitCodes.ok : exitCodes.ok',
    caughtBy: contract('ends with 1 when the data folder cannot be written'),
    dist: true,
  },
  {
    name: 'doctor: leave its file behind',
    guarantee: 'The doctor leaves no trace.',
    file: folder,
    find: 'await rm(own, { recursive: true, force: true })',
    replace: 'await rm(`${own}-`, { recursive: true, force: true })',
    caughtBy: contract('ends with 0 when all is well, has a line for everything, and leaves no trace'),
    dist: true,
  },
  {
    name: 'doctor: trust memory',
    guarantee: 'A data folder in memory is a problem.',
    file: folder,
    find: "['tmpfs', 'problem', 'it is memory: everything in it is gone at a restart']",
    replace: "['tmpfs']",
    caughtBy: unit('finds a file system of kind 16914836 problem'),
  },
  {
    name: 'doctor: trust any clock',
    guarantee: 'A clock that starts in 1970 is a problem.',
    file: machine,
    find: 'if (behind > dayMs) return problem(',
    replace: 'if (behind > 1e6 * dayMs) return problem(',
    caughtBy: unit('finds a clock that starts in 1970'),
  },
  {
    name: 'doctor: measure itself',
    guarantee: 'The limit of open files is the running daemon’s.',
    file: command,
    find: 'openFilesFinding(machine, pid),',
    replace: 'openFilesFinding(machine),',
    caughtBy: contract('tells who has the data folder, and that the daemon is ready, with its own limits'),
    dist: true,
  },
  {
    name: 'doctor: take any answer for a daemon',
    guarantee: 'Another program on the port is told from a daemon.',
    file: command,
    find: 'if (accept === undefined || deliver === undefined) return problem(',
    replace: "if (accept === undefined || deliver === undefined) return ok('daemon', url)\n    if (accept === undefined || deliver === undefined) return problem(",
    caughtBy: contract('tells another program on the daemon’s port from a daemon'),
    dist: true,
  },
  {
    name: 'wire: doctor: believe every queue',
    guarantee: 'The doctor finds what the daemon would raise an alarm for.',
    file: 'src/commands/doctor-brokers.ts',
    find: 'const found = problemsOf(inspected).map(',
    replace: 'const found = problemsOf({ ...inspected, arguments: {} }).map(',
    caughtBy: wire('finds a queue that drops, and a topic that can be written to'),
    dist: true,
    wire: true,
  },
]
