/**
 * The ledger is a file of lines, written by the sender and by nobody else:
 *
 *   try <id> <source> <sequence> <hash>     before the request leaves
 *   yes <id>                                accepted: the sender was told so
 *   no <id>                                 refused: the sender was told that nothing was kept
 *   who <id>                                unknown: a time-out, a reset, a 504
 *
 * One message has as many tries as it took.
 */
import { createHash } from 'node:crypto'
import { closeSync, existsSync, openSync, readSync, writeSync } from 'node:fs'

export const hashOf = (text) => createHash('sha256').update(text).digest('base64url').slice(0, 22)

export const openLedger = (file) => {
  const handle = openSync(file, 'a')
  const write = (lines) => lines.length > 0 && writeSync(handle, `${lines.join('\n')}\n`)
  return {
    tries: (messages) => write(messages.map(({ id, source, sequence, hash }) => `try ${id} ${source} ${sequence} ${hash}`)),
    outcomes: (word, ids) => write(ids.map((id) => `${word} ${id}`)),
  }
}

/** Reads what has been written since the last call; `messages` maps an id to what is known of it. */
export const followLedger = (file) => {
  const messages = new Map()
  let offset = 0
  let rest = ''
  let accepted = 0
  const learn = (line) => {
    const [word, id, source, sequence, hash] = line.split(' ')
    const known = messages.get(id)
    if (word !== 'try') {
      if (word === 'yes' && known.yes === 0) accepted += 1
      known[word] += 1
    } else if (known) known.tries += 1
    else messages.set(id, { id, source, sequence: Number(sequence), hash, tries: 1, yes: 0, no: 0, who: 0 })
  }
  const read = () => {
    if (!existsSync(file)) return
    const handle = openSync(file, 'r')
    const buffer = Buffer.alloc(1 << 20)
    for (let count; (count = readSync(handle, buffer, 0, buffer.length, offset)) > 0; offset += count) {
      const lines = (rest + buffer.toString('latin1', 0, count)).split('\n')
      rest = lines.pop()
      lines.forEach(learn)
    }
    closeSync(handle)
  }
  return {
    messages: () => (read(), messages),
    accepted: () => (read(), accepted),
  }
}
