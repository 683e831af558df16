import { open, readdir, readFile, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { from, Observable, of } from 'rxjs'
import { makeFolder } from '../make-folder.js'
import type { Sink } from '../delivery.js'
import { deliver } from '../operators/deliver.js'
import type { DeadLetter } from '../operators/rescue.js'

/** A document from a configuration topic. */
export interface Document {
  readonly topic: string
  readonly messageId: string
  readonly payload: Buffer
}

const rejectedKept = 100

/** Old or new, never half: written beside it, synced, and renamed over it. */
const writeAtomically = async (folder: string, name: string, bytes: Buffer): Promise<void> => {
  await makeFolder(folder)
  const draft = join(folder, `${name}.new`)
  const file = await open(draft, 'w', 0o600)
  try {
    await file.writeFile(bytes)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(draft, join(folder, name))
  const directory = await open(folder, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

const once = (write: () => Promise<void>): Observable<never> =>
  new Observable<never>((subscriber) => {
    write().then(
      () => subscriber.complete(),
      (error: unknown) => subscriber.error(error),
    )
  })

/** The newest document of the device's own topic is `current.json`; others are under `extra/`. */
const nameOf = (ownTopic: string, topic: string): readonly [string, string] =>
  topic === ownTopic ? ['', 'current.json'] : ['extra', `${encodeURIComponent(topic)}.json`]

/** Keeps the newest document of each topic in a folder. Accepted means that it is on disk. */
export const configurationSink = (folder: string, ownTopic: string): Sink<Document> =>
  deliver(
    of(({ topic, payload }: Document) => {
      const [below, name] = nameOf(ownTopic, topic)
      return once(() => writeAtomically(join(folder, below), name, payload))
    }),
    { sink: 'configuration', window: 1 },
  )

/** Keeps what was refused, with its reason, in `rejected/`: the newest hundred. */
export const rejectedConfigurationSink = (folder: string): Sink<DeadLetter<Document>> =>
  deliver(
    of(({ value, reason, firstSeen }: DeadLetter<Document>) =>
      once(async () => {
        const at = new Date(firstSeen).toISOString()
        const rejected = join(folder, 'rejected')
        const record = { at, reason, topic: value.topic, messageId: value.messageId, payload: value.payload.toString('base64') }
        await writeAtomically(rejected, `${at.replace(/[:.]/g, '-')}-${encodeURIComponent(value.messageId)}.json`, Buffer.from(JSON.stringify(record)))
        const names = (await readdir(rejected)).sort()
        await Promise.all(names.slice(0, Math.max(0, names.length - rejectedKept)).map((name) => unlink(join(rejected, name))))
      }),
    ),
    { sink: 'configuration-rejected', window: 1 },
  )

/** The document that is kept for a topic, or nothing. */
export const keptConfiguration = (folder: string, ownTopic: string, topic = ownTopic): Observable<Buffer | undefined> => {
  const [below, name] = nameOf(ownTopic, topic)
  return from(readFile(join(folder, below, name)).catch(() => undefined))
}
