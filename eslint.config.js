import { relative } from 'node:path'
import tseslint from 'typescript-eslint'

/** delivery ← operators ← (connections, sources, sinks: never one another) ← pipelines ← commands, main */
const mayImport = {
  'delivery.ts': [],
  'ledger.ts': ['root'],
  'message.ts': ['root'],
  'json.ts': ['root'],
  'dead-letter.ts': ['root'],
  operators: ['root', 'operators'],
  connections: ['root', 'operators', 'connections'],
  sources: ['root', 'operators', 'sources'],
  sinks: ['root', 'operators', 'sinks'],
  pipelines: ['root', 'operators', 'connections', 'sources', 'sinks', 'pipelines'],
  commands: ['root', 'operators', 'connections', 'sources', 'sinks', 'pipelines', 'commands'],
  // The public kit stands beside all this: it knows the ports, and nobody knows it.
  'testing.ts': ['testing'],
  testing: ['root', 'operators', 'connections', 'sources', 'sinks', 'testing'],
}
/** A driver package is imported in exactly one file. */
const drivers = {
  amqplib: 'connections/amqp-client.ts',
  ws: 'connections/web-socket.ts',
  undici: 'connections/http-client.ts',
  fastify: 'connections/http-server.ts',
  'pulsar-client': 'connections/pulsar-native.ts',
  'prom-client': 'metrics.ts',
  yaml: 'main.ts',
  'node:child_process': 'connections/rabbitmqctl.ts',
}

const layers = {
  create(context) {
    const file = relative(`${import.meta.dirname}/src`, context.filename)
    const allowed = mayImport[file] ?? mayImport[file.split('/')[0]]
    const check = (node, source) => {
      if (typeof source !== 'string') return
      if (drivers[source] !== undefined && drivers[source] !== file)
        context.report({ node, message: `'${source}' is imported in ${drivers[source]} only.` })
      if (!source.startsWith('.')) return
      const target = relative(`${import.meta.dirname}/src`, new URL(source, `file://${context.filename}`).pathname)
      const layer = target.startsWith('testing') ? 'testing' : target.includes('/') ? target.split('/')[0] : 'root'
      if (layer === 'testing' && !file.startsWith('testing')) context.report({ node, message: 'Nothing that runs may import the kit.' })
      if (allowed === undefined) return
      if (!allowed.includes(layer)) context.report({ node, message: `${file} may not import from ${target}.` })
    }
    return {
      ImportDeclaration: (node) => check(node, node.source.value),
      ExportNamedDeclaration: (node) => check(node, node.source?.value),
      ImportExpression: (node) => check(node, node.source.value),
    }
  },
}

/** Where a delivery may be answered. Everyone else composes these. */
const maySettle = [
  'src/ledger.ts',
  'src/operators/{each,deliver,fan-out,best-effort,rescue,remember-replays,batch,join}.ts',
]

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', '.brokers/', '.stryker-tmp/', 'reports/', '**/*.js', '**/*.mjs'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: false }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/prefer-promise-reject-errors': 'error',
      '@typescript-eslint/no-unused-expressions': ['error', { allowShortCircuit: true, allowTernary: true }],
      eqeqeq: 'error',
    },
  },
  {
    files: ['src/**'],
    plugins: { backhaul: { rules: { layers } } },
    rules: { 'backhaul/layers': 'error', '@typescript-eslint/explicit-module-boundary-types': 'error' },
  },
  {
    files: ['src/**'],
    ignores: maySettle,
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: "CallExpression[callee.property.name='settle']",
          message: 'Only each, deliver, fanOut, bestEffort, rescue, batch and the ledger answer for a delivery.',
        },
      ],
    },
  },
  {
    files: ['src/**'],
    // rabbitmqctl.ts gets the process as a parameter, from main.ts.
    ignores: ['src/main.ts', 'src/connections/rabbitmqctl.ts'],
    rules: {
      'no-restricted-properties': [
        'error',
        ...['env', 'argv', 'exit', 'exitCode', 'on', 'once', 'stdin', 'stdout', 'stderr', 'cwd'].map((property) => ({
          object: 'process',
          property,
          message: 'main.ts is the only file that knows the process.',
        })),
      ],
    },
  },
)
