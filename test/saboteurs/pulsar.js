export const pulsar = []
