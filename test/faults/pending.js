import { EMPTY, expand, firstValueFrom, reduce } from 'rxjs'

/** All that is pending, page by page: one look gives about 8 MiB at most. */
export const allPending = (log) =>
  firstValueFrom(
    log.peek(0, Infinity).pipe(
      expand((page) => (page.length === 0 ? EMPTY : log.peek(page.at(-1).seq + 1, Infinity))),
      reduce((all, page) => all.concat(page), []),
    ),
  )
