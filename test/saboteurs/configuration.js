export const configuration = []
