export const rabbitmq = []
