const store = 'src/sinks/configuration-store.ts'
const contract = (title) => ['test/contract/configuration-store.test.ts', title]

/** @type {readonly import('./list.js').Saboteur[]} */
export const configuration = [
  {
    name: 'apply what is no configuration',
    guarantee: 'What is no configuration is kept aside, and the old one stays.',
    file: 'src/pipelines/configuration.ts',
    find: 'check(document.payload)\n',
    replace: '\n',
    caughtBy: contract('keeps what is no configuration aside with its reason, settles it, and leaves the old one'),
  },
  {
    name: 'write over the old configuration',
    guarantee: 'Old or new, never half: a document is put in place of the old one when it is whole.',
    file: store,
    find: 'const draft = join(folder, `${name}.new`)',
    replace: 'const draft = join(folder, name)',
    caughtBy: contract('puts a new document in place of the old one, which whoever has it open still reads whole'),
  },
  {
    name: 'skip a sync: the configuration',
    guarantee: 'Accepted means that the document is on disk, and so is its name.',
    file: store,
    find: 'await file.sync()\n',
    replace: '\n',
    caughtBy: contract('syncs the document before it gets its place, and its folder after'),
  },
  {
    name: 'skip a sync: the configuration’s folder',
    guarantee: 'A document that was accepted does not lose its name in a power cut.',
    file: store,
    find: 'await directory.sync()\n',
    replace: '\n',
    caughtBy: contract('syncs the document before it gets its place, and its folder after'),
  },
  {
    name: 'let the fleet overwrite the device',
    guarantee: 'Documents of other topics are kept apart from the device’s own.',
    file: store,
    find: "topic === ownTopic ? ['', 'current.json']",
    replace: "topic !== '' ? ['', 'current.json']",
    caughtBy: contract('keeps documents of other topics apart'),
  },
  {
    name: 'keep every refused document',
    guarantee: 'The newest hundred of what was refused are kept, and no more.',
    file: store,
    find: 'names.slice(0, Math.max(0, names.length - rejectedKept))',
    replace: 'names.slice(0, Math.max(0, 0 * rejectedKept))',
    caughtBy: contract('keeps the newest hundred of what was refused'),
  },
]
