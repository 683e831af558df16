/** The public marble kit, name by name: delivery semantics as rows, in virtual time. */
export { marbles } from './testing/marbles.js'
export type { Marbles, MarblesOptions } from './testing/marbles.js'
export { message } from './testing/message.js'
export type { AmqpPlan, ScriptedAmqp, ScriptedAmqpOptions } from './testing/amqp.js'
export type { Plan, ScriptedFar } from './testing/far.js'
export type { Demand, ExpectedRow, Row } from './testing/rows.js'
export type { ScriptedSource, ScriptedSourceOptions } from './testing/source.js'
export type { Plans } from './testing/stage.js'
