/**
 * Ledger and witness against each other; a pure function.
 *
 * In: what the sender knows of each message, and the deliveries in the order in which Pulsar has them.
 * Out: the books, in Jepsen's words. `lost` is accepted and never delivered; `recovered` is delivered though its
 * sender never learned it; `doubledUnasked` is delivered twice though its sender asked only once; `reordered` counts
 * inversions of first deliveries within one source; `corrupt` is any difference outside the three added fields.
 */
import { hashOf } from './ledger.js'

/** The bytes as they were sent: what was added stands at the end of the object. */
const original = (text) => {
  const added = text.indexOf(',"UploadedUTCDateTime":')
  return added < 0 ? text : `${text.slice(0, added)}}`
}

export const judge = (messages, deliveries) => {
  const times = new Map()
  const last = new Map()
  let phantom = 0
  let reordered = 0
  let corrupt = 0
  for (const { id, text } of deliveries) {
    const sent = messages.get(id)
    times.set(id, (times.get(id) ?? 0) + 1)
    if (sent === undefined) {
      phantom += 1
      continue
    }
    if (hashOf(original(text)) !== sent.hash) corrupt += 1
    if (times.get(id) > 1) continue
    if (sent.sequence < (last.get(sent.source) ?? -1)) reordered += 1
    else last.set(sent.source, sent.sequence)
  }
  const all = [...messages.values()]
  const count = (holds) => all.filter(holds).length
  const arrived = ({ id }) => times.has(id)
  return {
    attempted: all.length,
    accepted: count(({ yes }) => yes > 0),
    refused: count(({ yes, who }) => yes === 0 && who === 0),
    unknown: count(({ yes, who }) => yes === 0 && who > 0),
    delivered: times.size,
    lost: count((one) => one.yes > 0 && !arrived(one)),
    duplicated: deliveries.length - times.size,
    doubledUnasked: count(({ id, tries }) => tries === 1 && (times.get(id) ?? 0) > 1),
    recovered: count((one) => one.yes === 0 && arrived(one)),
    phantom,
    reordered,
    corrupt,
  }
}
