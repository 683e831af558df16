/**
 * Asks until the answer is neither `undefined` nor `false`, and gives it. Every wait of the suite is this one:
 * for the thing itself, with a deadline.
 */
export const eventually = async (what, ask, deadlineMs = 30_000) => {
  for (const end = Date.now() + deadlineMs; ; ) {
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer
    if (Date.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`)
    await pause(20)
  }
}

/** A fault lasts; this is how long. Never a substitute for `eventually`. */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
