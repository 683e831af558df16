export const http = []
