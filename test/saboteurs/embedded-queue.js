/** The segment log is several files; where in them something stands does not matter here. */
const log = 'src/connections/'
const source = 'src/sources/embedded-queue.ts'
const unit = (title) => ['test/unit/segment-log.test.ts', title]
const contract = (title) => ['test/contract/ends.test.ts', `the contract of a source: embedded queue ${title}`]

/** @type {readonly import('./list.js').Saboteur[]} */
export const embeddedQueue = [
  {
    name: 'forget a refused number in a purge',
    guarantee: 'What was refused is never counted as lost.',
    file: log,
    find: 'Math.min(expected, ahead[0]?.from ?? expected)',
    replace: 'expected',
    caughtBy: unit('behaves as an ordered list'),
  },
  {
    name: 'skip a sync: a batch',
    guarantee: 'An append completes after the sync that covers it.',
    file: log,
    find: 'await file.sync()\n    } catch (error) {',
    replace: '} catch (error) {',
    caughtBy: unit('completes only after its sync'),
  },
  {
    name: 'skip a sync: a new segment',
    guarantee: 'A new segment is there as a whole or not at all.',
    file: log,
    find: 'await file.sync()\n    await fs.rename(beside, path)',
    replace: 'await fs.rename(beside, path)',
    caughtBy: unit('a new segment is synced before it gets its name, and its folder after'),
  },
  {
    name: 'skip a sync: the folder',
    guarantee: 'A new segment does not lose its name in a power cut.',
    file: log,
    find: 'await fs.syncFolder(folder)\n    return file',
    replace: 'return file',
    caughtBy: unit('a new segment is synced before it gets its name, and its folder after'),
  },
  {
    name: 'fill the disk',
    guarantee: 'A full queue says so before the disk does, and keeps what it has.',
    file: log,
    find: '2 * PAGE_BYTES > maxBytes',
    replace: '2 * PAGE_BYTES < -maxBytes',
    caughtBy: unit('says so before the disk does, and heals as it drains'),
  },
  {
    name: 'let what waits overtake a failed batch',
    guarantee: 'Nothing takes effect without what came before it: a failed batch refuses all behind it.',
    file: log,
    find: 'const all = [...batch, ...queue]\n    queue = []\n    queuedBytes = 0',
    replace: 'const all = [...batch]',
    caughtBy: unit('refuses what waits behind it too, so that nothing overtakes'),
  },
  {
    name: 'forget what was settled',
    guarantee: 'What was settled does not come again after a clean restart.',
    file: log,
    find: 'addRun(fresh, seq, seq + 1)',
    replace: '',
    caughtBy: unit('in any order hold after a reopen'),
  },
  {
    name: 'trust a checksum unseen',
    guarantee: 'Damaged bytes are never given out as a message.',
    file: 'src/connections/segment-record.ts',
    find: 'if (verify && crc32(',
    replace: 'if (!verify && crc32(',
    caughtBy: ['test/unit/segment-record.test.ts', 'is bad after any single flipped bit'],
  },
  {
    name: 'take a neighbour’s record for genuine',
    guarantee: 'A record that a sender or another segment made is no record here.',
    file: 'src/connections/segment-record.ts',
    find: 'const seed = crc32(name, crc32(salt))',
    replace: 'const seed = crc32(name) * 0 + salt.length * 0',
    caughtBy: ['test/unit/segment-record.test.ts', 'is genuine only under its own salt and in its own segment'],
  },
  {
    name: 'let two processes into one folder',
    guarantee: 'One process at a time in a data folder.',
    file: 'src/connections/folder-lock.ts',
    find: "if (found !== undefined && found.pid !== process.pid && (await alive(found, own)))",
    replace: "if (found !== undefined && found.pid === process.pid && (await alive(found, own)))",
    caughtBy: ['test/unit/folder-lock.test.ts', 'a live holder that only the file tells of is respected'],
  },
  {
    name: 'destroy what was rejected',
    guarantee: 'A queue source never destroys what was only refused.',
    file: source,
    find: "if (outcome.kind === 'accepted') {",
    replace: "if (outcome.kind !== 'released') {",
    caughtBy: contract('destroys nothing that was rejected: it comes again'),
  },
  {
    name: 'keep what was released to itself',
    guarantee: 'Released comes again, in order.',
    file: source,
    find: 'again = false\n            rewind()',
    replace: 'again = false',
    caughtBy: contract('gives what was released again, and everything behind it, in order'),
  },
  {
    name: 'close without giving back',
    guarantee: 'What was unsettled at a cancel comes again to the next reader.',
    file: source,
    find: 'quit()\n              rewind()',
    replace: 'quit()',
    caughtBy: contract('after unsubscribe releases everything unsettled: it comes again, in order, to the next'),
  },
]
