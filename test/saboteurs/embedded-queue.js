export const embeddedQueue = []
