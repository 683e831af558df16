import type { Message } from '../message.js'

/**
 * A message with the letter as its id, so that rows show it by that letter wherever it goes.
 * Its body is the JSON of `record`.
 *
 * **Example** `source('a-b', { values: message })` · `source('a', { values: { a: message('a', { celsius: 31 }) } })`
 */
export const message = (letter: string, record?: object): Message => ({
  id: letter,
  // Also called as a function of the letter alone, by whatever passes an index beside it.
  body: Buffer.from(JSON.stringify(typeof record === 'object' ? record : { letter })),
  properties: {},
})
