const numbered = 'src/connections/pulsar-numbered.ts'
const numbers = 'src/connections/numbers.ts'
const journal = 'src/connections/number-journal.ts'
const check = 'src/connections/pulsar-deduplication.ts'
const onDisk = (title) => ['test/unit/number-journal.test.ts', title]
const byScript = (title) => ['test/marbles/numbered.test.ts', title]
const wire = (title) => ['test/wire/deduplication.test.ts', title]

const uncounted = { file: numbered, find: ', initialSequenceId: String(number - 1)', replace: '' }
const batched = { file: numbered, find: "batchingEnabled: 'false'", replace: "batchingEnabled: 'true'" }
const forgetful = { file: numbered, find: 'numberBook(journal.found, newRun', replace: 'numberBook([], newRun' }
const late = {
  file: numbered,
  find: '      syncing = true\n      sync(records)',
  replace: '      sendAll()\n      batch.length = 0\n      syncing = true\n      sync(records)',
}

/** @type {readonly import('./list.js').Saboteur[]} */
export const deduplication = [
  { name: 'dedup: let the server count on by itself', guarantee: 'A resent message carries the number that it had.', ...uncounted, caughtBy: byScript('are sent again after a loss') },
  { name: 'dedup: leave batching on', guarantee: 'Deduplication costs no message.', ...batched, caughtBy: byScript('stores everything once and in order') },
  { name: 'dedup: count anew after a restart', guarantee: 'A message keeps its number over a restart.', ...forgetful, caughtBy: byScript('when the forwarder was killed after Pulsar stored them') },
  {
    name: 'dedup: go on counting under one name',
    guarantee: 'A number that was reset costs no message.',
    file: numbered,
    find: "if (renewed || (fresh && repeat && !trusted)) return renew()",
    replace: '',
    caughtBy: byScript('when the name has been used beyond what is known here'),
  },
  { name: 'dedup: journal after the send', guarantee: 'A number is on disk before it is sent.', ...late, caughtBy: byScript('stores everything once and in order') },
  {
    name: 'dedup: send an old number behind newer ones',
    guarantee: 'What comes again out of order gets a new number: a repeat rather than a loss.',
    file: numbers,
    find: 'const dead = die(leftBehind(place))',
    replace: 'const dead = die(leftBehind(place).slice(0, 0))',
    caughtBy: byScript('deduplication costs no message'),
  },
  {
    name: 'dedup: forget the dead numbers over a restart',
    guarantee: 'A number that was left behind is dead for the next start too.',
    file: numbers,
    find: 'records: [...dead, ...given] }',
    replace: 'records: given }',
    caughtBy: byScript('what comes again behind newer ones gets a new number'),
  },
  {
    name: 'dedup: skip what has its number when its writer has left',
    guarantee: 'The server’s count and ours are one.',
    file: numbered,
    find: 'batch.push(() => write(message, step.entry, step.fresh))',
    replace: 'batch.push(() => done.closed || write(message, step.entry, step.fresh))',
    caughtBy: byScript('stores everything once and in order'),
  },
  {
    name: 'dedup: number what comes inside another batch',
    guarantee: 'What is numbered first is sent first.',
    file: numbered,
    find: 'if (pumping || syncing || subscriber.closed) return',
    replace: 'if (syncing || subscriber.closed) return',
    caughtBy: byScript('go out in the order in which they were given'),
  },
  {
    name: 'dedup: take any message for its namesake',
    guarantee: 'A message without our digest is dropped only when the queue gave it out before.',
    file: numbers,
    find: 'message.redelivered === true && alike.length === 1',
    replace: 'alike.length >= 1',
    caughtBy: byScript('of a message without our digest'),
  },
  {
    name: 'dedup: tell of a refusal before its number is dead on disk',
    guarantee: 'A refused message whose dead letter was lost is not taken for stored.',
    file: numbered,
    find: 'sync(book.refused(entry)).subscribe({',
    replace: 'book.refused(entry)\n      sync([]).subscribe({',
    caughtBy: byScript('die with a refused message'),
  },
  {
    name: 'dedup: send where the broker does not drop repeats',
    guarantee: 'The option refuses rather than half-works.',
    file: numbered,
    find: 'allowed.pipe(switchMap(() => numberedOn(send, book, kept, refused, settings)))',
    replace: 'numberedOn(send, book, kept, refused, settings)',
    caughtBy: byScript('wait for a broker that does not drop repeats'),
  },
  {
    name: 'dedup: know again only what the queue marks',
    guarantee: 'A spool that is replayed doubles nothing.',
    file: numbers,
    find: 'if (message.digest !== undefined) return alike.at(-1)',
    replace: 'if (message.digest !== undefined) return message.redelivered === true ? alike.at(-1) : undefined',
    caughtBy: ['test/unit/numbers.test.ts', 'a second copy in the queue'],
  },
  {
    name: 'dedup: bring dead numbers back to life',
    guarantee: 'Deduplication costs no message that was refused once.',
    file: numbers,
    find: "const old = found?.state === 'open' ? found : undefined",
    replace: 'const old = found',
    caughtBy: ['test/unit/numbers.test.ts', 'a dead letter that is sent again'],
  },
  {
    name: 'dedup: keep numbers without a sync',
    guarantee: 'A number is on disk before it is sent.',
    file: journal,
    find: 'await writeAll(file, bytes, end)\n      await file.sync()',
    replace: 'await writeAll(file, bytes, end)',
    caughtBy: onDisk('a power cut at any call leaves all that was synced'),
  },
  {
    name: 'dedup: take damage for the end',
    guarantee: 'Numbers that were damaged are not believed.',
    file: journal,
    find: 'if (torn || left > 0) return undefined',
    replace: '',
    caughtBy: onDisk('a bit that flipped in what was synced'),
  },
  {
    name: 'dedup: go on in a file whose sync failed',
    guarantee: 'What a disk has after a sync that failed is not believed.',
    file: journal,
    find: '      file = undefined\n      throw error',
    replace: '      throw error',
    caughtBy: onDisk('after a sync that failed'),
  },
  {
    name: 'dedup: make room for the second file when it is needed',
    guarantee: 'A full disk does not stop the road to Pulsar.',
    file: journal,
    find: 'if (has === 0) await',
    replace: 'if (has > 0) await',
    caughtBy: onDisk('a full file is followed by the other'),
  },
  {
    name: 'dedup: take silence of the statistics for yes',
    guarantee: 'The option refuses rather than half-works.',
    file: check,
    find: 'if (status !== 200 || found === undefined)',
    replace: 'if (found === undefined) return true\n  if (status !== 200)',
    caughtBy: ['test/contract/pulsar-deduplication.test.ts', 'the statistics do not say'],
  },
  {
    name: 'dedup: take any state for on',
    guarantee: 'The option refuses rather than half-works.',
    file: check,
    find: "if (found === 'Enabled') return true",
    replace: 'if (found.length > 0) return true',
    caughtBy: ['test/contract/pulsar-deduplication.test.ts', 'it does not: misconfigured'],
  },
  {
    name: 'dedup: take an address that numbers nothing',
    guarantee: 'The option refuses rather than half-works.',
    file: 'src/settings.ts',
    find: "/^wss?:/.test(settings.pulsarUrl ?? '')",
    replace: "/^(ws|pulsar)/.test(settings.pulsarUrl ?? '')",
    caughtBy: ['test/unit/settings.test.ts', 'take deduplication only with an address of Pulsar'],
  },
  { name: 'wire: dedup: let the server count on by itself', guarantee: 'Nothing is doubled under kills.', ...uncounted, caughtBy: wire('on: nothing doubled, nothing lost'), dist: true, wire: true },
  { name: 'wire: dedup: leave batching on', guarantee: 'Nothing is lost under kills.', ...batched, caughtBy: wire('on: nothing doubled, nothing lost'), dist: true, wire: true },
  {
    name: 'wire: dedup: send an old number behind newer ones',
    guarantee: 'What comes again out of order gets a new number: a repeat rather than a loss.',
    file: numbers,
    find: 'const dead = die(leftBehind(place))',
    replace: 'const dead = die(leftBehind(place).slice(0, 0))',
    caughtBy: ['test/wire/deduplication-traps.test.ts', 'when what comes again comes behind what is new'],
    wire: true,
  },
  {
    name: 'wire: dedup: one name for all runs',
    guarantee: 'A counter that was reset costs no message.',
    file: numbered,
    find: "randomBytes(8).toString('hex')",
    replace: "'0123456789abcdef'",
    caughtBy: ['test/wire/deduplication-traps.test.ts', 'when the numbers are gone at each start'],
    wire: true,
  },
  { name: 'wire: dedup: count anew after a restart', guarantee: 'Nothing is doubled under kills.', ...forgetful, caughtBy: wire('on: nothing doubled, nothing lost'), dist: true, wire: true },
]
