import { describe, expect, it } from 'vitest'
import { recent } from '../../src/operators/drop-repeats.js'

const message = (id: string, digest?: string) => ({ id, body: Buffer.from('{}'), properties: {}, ...(digest === undefined ? {} : { digest }) })

describe('recent', () => {
  it('takes a message for a repeat when both its id and its digest were confirmed', () => {
    const { has, add } = recent()
    add(message('a', 'x'))
    expect(has(message('a', 'x'))).toBe(true)
    expect(has(message('a', 'y')), 'same id, other bytes').toBe(false)
    expect(has(message('b', 'x')), 'same bytes, other id').toBe(false)
  })

  it('never takes a message without our digest for a repeat', () => {
    const { has, add } = recent()
    add(message('a'))
    expect(has(message('a'))).toBe(false)
  })

  it('forgets nothing for a message without our digest', () => {
    const { has, add } = recent(1)
    add(message('a', 'x'))
    add(message('b'))
    expect(has(message('a', 'x'))).toBe(true)
  })

  it('forgets the oldest beyond its size, and a confirm makes young again', () => {
    const { has, add } = recent(3)
    for (const id of ['a', 'b', 'a', 'c', 'd']) add(message(id, 'x'))
    expect(['a', 'b', 'c', 'd'].map((id) => has(message(id, 'x')))).toEqual([true, false, true, true])
  })
})
