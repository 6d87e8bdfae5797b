// The list of a run's episodes under a filter: the rows in view are in the page, a hundred at a time are asked for.
import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useRef, useState } from 'react'
import { duration, whole } from '../lib/format'
import { Link, go } from '../lib/router'
import { api, FILTERS, SORTS, to, type Choice } from '../lib/routes'
import { ask, exported, useAsk, useWhile } from '../lib/source'
import type { EpisodeRow, EpisodesPage, FilterCount } from '../records'
import { Chars, Line, Sign, Stale, WORDS } from './Basics'

const PAGE = 100

export function Filters({ run, choice, counts, looking }: { run: string; choice: Choice; counts: FilterCount[]; looking: boolean }) {
  const n = (filter: string) => counts.find((count) => count.filter === filter)?.n
  const [task, setTask] = useState(choice.task)
  useEffect(() => setTask(choice.task), [choice.task])
  if (exported) return null
  return (
    <div className="filters">
      <div className="chips" role="group" aria-label="Which episodes">
        {FILTERS.filter((filter) => filter === 'all' || filter === choice.filter || n(filter)).map((filter) => (
          <Link key={filter} to={to.run(run, { ...choice, filter })} replace className="chip" aria-current={choice.filter === filter ? 'true' : undefined}>
            {filter} {n(filter) !== undefined && <span className="n">{whole(n(filter))}</span>}
          </Link>
        ))}
        {looking && <span className="quiet" role="status">looking through the turns…</span>}
      </div>
      <label className="quiet">order <select value={choice.sort} onChange={(event) => go(to.run(run, { ...choice, sort: event.target.value as Choice['sort'] }), true)}>
        {SORTS.map((sort) => <option key={sort} value={sort}>{sort === 'position' ? 'as in the run' : sort === 'tokens' ? 'most tokens' : sort}</option>)}
      </select></label>
      <form onSubmit={(event) => { event.preventDefault(); go(to.run(run, { ...choice, task }), true) }}>
        <input id="find" type="search" placeholder="task" aria-label="Task whose id holds" value={task} onChange={(event) => { setTask(event.target.value); if (event.target.value === '') go(to.run(run, { ...choice, task: '' }), true) }} />
      </form>
    </div>
  )
}

export function Episodes({ run, choice }: { run: string; choice: Choice }) {
  const first = useAsk<EpisodesPage>(api.episodes(run, choice, 0, PAGE), (key) => key === run)
  useWhile(first.data !== null && first.data.looked < first.data.episodes, first.again)
  const [more, setMore] = useState<Map<number, EpisodeRow[]>>(new Map())
  const box = useRef<HTMLDivElement>(null)
  const total = first.data?.total ?? 0
  const list = useVirtualizer({ count: total, getScrollElement: () => box.current, estimateSize: () => 34, overscan: 12 })
  const seen = list.getVirtualItems()
  const wanted = [...new Set(seen.map((item) => Math.floor(item.index / PAGE)))].filter((page) => page > 0)
  const missing = wanted.find((page) => !more.has(page))

  useEffect(() => setMore(new Map()), [run, choice.filter, choice.sort, choice.task, first.data])
  useEffect(() => {
    if (missing === undefined) return
    const stop = new AbortController()
    ask<EpisodesPage>(api.episodes(run, choice, missing * PAGE, PAGE), stop.signal).then(
      (page) => setMore((was) => new Map(was).set(missing, page.rows)),
      () => undefined,
    )
    return () => stop.abort()
  }, [missing, run, choice.filter, choice.sort, choice.task, more])

  const row = (index: number) => (index < PAGE ? first.data?.rows[index] : more.get(Math.floor(index / PAGE))?.[index % PAGE])
  if (first.data !== null && total === 0) return <p className="waiting">{first.data.episodes ? 'No episode is of this kind.' : 'No episode is stored yet.'}</p>
  return (
    <>
      <Stale problem={first.problem} />
      <div className="episodes">
        <div className="erow elabels" aria-hidden>
          {['no.', 'verdict', 'task', 'answer', 'calls', 'tokens', 'time'].map((name) => <span key={name} className={['no.', 'calls', 'tokens', 'time'].includes(name) ? 'n' : undefined}>{name}</span>)}
        </div>
        <div className="elist" ref={box} style={{ height: `min(${34 * total + 1}px, 58vh)` }}>
          <ul style={{ height: list.getTotalSize() }} aria-label="Episodes">
            {seen.map((item) => {
              const episode = row(item.index)
              return <li key={item.key} aria-setsize={total} aria-posinset={item.index + 1} style={{ height: item.size, transform: `translateY(${item.start}px)` }}>{episode ? <Row run={run} episode={episode} choice={choice} /> : <span className="quiet">…</span>}</li>
            })}
          </ul>
        </div>
      </div>
    </>
  )
}

function Row({ run, episode, choice }: { run: string; episode: EpisodeRow; choice: Choice }) {
  return (
    <Link to={to.episode(run, episode.position, choice)} className="erow">
      <span className="n quiet">{episode.position + 1}</span>
      <span className="vcell"><Sign mark={episode.status} /><span className="vword">{WORDS[episode.status]}</span></span>
      <span className="task"><Line text={episode.question} /> <span className="quiet"><Chars text={episode.task} />{episode.sample > 0 && ` · sample ${episode.sample + 1}`}</span></span>
      <span className="outcome">
        {episode.failure !== null ? <span className="lost"><Chars text={episode.failure} /></span> : (
          <>
            {episode.turned && <span className={`turned ${episode.turned === 'to right' ? 'correct' : 'incorrect'}`} title={`most answered ${episode.opening ?? 'something else'} in the opening round`}>{episode.turned === 'to right' ? '↗' : '↘'} {episode.turned}</span>}
            {!episode.turned && episode.disagreement && <span className="tag">disagreement</span>}
            <span className="ans">{episode.answer ? <Line text={episode.answer} /> : <span className="quiet">no answer</span>}</span>
          </>
        )}
      </span>
      <span className="n">{episode.calls}</span>
      <span className="n">{whole(episode.tokens)}</span>
      <span className="n">{duration(episode.seconds)}</span>
    </Link>
  )
}
