/**
 * A saboteur breaks one promise by replacing `find`, which must be in `file` (or in the files of a folder, `src/x/`)
 * exactly once, by `replace`.
 *
 * @typedef {object} Saboteur
 * @property {string} name
 * @property {string} guarantee  the promise that it breaks
 * @property {string} file       under `src/`
 * @property {string} find
 * @property {string} replace
 * @property {[file: string, title: string]} caughtBy  the test that must fail, by a part of its title
 * @property {boolean} [dist]    the test runs the built daemon
 * @property {boolean} [wire]    the test needs real brokers
 */
import { commands } from './commands.js'
import { configuration } from './configuration.js'
import { copies } from './copies.js'
import { core } from './core.js'
import { deadLetters } from './dead-letters.js'
import { deduplication } from './deduplication.js'
import { doctor } from './doctor.js'
import { embeddedQueue } from './embedded-queue.js'
import { enrichment } from './enrichment.js'
import { honestQueues } from './honest-queues.js'
import { http } from './http.js'
import { poison } from './poison.js'
import { pulsar } from './pulsar.js'
import { rabbitmq } from './rabbitmq.js'
import { spill } from './spill.js'

/** @type {readonly Saboteur[]} */
export const saboteurs = [...core, ...enrichment, ...http, ...pulsar, ...deduplication, ...rabbitmq, ...embeddedQueue, ...spill, ...copies, ...configuration, ...commands, ...honestQueues, ...doctor, ...deadLetters, ...poison]
