const forward = 'src/pipelines/forward.ts'
const stream = 'src/sinks/websocket.ts'
const udp = 'src/sinks/udp.ts'
const marbles = (title) => ['test/marbles/forward.test.ts', title]
const unit = (title) => ['test/unit/copies.test.ts', title]
const datagrams = (title) => ['test/contract/udp.test.ts', title]

/** @type {readonly import('./list.js').Saboteur[]} */
export const copies = [
  {
    name: 'trust what others write',
    guarantee: 'What another program wrote to the queue and is no JSON object goes to the dead letters.',
    file: forward,
    find: 'if (message.digest === undefined) check(message.body)\n',
    replace: 'if (message.digest === null) check(message.body)\n',
    caughtBy: marbles('buries what another program wrote and is no JSON object'),
  },
  {
    name: 'remember what was not delivered',
    guarantee: 'Only what Pulsar has confirmed makes a later one a repeat.',
    file: forward,
    find: 'leave(value)\n',
    replace: 'leave(value)\n      recent.add(value)\n',
    caughtBy: marbles('takes nothing for a repeat that was not delivered'),
  },
  {
    name: 'send a repeat again',
    guarantee: 'A repeat of what was delivered is dropped and counted.',
    file: forward,
    find: 'recent.has(message) || !enter(message) ?',
    replace: '!enter(message) ?',
    caughtBy: marbles('accepts a repeat of what was delivered, counts it, and sends it nowhere'),
  },
  {
    name: 'copy again what comes again',
    guarantee: 'A copy is made when a message first leaves its queue.',
    file: forward,
    find: 'message.redelivered === true ? [] : [message]',
    replace: 'message.redelivered === true ? [message] : [message]',
    caughtBy: marbles('copies what leaves its queue for the first time, and not what comes again'),
  },
  {
    name: 'make copies without best effort',
    guarantee: 'A copy that is stuck neither slows nor stops the road to Pulsar.',
    file: forward,
    find: 'bestEffort<Message>(pipe(firstOnly, copy.sink), {\n                dropped: (count) => counted.copiesDropped(copy.name, count),\n              }),',
    replace: 'bestEffort && pipe(firstOnly, copy.sink),',
    caughtBy: ['test/marbles/pipeline.test.ts', 'keeps every invariant'],
  },
  {
    name: 'fill a queue that nobody reads',
    guarantee: 'An existing copy queue is not fed beyond 100,000.',
    file: 'src/pipelines/parts.ts',
    find: 'if (depth() <= tooDeep) return [message]',
    replace: 'if (depth() >= 0) return [message]',
    caughtBy: unit('that nobody reads is not fed beyond 100,000'),
  },
  {
    name: 'buffer for a client that does not read',
    guarantee: 'A client that does not read hurts itself alone: it is cut off.',
    file: stream,
    find: 'if (socket.bufferedBytes() + bytes.length <= maxClientBytes ||',
    replace: 'if (maxClientBytes > 0 ||',
    caughtBy: unit('cuts off a client that does not read, and the others miss nothing'),
  },
  {
    name: 'keep every frame',
    guarantee: 'The ring of the newest frames is bounded.',
    file: stream,
    find: '(ring.length > maxFrames || ringBytes > maxBytes)',
    replace: '(ring.length < 0 && maxFrames + maxBytes > 0)',
    caughtBy: unit('keeps no more frames and no more bytes than its ring'),
  },
  {
    name: 'pass over a gap',
    guarantee: 'A client that comes back is told what it missed and cannot have.',
    file: stream,
    find: 'if (!ours || from < oldest) {',
    replace: 'if (!ours && from < oldest && number < 0) {',
    caughtBy: unit('tells what cannot be had any more as a gap'),
  },
  {
    name: 'split a message into datagrams',
    guarantee: 'A message is one datagram or none.',
    file: udp,
    find: 'if (body.length > maxDatagramBytes) throw new Rejection(`larger than a datagram of ${maxDatagramBytes} bytes`, \'udp\')\n      return forkJoin(',
    replace: 'if (body.length > maxDatagramBytes) return forkJoin(parsed.flatMap((target) => [sendOne(target, body.subarray(0, 9)), sendOne(target, body.subarray(9))]))\n      return forkJoin(',
    caughtBy: datagrams('rejects what does not fit into one datagram, unsent and unsplit'),
  },
  {
    name: 'call a datagram confirmed',
    guarantee: 'Nobody confirms a datagram: its receipt says sent.',
    file: udp,
    find: "state: 'sent'",
    replace: "state: 'confirmed'",
    caughtBy: datagrams('sends each message as one datagram to every target, and says sent, never confirmed'),
  },
  {
    name: 'lose datagrams uncounted',
    guarantee: 'A datagram that cannot leave is counted, with its target.',
    file: udp,
    find: 'if (error !== null) dropped(target.name, error.message)',
    replace: '',
    caughtBy: datagrams('counts a datagram that cannot leave, with its target'),
  },
]
