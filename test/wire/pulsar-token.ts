/** A Pulsar that asks for tokens, and tokens for it. */
import { createHmac } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { temporaryFolder } from './daemon-process.js'

const secret = Buffer.from('a secret of the tests, 32 bytes!')
const secretFile = join(temporaryFolder('token'), 'secret')
writeFileSync(secretFile, secret)

export const tokenFor = (subject: string, key = secret): string => {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const head = `${part({ alg: 'HS256' })}.${part({ sub: subject })}`
  return `${head}.${createHmac('sha256', key).update(head).digest('base64url')}`
}

/** The broker's own token, who may do everything. */
export const admin = tokenFor('admin')

/** Lines for a broker that lets nobody in without a token. */
export const tokenConf = [
  'authenticationEnabled=true',
  'authorizationEnabled=true',
  'authenticationProviders=org.apache.pulsar.broker.authentication.AuthenticationProviderToken',
  `tokenSecretKey=file://${secretFile}`,
  'superUserRoles=admin',
  'brokerClientAuthenticationPlugin=org.apache.pulsar.client.impl.auth.AuthenticationToken',
  `brokerClientAuthenticationParameters=token:${admin}`,
].join('\n')
