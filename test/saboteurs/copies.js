export const copies = []
