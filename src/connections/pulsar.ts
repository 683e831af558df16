import type { Observable } from 'rxjs'
import type { Connection } from '../delivery.js'
import type { Message } from '../message.js'
import { pulsarNativeSubscription, pulsarNativeWriter } from './pulsar-native.js'
import { pulsarWebSocketSubscription } from './pulsar-subscription.js'
import type { PulsarSubscriptionSettings, TopicConsumer } from './pulsar-subscription.js'
import { pulsarWebSocketWriter } from './pulsar-websocket.js'
import type { PulsarWriterSettings } from './pulsar-websocket.js'

export const isNative = (url: string): boolean => /^pulsar(\+ssl)?:/.test(url)

/** `ws://` and `wss://`: Pulsar's WebSocket API. `pulsar://` and `pulsar+ssl://`: the native client. */
export const pulsarWriter = (settings: PulsarWriterSettings): Connection<Message> =>
  isNative(settings.url) ? pulsarNativeWriter(settings) : pulsarWebSocketWriter(settings)

export const pulsarSubscription = (settings: PulsarSubscriptionSettings): Observable<TopicConsumer | undefined> =>
  isNative(settings.url) ? pulsarNativeSubscription(settings) : pulsarWebSocketSubscription(settings)
