const file = 'src/connections/spill.ts'
const row = (title) => ['test/marbles/spill.test.ts', `spill, row by row ${title}`]
const caughtBy = ['test/marbles/spill.test.ts', 'loses nothing that was accepted, keeps the order of first deliveries, answers each once, and stalls nowhere']

/** @type {readonly import('./list.js').Saboteur[]} */
export const spill = [
  {
    name: 'go direct past the spool',
    guarantee: 'Nothing goes direct while anything is in the spool.',
    file,
    find: 'const empty = depth === 0 && appending === 0',
    replace: 'const empty = depth !== undefined && appending === 0',
    caughtBy,
  },
  {
    name: 'go direct past what is on its way into the spool',
    guarantee: 'Nothing goes direct while anything is on its way into the spool.',
    file,
    find: 'const empty = depth === 0 && appending === 0',
    replace: 'const empty = depth === 0',
    caughtBy: row('goes direct only when all that is on its way into the spool has arrived'),
  },
  {
    name: 'wait for a frozen far end',
    guarantee: 'The spool takes over when the oldest write has had no confirm in time.',
    file,
    find: 'confirms.watch()\n',
    replace: '\n',
    caughtBy: row('gives the oldest write to the spool when it has had no confirm in time'),
  },
  {
    name: 'say yes when the spool refuses',
    guarantee: 'What the spool could not keep is not accepted.',
    file,
    find: '(error instanceof Rejection ? answer.error(error) : shut(error))',
    replace: '(error instanceof Rejection ? answer.error(error) : answer.complete())',
    caughtBy,
  },
  {
    name: 'hold for ever',
    guarantee: 'A write is held no longer than a confirm may take; then it is appended.',
    file,
    find: 'holds.watch()\n',
    replace: '\n',
    caughtBy: row('holds a write while the spool is nearly empty, no longer than a confirm may take'),
  },
  {
    name: 'never try a full spool again',
    guarantee: 'A spool that has refused is tried again.',
    file,
    find: 'refused = undefined\n        choose()',
    replace: 'choose()',
    caughtBy: row('accepts nothing that a full spool refused, and tries that again'),
  },
]
