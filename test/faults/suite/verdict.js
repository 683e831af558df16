/**
 * What is wrong with a run; nothing, when it passes. The same rules for every row, and the row's own bars on top.
 * A run whose faults did not hit anything is void: neither passed nor failed, and done again.
 */
export const faultsOf = (row, result) => {
  const wrong = []
  for (const name of ['lost', 'phantom', 'reordered', 'corrupt', 'stalled'])
    if (result[name] > 0) wrong.push(`${name} ${result[name]}${name === 'stalled' ? ` (${result.why})` : ''}`)
  const { books } = result
  // What was written twice is out more often than in, as often as the witness saw; what was dropped as a repeat is not out.
  if (books && (books.in > books.out + books.repeats || books.out > books.in + (result.duplicated ?? 0))) wrong.push(`books: ${books.in} in, ${books.out} out, ${books.repeats} repeats dropped`)
  for (const [name, limit] of Object.entries(row.atMost ?? {})) if (!(result[name] <= limit)) wrong.push(`${name} ${result[name]}, at most ${limit}`)
  for (const [name, least] of Object.entries(row.atLeast ?? {})) if (!(result[name] >= least)) wrong.push(`${name} ${result[name]}, at least ${least}`)
  return wrong
}

/** Nothing is wrong but that a time was exceeded (names in Ms): that may be the machine. */
export const onlySlow = (wrong) => wrong.length > 0 && wrong.every((one) => /^\w+Ms /.test(one))

/** A row that tells of no bites judges that itself. */
export const isVoid = (result, count) => result.bites < count
