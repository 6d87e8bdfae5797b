import { useState } from 'react'
import { whole } from '../lib/format'
import { useKeys } from '../lib/keys'
import { api } from '../lib/routes'
import { useAsk } from '../lib/source'
import type { RunsPage as Runs } from '../records'
import { Problems, Stale, Waiting } from '../parts/Basics'
import { RunsTable } from '../parts/RunsTable'

export function RunsPage() {
  const { data, problem, again } = useAsk<Runs>(api.runs(null), () => true)
  const [words, setWords] = useState('')
  useKeys({ '/': () => document.getElementById('find')?.focus() })
  if (data === null) return <div className="page"><Waiting problem={problem} what="the runs" again={again} /></div>
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean)
  const runs = data.runs.filter((run) => {
    const text = [run.name, run.topology, run.env, run.model, run.kind, run.state, run.fork ? 'fork' : ''].join(' ').toLowerCase()
    return wanted.every((word) => text.includes(word))
  })
  return (
    <div className="page">
      <header className="head">
        <h1>Runs</h1>
        <span className="quiet">{whole(data.runs.length)}</span>
        <input id="find" type="search" placeholder="Find by name, topology, env, model, state" aria-label="Find runs" value={words} onChange={(event) => setWords(event.target.value)} />
      </header>
      <Stale problem={problem} />
      <Problems problems={data.problems} />
      <RunsTable runs={runs} empty={data.runs.length ? 'No run has all of these words.' : <>There are no runs yet. In a terminal: <code>palaestra run vote --env arithmetic --tasks 20 --seed 7</code></>} />
    </div>
  )
}
