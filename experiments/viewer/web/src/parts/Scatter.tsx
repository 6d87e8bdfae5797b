// Cost against accuracy: a logarithmic cost, intervals as whiskers, and the line of those that nothing cheaper beats.
import { compact, percent } from '../lib/format'
import { brief } from '../lib/text'
import type { CostPoint } from '../records'

export type Cost = 'calls' | 'tokens' | 'cost' | 'seconds'
const [W, H, LEFT, BOTTOM, TOP, RIGHT] = [560, 300, 44, 34, 14, 110]
const WORDS: Record<Cost, string> = { calls: 'model calls an episode', tokens: 'tokens an episode', cost: 'US dollars in all', seconds: 'seconds of the run' }

/** Those that no other beats at the same cost or less, the cheapest first. */
export function frontier<T extends { x: number; y: number }>(points: T[]): T[] {
  const sorted = [...points].sort((a, b) => a.x - b.x || b.y - a.y)
  let best = -Infinity
  return sorted.filter((point) => point.y > best && ((best = point.y), true))
}

/** Round figures within the bounds; the more of a power of ten they span, the fewer of each. */
export function logTicks(low: number, high: number): number[] {
  const found: number[] = []
  const digits = high / low > 12 ? [1, 2, 5] : high / low > 4 ? [1, 2, 3, 5, 7] : [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9]
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const digit of digits) {
      const tick = digit * 10 ** power
      if (tick >= low * 0.999 && tick <= high * 1.001) found.push(tick)
    }
  return found
}

export function Scatter({ points, cost }: { points: CostPoint[]; cost: Cost }) {
  const known = points.flatMap((point) => {
    const x = point[cost]
    return x !== null && x > 0 && point.accuracy !== null ? [{ ...point, x, y: point.accuracy }] : []
  })
  if (known.length === 0) return <p className="waiting">Nothing to show yet.</p>
  const [low, high] = [Math.min(...known.map((p) => p.x)) / 1.4, Math.max(...known.map((p) => p.x)) * 1.4]
  const ends = known.flatMap((p) => [p.y, ...(p.interval ?? [])])
  const floor = Math.max(0, Math.floor(Math.min(...ends) * 10) / 10)
  const top = Math.min(1, Math.ceil(Math.max(...ends, floor + 0.1) * 10) / 10)
  const x = (value: number) => LEFT + ((W - LEFT - RIGHT) * Math.log(value / low)) / Math.log(high / low)
  const y = (share: number) => H - BOTTOM - ((H - BOTTOM - TOP) * (share - floor)) / (top - floor)
  const lines = Array.from({ length: Math.round((top - floor) / 0.1) + 1 }, (_, i) => floor + i * 0.1)
  const labels = apart([...known].sort((a, b) => y(a.y) - y(b.y)).map((p) => ({ p, x: x(p.x), at: y(p.y) })))
  return (
    <svg className="scatter" viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`Accuracy by ${WORDS[cost]}: ` + known.map((p) => `${p.name} ${percent(p.y)} % at ${compact(p.x)}`).join(', ')}>
      {lines.map((share) => <g key={share}><path d={`M${LEFT} ${y(share)}H${W - RIGHT}`} className="gridline" /><text x={LEFT - 8} y={y(share) + 4} textAnchor="end">{Math.round(100 * share)}</text></g>)}
      {logTicks(low, high).map((tick) => <text key={tick} x={x(tick)} y={H - BOTTOM + 16} textAnchor="middle">{compact(tick)}</text>)}
      <text x={(LEFT + W - RIGHT) / 2} y={H - 3} textAnchor="middle">{WORDS[cost]}</text>
      <path className="frontier" d={frontier(known).map((p, i) => (i ? `H${x(p.x)}V${y(p.y)}` : `M${x(p.x)} ${y(p.y)}`)).join('')} />
      {labels.map(({ p, at }) => (
        <g key={p.key}>
          <title>{`${p.name}: ${percent(p.y)} % at ${compact(p.x)}`}</title>
          {p.interval && <path d={`M${x(p.x)} ${y(p.interval[0])}V${y(p.interval[1])}`} className="whisker" />}
          <circle cx={x(p.x)} cy={y(p.y)} r="4" className="centre" />
          <text x={x(p.x) + 9} y={at + 4} className="name">{brief(p.name, 18)}</text>
        </g>
      ))}
    </svg>
  )
}

/** Labels that would lie over one another are moved down, the lower of the two. */
function apart<T extends { x: number; at: number }>(labels: T[]): T[] {
  labels.forEach((label, i) => {
    for (const above of labels.slice(0, i)) if (Math.abs(above.x - label.x) < 90 && Math.abs(label.at - above.at) < 12) label.at = above.at + 12
  })
  return labels
}
