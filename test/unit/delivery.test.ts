import { describe, expect, it } from 'vitest'
import { accepted, rejected, rejectedBy, Rejection, released, worst } from '../../src/delivery.js'
import type { Outcome } from '../../src/delivery.js'

describe('the answer for what went several ways', () => {
  const [no, never] = [rejected('no', 'one'), rejected('never', 'two')]
  const [unsent, unknown] = [released(false), released(true)]
  it.each<[Outcome, Outcome, Outcome]>([
    [accepted, accepted, accepted],
    [accepted, no, no],
    [no, accepted, no],
    [no, never, no],
    [no, unsent, unsent],
    [unsent, no, unsent],
    [accepted, unknown, unknown],
    [unknown, accepted, unknown],
    [unsent, unsent, unsent],
  ])('%j and %j are %j', (a, b, both) => expect(worst(a, b)).toEqual(both))
  it('says that nothing was sent only when no way has sent it', () => {
    expect([worst(unsent, unknown), worst(unknown, unsent), worst(unknown, unknown)]).toEqual([unknown, unknown, unknown])
  })
})

describe('what an error means', () => {
  it('a Rejection keeps its reason, and the stage that it names', () => {
    expect(rejectedBy(new Rejection('too large'), 'sink', 3)).toEqual(rejected('too large', 'sink', 3))
    expect(rejectedBy(new Rejection('too large', 'check'), 'sink')).toEqual(rejected('too large', 'check', 1))
  })
  it('a Rejection is told from other errors by its name as well', () => {
    expect(String(new Rejection('too large'))).toBe('Rejection: too large')
  })
  it('any other error gives its name and message, and what is no error its text', () => {
    expect(rejectedBy(new TypeError('not a function'), 'step')).toEqual(rejected('TypeError: not a function', 'step', 1))
    expect(rejectedBy('odd', 'step')).toEqual(rejected('odd', 'step', 1))
  })
})
