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
  find: 'if (!blocked)\n            return publish(write);',
  replace: 'if (!blocked) { done.complete(); setTimeout(() => publish(write), 500); return }',
}
export const forwardsEarly = {
  name: 'acknowledged before Pulsar has it',
  file: 'connections/pulsar-websocket.js',
  find: 'const write = { message, done, since: 0 };',
  replace: 'const write = { message, done: { closed: false, complete: () => {}, error: () => {} }, since: 0 }; done.complete(); setTimeout(() => send(write), 500); return;',
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
  replace: 'done.complete();',
}

export const refusesWithYes = {
  name: 'says yes where it refuses',
  file: 'sources/http.js',
  find: 'problem(429,',
  replace: 'problem(202,',
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
