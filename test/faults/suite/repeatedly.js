/**
 * The same strike so many times, each between two stretches of flowing messages, of `more` at least. The result says
 * how many deliveries more than messages there were for each strike.
 */
export const repeatedly = (strike, more) => async (world) => {
  for (let one = 0; one < world.count; one += 1) {
    await world.flowing(more)
    await world.bite(() => strike(world))
  }
  await world.flowing(more)
  return { repeatedPerStrike: (world.witness.deliveries().length - world.witness.unique()) / world.count }
}
