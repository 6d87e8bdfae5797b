// Runs in a table: sorted by a click on a heading, several ticked to be compared.
import { useMemo, useState } from 'react'
import { compact, dollars, duration, interval, percent, when, whole } from '../lib/format'
import { Link, go } from '../lib/router'
import { to } from '../lib/routes'
import { exported, holds } from '../lib/source'
import type { RunRow } from '../records'
import { Chars } from './Basics'

type Value = string | number | null
interface Column {
  name: string
  title: string
  value: (run: RunRow) => Value
  show: (run: RunRow) => React.ReactNode
  number?: boolean
}

const COLUMNS: Column[] = [
  { name: 'run', title: 'Name of its folder', value: (run) => run.name, show: (run) => <Name run={run} /> },
  { name: 'topology', title: 'How they speak', value: (run) => run.topology, show: (run) => <bdi className="model" title={run.topology}><Chars text={run.topology} /></bdi> },
  { name: 'env', title: 'What is asked', value: (run) => run.env, show: (run) => <><Chars text={run.env} />{run.split && run.split !== 'test' && <span className="quiet"> <Chars text={run.split} /></span>}</> },
  { name: 'model', title: 'Who speaks', value: (run) => run.model, show: (run) => <bdi className="model" title={run.model}><Chars text={run.model} /></bdi> },
  { name: 'accuracy %', title: 'Mean over tasks, with its 95 % interval', value: (run) => run.accuracy, show: (run) => <Accuracy run={run} />, number: true },
  { name: 'calls', title: 'Model calls an episode', value: (run) => run.calls, show: (run) => (run.calls === null ? '–' : run.calls.toFixed(1)), number: true },
  { name: 'tokens', title: 'Prompt and completion tokens an episode', value: (run) => run.tokens, show: (run) => whole(run.tokens), number: true },
  { name: 'cost', title: 'US dollars in all, where prices are known', value: (run) => run.cost, show: (run) => dollars(run.cost), number: true },
  { name: 'time', title: 'Of the whole run', value: (run) => run.seconds, show: (run) => duration(run.seconds), number: true },
  { name: 'episodes', title: 'Stored; of a training its updates, of a sweep its runs', value: (run) => run.episodes, show: (run) => <Progress run={run} />, number: true },
  { name: 'created', title: 'When it began', value: (run) => run.created ?? '', show: (run) => <span className="nowrap">{when(run.created)}</span> },
]

export function RunsTable({ runs, empty }: { runs: RunRow[]; empty: React.ReactNode }) {
  const [ticked, setTicked] = useState<string[]>([])
  const [by, setBy] = useState<{ column: number; down: boolean } | null>(null)
  const [shown, setShown] = useState(200)
  const sorted = useMemo(() => (by === null ? runs : sort(runs, COLUMNS[by.column]!, by.down)), [runs, by])
  const costs = runs.some((run) => run.cost !== null)
  const columns = COLUMNS.map((column, i) => ({ ...column, i })).filter((column) => costs || column.name !== 'cost')
  const there = ticked.filter((key) => runs.some((run) => run.key === key))
  if (runs.length === 0) return <div className="waiting">{empty}</div>
  const tick = (key: string, on: boolean) => setTicked((was) => (on ? [...was, key] : was.filter((other) => other !== key)))
  return (
    <>
      <div className="wide">
        <table className="runs">
          <thead>
            <tr>
              {!exported && <th scope="col" className="tick"><span className="unseen">Compare</span></th>}
              {columns.map(({ name, title, number, i }) => (
                <th scope="col" key={name} className={number ? 'n' : undefined} aria-sort={by?.column === i ? (by.down ? 'descending' : 'ascending') : undefined}>
                  <button className="sorter" title={title} onClick={() => setBy(by?.column === i ? (by.down === !!number ? { column: i, down: !by.down } : null) : { column: i, down: !!number })}>
                    {name}<span aria-hidden>{by?.column === i ? (by.down ? ' ↓' : ' ↑') : ''}</span>
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {sorted.slice(0, shown).map((run) => (
              <tr key={run.key} className={there.includes(run.key) ? 'ticked' : undefined}>
                {!exported && (
                  <td className="tick">
                    <input type="checkbox" disabled={run.kind !== 'run'} checked={there.includes(run.key)} onChange={(event) => tick(run.key, event.target.checked)} aria-label={`compare ${run.name}`} />
                  </td>
                )}
                {columns.map((column) => <td key={column.name} data-label={column.name} className={column.number ? 'n' : undefined}>{column.show(run)}</td>)}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {sorted.length > shown && <p className="more"><button onClick={() => setShown(shown + 500)}>Show {Math.min(500, sorted.length - shown)} more of {whole(sorted.length)}</button></p>}
      {there.length > 0 && (
        <div className="picked" role="region" aria-label="Picked runs">
          <span>{there.length} picked</span>
          <button className="primary" disabled={there.length < 2} onClick={() => go(to.compare(there))}>{there.length < 2 ? 'Pick another to compare' : `Compare ${there.length} runs`}</button>
          <button onClick={() => setTicked([])}>Clear</button>
        </div>
      )}
    </>
  )
}

function sort(runs: RunRow[], column: Column, down: boolean): RunRow[] {
  const order = (a: RunRow, b: RunRow) => {
    const [one, other] = [column.value(a), column.value(b)]
    if (one === null || other === null) return one === other ? 0 : one === null ? 1 : -1
    const found = typeof one === 'number' && typeof other === 'number' ? one - other : String(one).localeCompare(String(other), 'en', { numeric: true })
    return down ? -found : found
  }
  return [...runs].sort(order)
}

function Name({ run }: { run: RunRow }) {
  return (
    <span className="runname">
      {holds(run.key) ? <Link to={to.run(run.key)}><bdi><Chars text={run.name} /></bdi></Link> : <bdi><Chars text={run.name} /></bdi>}
      {run.kind !== 'run' && <span className="tag">{run.kind}</span>}
      {run.fork && <span className="tag" title={run.fork.changes.join('; ')}>fork</span>}
      <RunState run={run} />
      {run.problems.length > 0 && <span className="tag warn" title={run.problems.map((problem) => `${problem.where}: ${problem.what}`).join('\n')}>damaged</span>}
    </span>
  )
}

export function RunState({ run }: { run: RunRow }) {
  if (run.state === 'ended') return null
  return <span className={`state ${run.state.replace(' ', '-')}`}>{run.state}</span>
}

export function Accuracy({ run, wide = false }: { run: Pick<RunRow, 'accuracy' | 'interval'>; wide?: boolean }) {
  const width = wide ? 160 : 64
  const at = (share: number) => 2 + share * (width - 4)
  return (
    <span className="accuracy">
      {run.accuracy !== null && (
        <svg width={width} height="14" viewBox={`0 0 ${width} 14`} aria-hidden>
          <path d={`M2 7H${width - 2}`} className="rail" />
          {run.interval && <path d={`M${at(run.interval[0])} 7H${at(run.interval[1])}`} className="range" />}
          <circle cx={at(run.accuracy)} cy="7" r="3" className="dot" />
        </svg>
      )}
      <span className="figure">{percent(run.accuracy)}</span>
      <span className="range-text">{interval(run.interval)}</span>
    </span>
  )
}

function Progress({ run }: { run: RunRow }) {
  const lost = [[run.failed, 'failed'], [run.unscorable, 'unscorable'], [run.unparsed, 'unparsed']] as const
  const words = lost.filter(([n]) => n > 0).map(([n, word]) => `${n} ${word}`)
  const partly = run.planned !== null && run.planned !== run.episodes
  return (
    <span className="progress" title={words.join(', ') || undefined}>
      {whole(run.episodes)}{partly && <span className="quiet"> / {whole(run.planned)}</span>}
      {run.failed > 0 && <span className="lost"> {compact(run.failed)} failed</span>}
      {partly && run.state !== 'cut short' && <progress value={run.episodes} max={run.planned ?? undefined} aria-label="episodes stored" />}
    </span>
  )
}
