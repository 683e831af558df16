const socket = 'src/connections/pulsar-websocket.ts'
const native = 'src/connections/pulsar-native.ts'
const answers = 'src/connections/pulsar-answers.ts'
const webSocket = 'src/connections/web-socket.ts'
const wire = (title) => ['test/wire/pulsar-faults.test.ts', title]
const early = { file: socket, find: 'socket.send(frame)\n', replace: 'socket.send(frame)\n      write.done.complete()\n' }
const blind = { file: answers, find: 'error instanceof SocketClosed && poisonCodes.has(error.closeCode)', replace: 'error instanceof SocketClosed && error.closeCode < 0' }
const patient = { file: webSocket, find: 'if (now - heard > silenceMs)', replace: 'if (now - heard < 0)' }
const contract = (title) => ['test/contract/pulsar-writer.test.ts', title]

/** @type {readonly import('./list.js').Saboteur[]} */
export const pulsar = [
  {
    name: 'settle before Pulsar’s receipt',
    guarantee: 'Accepted means that Pulsar gave its receipt.',
    ...early,
    caughtBy: contract('the WebSocket writer writes in order, byte for byte, and settles at the receipt and not before'),
  },
  {
    name: 'match answers by arrival',
    guarantee: 'A receipt is matched by its context, whatever the order of the answers.',
    file: socket,
    find: 'const write = out.get(answer.context)',
    replace: 'const [write] = out.values()',
    caughtBy: contract('the WebSocket writer matches receipts that come in another order'),
  },
  {
    name: 'take a refusal for a receipt',
    guarantee: 'What Pulsar refuses for good is rejected.',
    file: socket,
    find: "else write.done.error(new Rejection(answer.reason, 'pulsar'))",
    replace: 'else write.done.complete()',
    caughtBy: contract('the WebSocket writer rejects what is refused for good, that alone, and goes on'),
  },
  {
    name: 'bury what could be sent later',
    guarantee: 'Any failure but a few known ones is the connection’s, and everything is sent again.',
    file: answers,
    find: "return { kind: 'failed', reason, retryAfterMs: topicLevel.has(exception) ? slowProbeMs : 0 }",
    replace: "return { kind: 'refused', context, reason }",
    caughtBy: contract('the WebSocket writer takes any other failure for the connection’s'),
  },
  {
    name: 'no time limit for a receipt',
    guarantee: 'A broker that says nothing is given up by our own time-out.',
    file: socket,
    find: 'receipts.watch()\n',
    replace: '\n',
    caughtBy: contract('the WebSocket writer gives a far end up that is silent, by its own confirm time-out'),
  },
  {
    name: 'never look for poison',
    guarantee: 'A message for which the server closes the socket is found and rejected, and does not hold the topic up.',
    ...blind,
    caughtBy: contract('finds the message for which the server closes the socket'),
  },
  {
    name: 'take the neighbours for poison',
    guarantee: 'A message is rejected as poison only after it was alone on the socket.',
    file: socket,
    find: 'const found = suspicion.alone > 0 && suspects.length === 1',
    replace: 'const found = suspects.length > 0',
    caughtBy: contract('finds the message for which the server closes the socket'),
  },
  {
    name: 'send what is too large',
    guarantee: 'A message that would close the socket for its size is rejected unsent.',
    file: socket,
    find: 'if (message.body.length > maxMessageBytes) throw',
    replace: 'if (message.body.length < 0) throw',
    caughtBy: contract('the WebSocket writer rejects what is too large, unsent, and its neighbours arrive'),
  },
  {
    name: 'leave the ping out',
    guarantee: 'A connection on which nothing is said is pinged, and kept while the peer lives.',
    file: webSocket,
    find: 'else socket.ping()\n',
    replace: '\n',
    caughtBy: contract('keeps a peer that answers pings, though nothing is said'),
  },
  {
    name: 'bear any silence',
    guarantee: 'A peer that answers no ping is given up.',
    ...patient,
    caughtBy: contract('gives up a peer that answers no ping'),
  },
  {
    name: 'settle before the native receipt',
    guarantee: 'Accepted means that Pulsar gave its receipt, with the native client too.',
    file: native,
    find: 'await producer.send({',
    replace: 'done.complete()\n        await producer.send({',
    caughtBy: contract('the native writer writes in order, byte for byte, and settles at the receipt and not before'),
  },
  {
    name: 'take a native failure for a receipt',
    guarantee: 'A failed send of the native client ends the connection, and everything is sent again.',
    file: native,
    find: 'else fail(reason)\n',
    replace: 'else done.complete()\n',
    caughtBy: contract('the native writer takes any other failure for the connection’s'),
  },

  { name: 'wire: settle before Pulsar’s receipt', guarantee: 'Accepted means that Pulsar gave its receipt.', ...early, caughtBy: wire('killed with a window in flight and started again'), wire: true },
  { name: 'wire: never look for poison', guarantee: 'A message for which the server closes the socket does not hold the topic up.', ...blind, caughtBy: wire('a message that makes the server close the socket is found'), wire: true },
  { name: 'wire: bear any silence', guarantee: 'A frozen Pulsar is given up.', ...patient, caughtBy: wire('frozen: noticed by the ping'), wire: true },
  {
    name: 'a system call for each frame',
    guarantee: 'What is sent in one turn leaves together.',
    file: webSocket,
    find: 'gather()\n',
    replace: '\n',
    caughtBy: ['test/contract/web-socket.test.ts', 'gathers what is sent in one turn, counts it as not taken yet, and sends all of it, in order, before it closes'],
  },
]
