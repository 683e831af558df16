/**
 * A copy of the built daemon with one promise broken. A row that stays green with it would prove nothing.
 * The copy lies inside the project, so that it finds its dependencies.
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))
export const distFolder = join(root, 'dist')

export const answersEarly = {
  name: 'yes before RabbitMQ has it',
  file: 'connections/amqp-writer.js',
  find: 'if (mayGo() && held.size === 0)\n            publish(write);',
  replace: 'if (!blocked) { confirmed(); setTimeout(() => publish(write), 500); }',
}
export const forwardsEarly = {
  name: 'acknowledged before Pulsar has it',
  file: 'connections/pulsar-websocket.js',
  find: 'const write = { message, done, since: 0 };',
  replace: 'const write = { message, done: { closed: false, next: () => {}, complete: () => {}, error: () => {} }, since: 0 }; done.complete(); setTimeout(() => send(write), 500); return;',
}
export const holdsTheLast = {
  name: 'sends a message when the next one comes',
  file: 'connections/pulsar-websocket.js',
  find: 'const write = { message, done, since: 0 };',
  replace: 'const write = { message, done, since: 0 }; const before = globalThis.last; globalThis.last = write; if (before) send(before); return;',
}
export const stopsDeaf = {
  name: 'a stop waits for nothing',
  file: 'pipelines/daemon.js',
  find: 'const drainMs = 3500;',
  replace: 'const drainMs = 0;',
}
export const deafToReturns = {
  name: 'takes what no queue received for accepted',
  file: 'connections/amqp-writer.js',
  find: 'if (write.returned)',
  replace: 'if (false)',
}
export const deafToRefusals = {
  name: 'takes a refusal for a confirm',
  file: 'connections/amqp-writer.js',
  find: 'if (refused)',
  replace: 'if (false)',
}
export const forgetsHeld = {
  name: 'forgets what comes while RabbitMQ blocks',
  file: 'connections/amqp-writer.js',
  find: 'held.add(write);',
  replace: 'confirmed();',
}

export const declaresOnce = {
  name: 'makes its queue once in its life',
  file: 'connections/amqp-queue.js',
  find: 'isMissing(error) ? make',
  replace: 'isMissing(error) && !(globalThis.made ??= new Set()).has(queue) ? (globalThis.made.add(queue), make)',
}
export const waitsForRabbitmq = {
  name: 'takes nothing before RabbitMQ was there',
  file: 'connections/spill.js',
  find: "return divert('the far end is away');",
  replace: 'return;',
}

export const overtakesItsSpool = {
  name: 'goes direct as soon as RabbitMQ is back',
  file: 'connections/spill.js',
  find: 'const empty = depth === 0 && appending === 0;',
  replace: 'const empty = appending === 0;',
}

export const refusesWithYes = {
  name: 'says yes where it refuses',
  file: 'sources/http.js',
  find: 'problem(429,',
  replace: 'problem(202,',
}

export const takesLossForYes = {
  name: 'takes what a lost connection left unconfirmed for kept',
  file: 'operators/deliver.js',
  find: 'const unconfirmed = [...written];',
  replace: 'const unconfirmed = []; pumping = true; for (const entry of [...written]) settle(entry, accepted); pumping = false;',
}
export const waitsForEver = {
  name: 'waits for a confirm for ever',
  file: 'connections/patience.js',
  find: 'if (leftMs > 0)',
  replace: 'if (true)',
}

export const endsWithItsConnection = {
  name: 'ends when a connection cannot be opened',
  file: 'connections/reconnect.js',
  find: "onState({ kind: 'lost', error });",
  replace: "onState({ kind: 'lost', error }); if (error?.code === 'EMFILE' || /EMFILE/.test(error?.message)) process.exit(1);",
}
export const patientWithTheFuture = {
  name: 'believes a clock that was set back',
  file: 'connections/patience.js',
  find: '(early?.since === since ? early.from : since)',
  replace: 'since',
}

/** Of the embedded queue. */
export const yesBeforeTheWrite = {
  name: 'yes before it is written',
  file: 'connections/log-commit.js',
  find: 'await segments.append(image);',
  replace: 'kept(first); await segments.append(image);',
}
export const trustsFailedSync = {
  name: 'takes a failed sync for one',
  file: 'connections/log-segments.js',
  find: 'await file.sync();',
  replace: 'await file.sync().catch(() => {});',
}
export const trustsFailedWrite = {
  name: 'takes a failed write for one',
  file: 'connections/log-segments.js',
  find: 'await writeAll(file, image, segment.length);',
  replace: 'await writeAll(file, image, segment.length).catch(() => {});',
}
export const keepsNothingWithYes = {
  name: 'says yes to what could not be kept',
  file: 'connections/log-writer.js',
  find: 'subscriber.error(refusal);',
  replace: 'answer(subscriber, 0);',
}
export const trustsItsName = {
  name: 'does not look whether its file is still there',
  file: 'connections/log-commit.js',
  find: 'if (segments.isThere())',
  replace: 'if (true)',
}
export const syncsInTheLoop = {
  name: 'syncs on the event loop',
  file: 'connections/log-files.js',
  find: 'sync: () => file.datasync(),',
  replace: "sync: async () => process.getBuiltinModule('node:fs').fdatasyncSync(file.fd),",
}
export const cutsTooMuch = {
  name: 'cuts one record too many off a torn tail',
  file: 'connections/log-recovery.js',
  find: 'newest.length = tail.from;',
  replace: 'newest.length = Math.max(SEGMENT_HEADER_BYTES, tail.from - 60);',
}

/** The `dist` of the copy, and how to remove it. */
export const sabotagedDist = ({ name, file, find, replace }) => {
  const folder = join(root, 'node_modules', '.cache', `faults-${process.pid}-${Date.now()}`)
  const dist = join(folder, 'dist')
  mkdirSync(folder, { recursive: true })
  cpSync(distFolder, dist, { recursive: true })
  cpSync(join(root, 'package.json'), join(folder, 'package.json'))
  const text = readFileSync(join(dist, file), 'utf8')
  if (text.split(find).length !== 2) throw new Error(`saboteur "${name}": ${file} does not have its place exactly once`)
  writeFileSync(join(dist, file), text.replace(find, () => replace))
  return { dist, remove: () => rmSync(folder, { recursive: true, force: true }) }
}
