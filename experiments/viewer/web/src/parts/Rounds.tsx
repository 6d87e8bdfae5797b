// Who reads whom, round by round, where the topology wrote it down: agents on a circle, weights on the lines between them,
// contributions as bars; the same as figures for those who read figures.
import { number } from '../lib/format'
import { brief } from '../lib/text'
import type { RoundView } from '../records'
import { Chars } from './Basics'

const [SIZE, RING, WIDE] = [220, 72, 300]

export function Rounds({ rounds, roles }: { rounds: RoundView[]; roles: string[] }) {
  const told = rounds.filter((round) => round.links.length > 0 || round.contributions.length > 0)
  return <div className="rounds">{told.map((round) => <Organised key={round.round} round={round} roles={roles} />)}</div>
}

export const organised = (rounds: RoundView[]) => rounds.some((round) => round.links.length > 0 || round.contributions.length > 0)

function Organised({ round, roles }: { round: RoundView; roles: string[] }) {
  const names = roles.filter((role) => round.contributions.some(([name]) => name === role) || round.links.some(([read, reader]) => read === role || reader === role))
  const angle = (role: string) => (2 * Math.PI * names.indexOf(role)) / Math.max(1, names.length) - Math.PI / 2
  const at = (role: string, ring = RING) => ({ x: WIDE / 2 + 1.1 * ring * Math.cos(angle(role)), y: SIZE / 2 + ring * Math.sin(angle(role)) })
  const most = Math.max(1e-9, ...round.contributions.map(([, value]) => Math.abs(value)))
  return (
    <figure className="organised">
      <figcaption>after round {round.round} <span className="quiet">{round.links.length ? `${round.links.length} links` : 'no links'}</span></figcaption>
      <svg viewBox={`0 0 ${WIDE} ${SIZE}`} role="img" aria-label={round.links.map(([read, reader, weight]) => `${reader} reads ${read}, ${weight.toFixed(2)}`).join('; ') || 'no links'}>
        <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto" markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z" className="arrowhead" /></marker></defs>
        {round.links.map(([read, reader, weight], i) => {
          const [from, to] = [at(read), at(reader)]
          const length = Math.hypot(to.x - from.x, to.y - from.y) || 1
          const cut = (distance: number, point: typeof from, sign: number) => ({ x: point.x + (sign * distance * (to.x - from.x)) / length, y: point.y + (sign * distance * (to.y - from.y)) / length })
          const [start, end] = [cut(14, from, 1), cut(15, to, -1)]
          const [x, y] = [start.x + (end.x - start.x) * 0.36, start.y + (end.y - start.y) * 0.36]
          return <g key={i}><path d={`M${start.x} ${start.y}L${end.x} ${end.y}`} className="orglink" style={{ strokeWidth: 0.8 + 2.4 * Math.min(1, Math.abs(weight)) }} markerEnd="url(#arrow)" /><text x={x} y={y + 3} textAnchor="middle" className="orgweight">{weight.toFixed(2)}</text></g>
        })}
        {names.map((role) => {
          const value = round.contributions.find(([name]) => name === role)?.[1]
          const [point, label] = [at(role), at(role, RING + 30)]
          return <g key={role}><circle cx={point.x} cy={point.y} r={6 + 7 * (Math.abs(value ?? 0) / most)} className="orgnode" /><text x={label.x} y={label.y + 4} textAnchor="middle">{brief(role, 12)}</text></g>
        })}
      </svg>
      <table>
        <thead><tr><th scope="col">agent</th><th scope="col" className="n">contribution</th><th scope="col">reads</th></tr></thead>
        <tbody>
          {names.map((role) => {
            const value = round.contributions.find(([name]) => name === role)?.[1]
            return (
              <tr key={role}>
                <th scope="row"><Chars text={role} /></th><td className="n">{value === undefined ? '–' : number(value)}</td>
                <td>{round.links.filter(([, reader]) => reader === role).map(([read, , weight], i) => <span key={i}>{i > 0 && ', '}<span className="nowrap"><Chars text={read} /> <span className="quiet">{weight.toFixed(2)}</span></span></span>)}</td>
              </tr>
            )
          })}
        </tbody>
      </table>
    </figure>
  )
}
