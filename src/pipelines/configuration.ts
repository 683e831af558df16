import { pipe, tap } from 'rxjs'
import type { Observable } from 'rxjs'
import { Rejection } from '../delivery.js'
import type { Receipt, Sink, Source } from '../delivery.js'
import { topLevelFields } from '../json.js'
import { each } from '../operators/each.js'
import { rescue } from '../operators/rescue.js'
import type { DeadLetter } from '../operators/rescue.js'

/** The largest document that is taken as a configuration. */
export const maxConfigurationBytes = 256 * 1024

const check = topLevelFields([])

/** One JSON object of at most 256 KiB. */
const valid = <T extends { readonly payload: Buffer }>(document: T): readonly T[] => {
  if (document.payload.length > maxConfigurationBytes) throw new Rejection(`larger than ${maxConfigurationBytes} bytes`)
  check(document.payload)
  return [document]
}

export interface ConfigurationParts<T> {
  readonly source: Source<T>
  readonly keep: Sink<T>
  readonly refused: Sink<DeadLetter<T>>
  readonly counted: { readonly accepted: (document: T) => void; readonly rejected: (dead: DeadLetter<T>) => void }
}

/** Configuration topic → kept on disk; what is not a configuration is kept aside, and the old one stays. */
export const configuration = <T extends { readonly payload: Buffer }>({
  source,
  keep,
  refused,
  counted,
}: ConfigurationParts<T>): Observable<Receipt> =>
  source.pipe(
    rescue(
      pipe(
        each<T, T>(valid, { stage: 'configuration' }),
        keep,
        tap(({ outcome, value }) => outcome.kind === 'accepted' && counted.accepted(value)),
      ),
      pipe(
        refused,
        tap(({ value }) => counted.rejected(value)),
      ),
    ),
  )
