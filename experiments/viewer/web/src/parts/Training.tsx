import { number, percent, points, pvalue, whole } from '../lib/format'
import { api } from '../lib/routes'
import { useAsk } from '../lib/source'
import type { League, TrainingPage } from '../records'
import { Counts } from './Bars'
import { Chars, Pairs, Problems, Section, Stale, Waiting } from './Basics'
import { Curves } from './Curves'

export function Training({ run }: { run: string }) {
  const { data, problem, again } = useAsk<TrainingPage>(api.training(run), (key) => key === run || key.startsWith(run + '~'))
  if (data === null) return <Waiting problem={problem} what="the training" again={again} />
  const seats: [string, string][] = data.roles.map(([role, policy]) => [role || 'all other roles', policy])
  return (
    <>
      <Stale problem={problem} />
      <Problems problems={data.problems} />
      <Section title="Course of the training" aside={<Gained page={data} />}>
        {data.series.length === 0 ? <p className="waiting">No update is done yet.</p> : (
          <div className="panels">
            {data.panels.map((panel) => {
              const series = data.series.filter((line) => line.panel === panel)
              return series.length > 0 && <Curves key={panel} title={panel} series={series} />
            })}
          </div>
        )}
      </Section>
      {data.league && data.league.players.length > 0 && <Section title="League" aside="mean score of the row against the column"><Matrix league={data.league} /></Section>}
      <Section title="Recipe" aside={data.ended ?? undefined}>
        <div className="columns">
          <Pairs pairs={[['recipe', data.recipe], ['best after', data.best === null ? '–' : `${data.best} updates`], ...data.policies.map(([policy, model]): [string, string] => [`policy ${policy}`, model]), ...seats]} />
          <Pairs pairs={data.settings} />
          {data.left_out.length > 0 && <figure><figcaption>what trained nothing</figcaption><Counts counts={data.left_out} /></figure>}
        </div>
      </Section>
    </>
  )
}

function Gained({ page }: { page: TrainingPage }) {
  const { gained } = page
  if (gained === null) return null
  return <span>held-out accuracy {percent(gained.before)} → {percent(gained.after)} %, <strong>{points(gained.difference)}</strong>{gained.interval && ` (${points(gained.interval[0])} to ${points(gained.interval[1])})`}, p {pvalue(gained.p)}</span>
}

function Matrix({ league }: { league: League }) {
  const cell = new Map(league.cells.map((found) => [`${found.one},${found.other}`, found]))
  return (
    <div className="wide">
      <table className="matrix">
        <thead><tr><th scope="col">player</th><th scope="col" className="n">rating</th><th scope="col" className="n">games</th>{league.players.map((player, i) => <th scope="col" key={i} className="n" title={player.name}>{i + 1}</th>)}</tr></thead>
        <tbody>
          {league.players.map((player, one) => (
            <tr key={one}>
              <th scope="row"><span className="quiet">{one + 1}</span> <Chars text={player.name} /></th>
              <td className="n">{player.mu === null ? '–' : number(player.mu)}{player.sigma !== null && <span className="quiet"> ± {number(player.sigma)}</span>}</td>
              <td className="n">{whole(player.games)}</td>
              {league.players.map((_, other) => {
                const found = cell.get(`${one},${other}`)
                return <td key={other} className="n heat" style={found && { background: `color-mix(in oklab, var(--${found.score >= 0.5 ? 'line-1' : 'line-2'}) ${Math.round(70 * Math.abs(found.score - 0.5))}%, transparent)` }} title={found && `${found.games} games`}>{found ? percent(found.score, 0) : one === other ? '' : '·'}</td>
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
