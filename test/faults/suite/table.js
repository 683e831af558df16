/** Results as a Markdown table, one line for each row. */
const columns = ['row', 'fault', 'count', 'bar', 'accepted', 'lost', 'duplicated', 'reordered', 'corrupt', 'stalled', 'bit', 'verdict', 'seconds']

export const toCells = ({ row, count, result = {}, verdict, wrong = [] }) => [
  row.id,
  row.fault,
  result.points ?? count,
  row.bar,
  ...['accepted', 'lost', 'duplicated', 'reordered', 'corrupt', 'stalled'].map((name) => result[name] ?? '-'),
  result.struck ?? result.bites ?? '-',
  wrong.length > 0 ? `${verdict}: ${wrong.join('; ').replaceAll('\n', ' ').replaceAll('|', '/')}` : verdict,
  result.seconds ?? '-',
]

export const line = (cells) => `| ${cells.join(' | ')} |`
export const heading = () => `${line(columns)}\n${line(columns.map(() => '---'))}`
