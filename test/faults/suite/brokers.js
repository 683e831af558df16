/**
 * A RabbitMQ and a Pulsar that only this run uses, so that a row may kill and freeze them.
 * Every verb of scripts/brokers.sh is a function here; a broker that starts has the ports and the data it had.
 */
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const script = fileURLToPath(new URL('../../../scripts/brokers.sh', import.meta.url))

export const makeBrokers = async () => {
  const folder = mkdtempSync(join(tmpdir(), 'backhaul-fault-brokers-'))
  const run = (...args) =>
    new Promise((resolve, reject) => {
      const env = { ...process.env, BACKHAUL_BROKERS_DIR: folder }
      execFile('bash', [script, ...args], { env, timeout: 200_000 }, (error, stdout, stderr) =>
        error ? reject(new Error(`brokers.sh ${args.join(' ')}: ${stderr.trim() || error.message}`)) : resolve(stdout))
    })
  const verb = (word) => (...names) => run(word, ...names)
  const lines = await run('env')
  const address = (name) => new RegExp(`^BACKHAUL_TEST_${name}_URL=(.*)$`, 'm').exec(lines)?.[1]
  // Whoever interrupts the suite must not find a Java process left behind.
  const atExit = () => {
    spawnSync('bash', [script, 'kill'], { env: { ...process.env, BACKHAUL_BROKERS_DIR: folder } })
    rmSync(folder, { recursive: true, force: true })
  }
  process.once('exit', atExit)
  return {
    amqpUrl: address('AMQP'),
    pulsarUrl: address('PULSAR'),
    start: verb('start'),
    stop: verb('stop'),
    kill: verb('kill'),
    freeze: verb('freeze'),
    thaw: verb('thaw'),
    rabbitmqctl: verb('rabbitmqctl'),
    /** RabbitMQ's data, while it does not run. */
    rabbitmqData: join(folder, 'rabbitmq', 'data'),
    dispose: async () => {
      await run('kill')
      process.off('exit', atExit)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
