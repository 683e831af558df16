/** Ways to break a promise, each by one edit of the source. The simulator must notice every one. */
export interface Saboteur {
  readonly name: string
  readonly file: string
  readonly find: string
  readonly replace: string
}

const deliver = 'src/operators/deliver.ts'
const rabbitmq = 'src/sources/rabbitmq.ts'
const amqpWriter = 'src/connections/amqp-writer.ts'
const amqpMessage = 'src/connections/amqp-message.ts'
const segments = 'src/connections/log-segments.ts'
const pulsar = 'src/connections/pulsar-websocket.ts'
const answers = 'src/connections/pulsar-answers.ts'

export const saboteurs: readonly Saboteur[] = [
  {
    name: 'settle before the confirm',
    file: deliver,
    find: 'current.add(send(entry.delivery.value).subscribe({ error: failed, complete: confirmed }))',
    replace: 'current.add(send(entry.delivery.value).subscribe({ error: failed }))\n          confirmed()',
  },
  { name: 'resend behind the new', file: deliver, find: 'waiting = [...unconfirmed, ...waiting]', replace: 'waiting = [...waiting, ...unconfirmed]' },
  { name: 'resend out of order', file: deliver, find: 'const unconfirmed = [...written]', replace: 'const unconfirmed = [...written].reverse()' },
  { name: 'forget to resend', file: deliver, find: 'waiting = [...unconfirmed, ...waiting]', replace: 'for (const { delivery } of unconfirmed) delivery.settle(accepted)' },
  { name: 'forget the window', file: deliver, find: '&& written.size < window) {', replace: ') {' },
  { name: 'forget mandatory', file: amqpMessage, find: 'mandatory: true,\n', replace: 'mandatory: false as true,\n' },
  { name: 'forget persistent', file: amqpMessage, find: 'deliveryMode: 2,\n', replace: 'deliveryMode: 1 as 2,\n' },
  { name: 'overlook a return', file: amqpWriter, find: 'if (write.returned) return', replace: 'if (write.returned && subscriber.closed) return' },
  { name: 'wait for a confirm for ever', file: amqpWriter, find: '      confirms.watch()\n    }\n    const send', replace: '    }\n    const send' },
  { name: 'acknowledge RabbitMQ at receipt', file: rabbitmq, find: 'book.take(message, tag)', replace: 'book.take(message, tag)\n              consumer?.accept(tag, false)' },
  { name: 'acknowledge beyond a gap', file: rabbitmq, find: 'while (beyond.delete(upTo + 1)) upTo += 1', replace: 'upTo = Math.max(upTo, tag)' },
  { name: 'consume again before all is answered', file: rabbitmq, find: ' || book.room() < window) return', replace: ') return' },
  { name: 'acknowledge without a sync', file: segments, find: '      await file.sync()\n', replace: '' },
  { name: 'take a failed sync for done', file: segments, find: '      await file.sync()\n', replace: '      await attempt(file.sync())\n' },
  { name: 'go on with a file that failed', file: segments, find: 'if (!undone) await retire()', replace: '' },
  { name: 'do not sync the folder', file: 'src/connections/log-files.ts', find: '    await fs.syncFolder(folder)\n', replace: '' },
  { name: 'delete a segment that is needed', file: segments, find: 'segments[1].first > floor', replace: 'segments[1].first > nextSeq' },
  { name: 'remove at reading', file: 'src/sources/embedded-queue.ts', find: 'book.take(decodeMessage(body, headers), seq)', replace: '{\n                    book.take(decodeMessage(body, headers), seq)\n                    remove(seq)\n                  }' },
  { name: 'match receipts by order', file: pulsar, find: 'const write = out.get(answer.context)\n', replace: 'const [context = "", write] = [...out][0] ?? []\n      Object.assign(answer, { context })\n' },
  { name: 'wait for a receipt for ever', file: pulsar, find: '      receipts.watch()\n', replace: '' },
  { name: 'take a send error for a receipt', file: answers, find: "return { kind: 'failed', reason, retryAfterMs", replace: "return { kind: 'stored', context } as Answer\n  return { kind: 'failed', reason, retryAfterMs" },
  { name: 'bury what failed for now', file: answers, find: "return { kind: 'failed', reason, retryAfterMs", replace: "return { kind: 'refused', context, reason } as Answer\n  return { kind: 'failed', reason, retryAfterMs" },
  { name: 'forget dead letters', file: 'src/operators/rescue.ts', find: 'dead.next({', replace: "Reflect.apply(settle, undefined, [{ kind: 'accepted' }]) || void ({" },
  { name: 'remember before the receipt', file: 'src/pipelines/forward.ts', find: '(recent.has(message) || !enter(message) ? [] : [message])', replace: '{\n    if (recent.has(message)) return []\n    recent.add(message)\n    return [message]\n  }' },
  { name: 'call what may be kept released', file: 'src/sources/http.ts', find: "taken.has(index) ? 'unknown' : 'released'", replace: "taken.has(-1) ? 'unknown' : 'released'" },
  { name: 'admit the newest first', file: 'src/sources/intake.ts', find: 'for (const offer of line) {\n      if (book', replace: 'for (const offer of [...line].reverse()) {\n      if (book' },
  { name: 'forget to count', file: 'src/ledger.ts', find: 'counts.released += owned\n', replace: '' },
  { name: 'never come back', file: 'src/operators/while-open.ts', find: '            start()\n          },\n', replace: '            if (subscriber.closed) start()\n          },\n' },
  { name: 'stop without a word', file: 'src/pipelines/daemon.ts', find: 'timer(drainMs)', replace: 'timer(drainMs * 0)' },
  { name: 'trust a clock that is set back', file: 'src/connections/patience.ts', find: 'if (since > now && ', replace: 'if (since > now && now > since && ' },
]
