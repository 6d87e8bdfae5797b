import { Bins, Counts, Votes } from '../parts/Bars'
import { Pairs, Problems, Section, Stale, Waiting, Chars } from '../parts/Basics'
import { Episodes, Filters } from '../parts/Episodes'
import { Grid } from '../parts/Grid'
import { Accuracy, RunState, RunsTable } from '../parts/RunsTable'
import { Training } from '../parts/Training'
import { duration, whole } from '../lib/format'
import { useKeys } from '../lib/keys'
import { go, Link } from '../lib/router'
import { api, nameOf, parentOf, to, type Choice } from '../lib/routes'
import { exported, useAsk, useWhile } from '../lib/source'
import type { Fork, RunPage as Run, RunRow, RunsPage } from '../records'

export function RunPage({ run, choice }: { run: string; choice: Choice }) {
  const parent = parentOf(run)
  useKeys({ u: () => go(parent === null ? to.runs() : to.run(parent)), '/': () => document.getElementById('find')?.focus() })
  // What it is says the list that holds it: a training and a sweep have no episodes of their own.
  const list = useAsk<RunsPage>(exported?.run ? null : api.runs(parent), (key) => key === run)
  const row = exported?.run?.run ?? list.data?.runs.find((other) => other.key === run)
  if (row === undefined && list.data === null && list.problem === null) return <div className="page"><Waiting problem={null} what={nameOf(run)} /></div>
  if (row === undefined || row.kind === 'run') return <Single run={run} choice={choice} />
  return (
    <div className="page">
      <Head run={row} unread={0} />
      {exported && <LeftOut />}
      <Problems problems={row.problems} />
      {row.kind === 'training' && <Training run={run} />}
      <Inside run={run} kind={row.kind} />
    </div>
  )
}

function Single({ run, choice }: { run: string; choice: Choice }) {
  const { data, problem, again } = useAsk<Run>(api.run(run), (key) => key === run)
  useWhile(data !== null && data.looked < data.run.episodes, again)
  if (data === null) return <div className="page"><Waiting problem={problem} what={`run ${nameOf(run)}`} again={again} /></div>
  return (
    <div className="page run-page">
      <Head run={data.run} unread={data.unread} />
      <Stale problem={problem} />
      {exported && <LeftOut />}
      <Problems problems={[...data.run.problems, ...data.problems]} />
      <Played page={data} choice={choice} />
      <Section title="Configuration">
        <div className="columns">
          {data.seats.length > 0 && <Pairs pairs={data.seats.map((seat) => [seat.role, <><Chars text={seat.model} />{seat.settings.map(([key, value]) => <div key={key} className="quiet"><Chars text={`${key} ${value}`} /></div>)}</>])} />}
          <Pairs pairs={[...data.settings, ...data.versions.map(([name, version]): [string, string] => [name, version])]} />
          <Pairs pairs={[['digest', data.digest ?? '–'], ['changed', new Date(1000 * data.run.changed).toLocaleString()]]} />
        </div>
        <details><summary>config.json</summary><pre className="text code" tabIndex={0}><Chars text={data.config} /></pre></details>
      </Section>
    </div>
  )
}

export function LeftOut() {
  if (!exported) return null
  return (
    <div className="note" role="note">
      <strong><Chars text={exported.title} /></strong> <span className="quiet">made {exported.made}</span>
      {exported.left_out.length > 0 && <ul>{exported.left_out.map((words, i) => <li key={i}><Chars text={words} /></li>)}</ul>}
    </div>
  )
}

function Head({ run, unread }: { run: RunRow; unread: number }) {
  return (
    <header className="head">
      <h1><Chars text={run.name} /></h1>
      {run.kind !== 'run' && <span className="tag">{run.kind}</span>}
      <RunState run={run} />
      <span className="sub"><Chars text={[run.topology, run.env && `on ${run.env}`, run.model].filter(Boolean).join(' · ')} />{run.seed !== null && ` · seed ${run.seed}`}</span>
      {run.fork && <ForkOf fork={run.fork} />}
      <dl className="facts">
        <div><dt>accuracy %</dt><dd><Accuracy run={run} wide /></dd></div>
        <div><dt>{run.kind === 'training' ? 'updates' : run.kind === 'sweep' ? 'runs' : 'episodes'}</dt><dd>{whole(run.episodes)}{run.planned !== null && run.planned !== run.episodes && <span className="quiet"> / {whole(run.planned)}</span>}</dd></div>
        {run.calls !== null && <div><dt>calls an episode</dt><dd>{run.calls.toFixed(1)}</dd></div>}
        {run.tokens !== null && <div><dt>tokens an episode</dt><dd>{whole(run.tokens)}</dd></div>}
        {run.cost !== null && <div><dt>cost</dt><dd>${run.cost.toFixed(2)}</dd></div>}
        <div><dt>time</dt><dd>{duration(run.seconds)}</dd></div>
        {unread > 0 && <div><dt>replies not readable</dt><dd>{whole(unread)}</dd></div>}
      </dl>
    </header>
  )
}

function ForkOf({ fork }: { fork: Fork }) {
  const name = `${nameOf(fork.run)}, episode ${fork.position + 1}, ${fork.turn}`
  return <span className="forkof">fork of {exported ? <Chars text={name} /> : <Link to={to.episode(fork.run, fork.position, undefined, fork.turn)}><Chars text={name} /></Link>} <span className="quiet"><Chars text={fork.changes.join('; ')} /></span></span>
}

function Played({ page, choice }: { page: Run; choice: Choice }) {
  const { run } = page
  const looking = page.looked < run.episodes
  const histograms = [['calls an episode', page.calls, ''], ['tokens an episode', page.tokens, ''], ['time of an episode', page.seconds, 's'], ['scores', page.scores, '']] as const
  return (
    <>
      <div className="two">
        <Section title="Outcomes" aside={`${whole(page.tasks)} tasks × ${page.samples}`}>
          {(!exported || exported.answers[gridOf(run.key)] !== undefined) && <Grid run={run.key} tasks={page.tasks} samples={page.samples} choice={choice} />}
          <Counts counts={page.statuses} signs />
        </Section>
        <Section title="Episodes" aside={!exported && page.forks.length > 0 && <>forks: {page.forks.slice(0, 5).map((fork) => <Link key={fork.run} to={to.run(fork.run)}><Chars text={nameOf(fork.run)} /> </Link>)}</>}>
          <Filters run={run.key} choice={choice} counts={page.filters} looking={looking} />
          <Episodes run={run.key} choice={choice} />
        </Section>
      </div>
      <Section title="Distributions" aside={looking ? `votes of ${whole(page.looked)} of ${whole(run.episodes)} episodes so far` : undefined}>
        <div className="columns">
          <figure><figcaption>how episodes ended</figcaption><Counts counts={page.stop_reasons} /></figure>
          {page.opening_votes.length > 0 && <Votes title="agreement in the opening round" votes={page.opening_votes} />}
          {page.last_votes.length > 0 && <Votes title="agreement of last answers" votes={page.last_votes} />}
          {histograms.map(([title, histogram, unit]) => histogram && <Bins key={title} title={title} histogram={histogram} unit={unit} />)}
          {page.rewards.map((histogram) => <Bins key={histogram.label} title={`reward of ${histogram.label}`} histogram={histogram} />)}
        </div>
      </Section>
    </>
  )
}

function Inside({ run, kind }: { run: string; kind: string }) {
  const { data, problem } = useAsk<RunsPage>(api.runs(run), () => true)
  if (exported && data === null) return null
  return (
    <Section title={kind === 'training' ? 'Rollouts and measurements' : 'Runs'} aside={data ? whole(data.runs.length) : undefined}>
      <Stale problem={problem} />
      {data && <><Problems problems={data.problems} /><RunsTable runs={data.runs} empty="None yet." /></>}
    </Section>
  )
}

const gridOf = (run: string) => api.grid(run, 0, 0).split('?')[0]!
