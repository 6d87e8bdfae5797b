import { useState } from 'react'
import { percent, points, pvalue, whole } from '../lib/format'
import { Link } from '../lib/router'
import { api, to } from '../lib/routes'
import { useAsk } from '../lib/source'
import type { ComparePage as Comparison } from '../records'
import { Chars, Problems, Section, Stale, Waiting } from '../parts/Basics'
import { Forest } from '../parts/Forest'
import { Scatter, type Cost } from '../parts/Scatter'
import { RunsTable } from '../parts/RunsTable'

export function ComparePage({ runs }: { runs: string[] }) {
  const { data, problem, again } = useAsk<Comparison>(runs.length ? api.compare(runs) : null, (key) => runs.includes(key))
  const [cost, setCost] = useState<Cost>('calls')
  if (runs.length === 0) return <div className="page"><p className="waiting">Pick runs in <Link to={to.runs()}>the list</Link>.</p></div>
  if (data === null) return <div className="page"><Waiting problem={problem} what="the comparison" again={again} /></div>
  const baseline = data.runs[0]
  const costs: Cost[] = ['calls', 'tokens', ...(['cost', 'seconds'] as const).filter((kind) => data.costs.some((point) => point[kind] !== null))]
  return (
    <div className="page">
      <header className="head"><h1>Comparison</h1>{baseline && <span className="sub">against <Link to={to.run(baseline.key)}><Chars text={baseline.name} /></Link>, paired by task</span>}</header>
      <Stale problem={problem} />
      <Problems problems={data.problems} />
      <div className="two even">
        <Section title="Differences in accuracy" aside="points, 95 % intervals">
          <Forest differences={data.differences} />
          <div className="wide">
            <table>
              <thead><tr><th scope="col">run</th>{['tasks', 'difference', '95 %', 'better : worse', 'p', 'Holm'].map((name) => <th scope="col" className="n" key={name}>{name}</th>)}</tr></thead>
              <tbody>
                {data.differences.map((row) => (
                  <tr key={row.key}>
                    <th scope="row"><Link to={to.run(row.key)}><Chars text={row.name} /></Link></th>
                    <td className="n">{whole(row.tasks)}</td><td className="n"><strong>{points(row.difference)}</strong></td>
                    <td className="n nowrap">{row.interval ? `${points(row.interval[0])} to ${points(row.interval[1])}` : '–'}</td>
                    <td className="n nowrap">{row.wins} : {row.losses}</td><td className="n" title={row.test}>{pvalue(row.p)}</td><td className="n">{pvalue(row.holm)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </Section>
        <Section title="Cost against accuracy" aside={<span role="group" aria-label="Cost in">{costs.map((kind) => <button key={kind} className="chip" aria-pressed={cost === kind} onClick={() => setCost(kind)}>{kind}</button>)}</span>}>
          <Scatter points={data.costs} cost={cost} />
        </Section>
      </div>
      <Section title="Tasks on which they differ" aside={data.total_differing > data.differing.length ? `the ${data.differing.length} that differ most of ${whole(data.total_differing)}` : whole(data.total_differing)}>
        {data.differing.length === 0 ? <p className="waiting">On no task.</p> : (
          <div className="wide tall">
            <table className="differing">
              <thead><tr><th scope="col">task</th>{data.runs.map((run) => <th scope="col" key={run.key} className="n"><Chars text={run.name} /></th>)}</tr></thead>
              <tbody>
                {data.differing.map((row) => (
                  <tr key={row.task}>
                    <th scope="row"><Chars text={row.task} /></th>
                    {row.scores.map((score, i) => {
                      const [run, position] = [data.runs[i], row.positions[i]]
                      const text = score === null ? '–' : percent(score, 0)
                      return <td className="n" key={i}>{run && position !== null && position !== undefined ? <Link to={to.episode(run.key, position)} className={score === null ? 'quiet' : score >= 1 ? 'good' : score <= 0 ? 'bad' : ''}>{score === 1 ? '✓ ' : score === 0 ? '✗ ' : ''}{text}</Link> : text}</td>
                    })}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Section>
      <Section title="The runs"><RunsTable runs={data.runs} empty="" /></Section>
    </div>
  )
}
