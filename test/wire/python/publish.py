"""Publishes each line of standard input to a queue, as any AMQP program would.

publish.py URL QUEUE     prints how many RabbitMQ has confirmed
"""
import sys

import pika

url, queue = sys.argv[1:3]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()
properties = pika.BasicProperties(content_type='application/json', delivery_mode=2)

count = 0
for line in sys.stdin.buffer:
    # raises when the broker refuses the message or cannot route it
    channel.basic_publish('', queue, line.rstrip(b'\n'), properties, mandatory=True)
    count += 1

connection.close()
print(count)
