// Paired differences with their intervals, on one scale around no difference.
import { points } from '../lib/format'
import { brief } from '../lib/text'
import type { Difference } from '../records'

const [LEFT, WIDTH, RIGHT, LINE] = [170, 330, 60, 26]

/** Ends of the scale and its ticks, in shares: whole steps around all intervals, zero among them. */
export function scale(differences: Pick<Difference, 'difference' | 'interval'>[]) {
  const all = differences.flatMap((row) => [row.difference, ...(row.interval ?? [])])
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)]
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((size) => (high - low) / size <= 7) ?? 0.5
  const [from, till] = [Math.floor(low / step - 0.001), Math.ceil(high / step + 0.001)]
  return { from: from * step, till: till * step, ticks: Array.from({ length: till - from + 1 }, (_, i) => (from + i) * step) }
}

export function Forest({ differences }: { differences: Difference[] }) {
  const { from, till, ticks } = scale(differences)
  const x = (share: number) => LEFT + (WIDTH * (share - from)) / (till - from)
  const height = differences.length * LINE + 34
  return (
    <svg className="forest" viewBox={`0 0 ${LEFT + WIDTH + RIGHT} ${height}`} role="img" aria-label={'Paired differences: ' + differences.map((row) => `${row.name} ${points(row.difference)}`).join(', ')}>
      {ticks.map((tick) => (
        <g key={tick}>
          <path d={`M${x(tick)} 6V${height - 22}`} className={Math.abs(tick) < 1e-9 ? 'zero' : 'gridline'} />
          <text x={x(tick)} y={height - 8} textAnchor="middle">{Math.abs(tick) < 1e-9 ? '0' : points(tick).replace('.0', '')}</text>
        </g>
      ))}
      {differences.map((row, i) => {
        const y = 20 + i * LINE
        const sure = row.interval !== null && (row.interval[0] > 0 || row.interval[1] < 0)
        return (
          <g key={row.key} className={sure ? 'sure' : 'unsure'}>
            <title>{`${row.name}: ${points(row.difference)}${row.interval ? `, ${points(row.interval[0])} to ${points(row.interval[1])}` : ''}`}</title>
            <text x={LEFT - 12} y={y + 4} textAnchor="end">{brief(row.name, 24)}</text>
            {row.interval && <path d={`M${x(row.interval[0])} ${y}H${x(row.interval[1])}M${x(row.interval[0])} ${y - 4}v8M${x(row.interval[1])} ${y - 4}v8`} className="whisker" />}
            <rect x={x(row.difference) - 4.5} y={y - 4.5} width="9" height="9" className="centre" />
            <text x={LEFT + WIDTH + RIGHT - 2} y={y + 4} textAnchor="end" className="value">{points(row.difference)}</text>
          </g>
        )
      })}
    </svg>
  )
}
