// An episode: its problem and outcome, the graph of its turns and their time line, and the transcript beside them.
import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from 'react'
import { duration, whole } from '../lib/format'
import { useKeys } from '../lib/keys'
import { warm } from '../lib/layout'
import { go, Link } from '../lib/router'
import { ALL, api, nameOf, to, type Choice } from '../lib/routes'
import { ask, exported, useAsk, useWhile } from '../lib/source'
import type { EpisodePage as Episode, EpisodesPage } from '../records'
import { Against } from '../parts/Against'
import { Chars, Pairs, Problems, Sign, Stale, Verdict, Waiting, WORDS } from '../parts/Basics'
import { ForkDialog } from '../parts/ForkDialog'
import { ClippedText } from '../parts/LongText'
import { Replay, unfolding } from '../parts/Replay'
import { organised, Rounds } from '../parts/Rounds'
import { Timeline } from '../parts/Timeline'
import { Transcript } from '../parts/Transcript'
import { TurnGraph } from '../parts/TurnGraph'
import type { Panel } from '../parts/TurnCard'
import { LeftOut } from './RunPage'

interface Props { run: string; position: number; turn: string | null; choice: Choice }

export function EpisodePage(props: Props) {
  const { run, position, choice } = props
  useEffect(warm, [])
  const { data, problem, again } = useAsk<Episode>(api.episode(run, position, choice), (key) => key === run)
  // Which episodes are of a kind may not be known yet: the server looks through a long run's turns for a while.
  const behind = data !== null && data.place === null && choice.filter !== 'all' && !exported
  const looking = useAsk<EpisodesPage>(behind ? api.episodes(run, choice, 0, 1) : null)
  useWhile(behind && looking.data !== null && looking.data.looked < looking.data.episodes, looking.again)
  useEffect(() => { if (behind && looking.data !== null) again() }, [behind, looking.data?.looked, again])
  // The episode that was read last stays in sight until the next is there.
  const [last, setLast] = useState<Episode | null>(null)
  useEffect(() => {
    if (data === null) return
    setLast(data)
    // The next is asked for before it is wanted.
    if (!exported && data.next !== null) void ask(api.episode(run, data.next, choice)).catch(() => undefined)
  }, [data, run, choice.filter, choice.sort, choice.task])
  const shown = data ?? (problem === null && last?.run === run ? last : null)
  if (shown === null) return <div className="page"><Waiting problem={problem} what={`episode ${position + 1} of ${nameOf(run)}`} again={again} /></div>
  return <Shown key={`${shown.run} ${shown.position}`} {...props} position={shown.position} episode={shown} problem={problem} />
}

type View = 'transcript' | 'graph' | 'rounds' | 'parent' | 'about'
const NARROW = matchMedia('(max-width: 860px)')
const useNarrow = () => useSyncExternalStore((hear) => (NARROW.addEventListener('change', hear), () => NARROW.removeEventListener('change', hear)), () => NARROW.matches)

function Shown({ run, position, turn, choice, episode, problem }: Props & { episode: Episode; problem: string | null }) {
  const narrow = useNarrow()
  const [view, setView] = useState<View>(narrow ? 'transcript' : episode.parent ? 'parent' : 'graph')
  const [open, setOpen] = useState<Map<string, readonly Panel[]>>(new Map())
  const [forking, setForking] = useState<string | null>(null)
  const [at, setAt] = useState<number | null>(null)
  const [playing, setPlaying] = useState(false)
  const order = useMemo(() => unfolding(episode.turns), [episode])
  const unfolded = useMemo(() => (at === null ? null : new Set(order.slice(0, at))), [at, order])
  const selected = episode.turns.some((other) => other.id === turn) ? turn : null

  const select = useCallback((id: string) => go(to.episode(run, position, choice, id), true), [run, position, choice.filter, choice.sort, choice.task])
  const toggle = useCallback((id: string, panel: Panel) => setOpen((was) => {
    const now = was.get(id) ?? []
    return new Map(was).set(id, now.includes(panel) ? now.filter((other) => other !== panel) : [...now, panel])
  }), [])
  // A panel that was opened by its key may lie below the fold.
  const show = useCallback((id: string, panel: Panel) => {
    toggle(id, panel)
    setTimeout(() => document.querySelector('.turn.selected > .panel:last-child')?.scrollIntoView({ block: 'nearest' }), 120)
  }, [toggle])
  const scrub = useCallback((next: number | null) => {
    setAt(next)
    const id = next === null ? undefined : order[next - 1]
    if (id !== undefined) select(id)
  }, [order, select])
  useEpisodeKeys({ run, choice, episode, selected, select, toggle: show, fork: setForking, play: () => { if (!playing && (at ?? order.length) >= order.length) scrub(0); setPlaying(!playing) } })

  const views: [View, string][] = [
    ...(narrow ? [['transcript', 'Transcript'] as [View, string]] : []), ['graph', 'Graph'],
    ...(organised(episode.rounds) ? [['rounds', 'Who reads whom'] as [View, string]] : []),
    ...(episode.parent ? [['parent', 'Against its parent'] as [View, string]] : []), ['about', 'About'],
  ]
  const now = views.some(([name]) => name === view) ? view : 'graph'
  const transcript = <Transcript episode={episode} selected={selected} unfolded={unfolded} open={open} select={select} toggle={toggle} fork={setForking} />
  return (
    <div className="episode">
      <Head episode={episode} choice={choice} />
      <Stale problem={problem} />
      {turn !== null && selected === null && <div className="problems" role="alert">This episode has no turn <Chars text={turn} />.</div>}
      {exported && exported.left_out.length > 0 && <LeftOut />}
      <Problems problems={episode.problems} />
      <div className="panes">
        <div className="side">
          <div className="tabs" role="tablist" aria-label="Views">
            {views.map(([name, title]) => <button key={name} role="tab" id={`tab-${name}`} aria-selected={now === name} aria-controls="view" tabIndex={now === name ? 0 : -1} onClick={() => setView(name)} onKeyDown={(event) => tabKey(event, views.map(([other]) => other), name, setView)}>{title}</button>)}
          </div>
          <div className={`view ${now}`} role="tabpanel" id="view" aria-labelledby={`tab-${now}`}>
            {now === 'transcript' && transcript}
            {now === 'graph' && <><TurnGraph episode={episode} selected={selected} unfolded={unfolded} select={select} /><Timeline episode={episode} selected={selected} unfolded={unfolded} select={select} /></>}
            {now === 'rounds' && <Rounds rounds={episode.rounds} roles={episode.roles} />}
            {now === 'parent' && <Against run={run} position={position} select={select} />}
            {now === 'about' && <About episode={episode} />}
          </div>
          <Replay turns={episode.turns} order={order} at={at} playing={playing} setAt={scrub} setPlaying={setPlaying} />
        </div>
        {!narrow && transcript}
      </div>
      {forking !== null && <ForkDialog key={forking} episode={episode} turn={forking} close={() => setForking(null)} />}
    </div>
  )
}

function tabKey(event: React.KeyboardEvent, names: View[], name: View, set: (view: View) => void) {
  const step = event.key === 'ArrowRight' ? 1 : event.key === 'ArrowLeft' ? -1 : 0
  if (step === 0) return
  event.preventDefault()
  const next = names[(names.indexOf(name) + step + names.length) % names.length]!
  set(next)
  document.getElementById(`tab-${next}`)?.focus()
}

interface Keys { run: string; choice: Choice; episode: Episode; selected: string | null; select: (id: string) => void; toggle: (id: string, panel: Panel) => void; fork: (id: string) => void; play: () => void }

function useEpisodeKeys({ run, choice, episode, selected, select, toggle, fork, play }: Keys) {
  const ids = episode.turns.map((turn) => turn.id)
  const step = (by: number) => () => {
    const next = ids[selected === null ? (by > 0 ? 0 : ids.length - 1) : Math.min(ids.length - 1, Math.max(0, ids.indexOf(selected) + by))]
    if (next !== undefined) select(next)
  }
  const jump = (by: number) => () => {
    const next = nextOf(ids, episode.disagreements, selected, by)
    if (next !== null) select(next)
  }
  const visit = (position: number | null) => () => {
    if (position !== null) go(to.episode(run, position, choice))
  }
  const of = (act: (id: string) => void) => () => {
    const id = selected ?? ids[0]
    if (id === undefined) return
    if (selected === null) select(id)
    act(id)
  }
  useKeys({
    j: visit(episode.next), k: visit(episode.previous), ArrowDown: step(1), ArrowRight: step(1), ArrowUp: step(-1), ArrowLeft: step(-1),
    Home: () => ids[0] !== undefined && select(ids[0]), End: () => ids.length > 0 && select(ids.at(-1)!), d: jump(1), D: jump(-1), ' ': play,
    p: of((id) => toggle(id, 'prompt')), t: of((id) => toggle(id, 'tokens')), c: of((id) => toggle(id, 'changes')),
    f: exported ? undefined : of(fork), u: () => go(to.run(run, choice)),
  })
}

/** The next of `some` after (before) the selected one in the order of all; the first when none is selected. */
export function nextOf(all: string[], some: string[], selected: string | null, by: number): string | null {
  const here = selected === null ? (by > 0 ? -1 : all.length) : all.indexOf(selected)
  const places = some.map((id) => all.indexOf(id)).filter((place) => place >= 0).sort((a, b) => a - b)
  const next = by > 0 ? places.find((place) => place > here) : places.findLast((place) => place < here)
  return next === undefined ? null : all[next]!
}

function Head({ episode, choice }: { episode: Episode; choice: Choice }) {
  const { task } = episode
  const [all, setAll] = useState(false)
  const samples = [...episode.siblings, { position: episode.position, sample: episode.sample, status: episode.status }].sort((a, b) => a.sample - b.sample)
  const long = task.question.length > 160 || task.question.text.includes('\n')
  const tokens = episode.turns.reduce((sum, turn) => sum + turn.prompt_tokens + turn.completion_tokens, 0)
  return (
    <header className="ehead">
      <h1 className="unseen"><Chars text={nameOf(episode.run)} />, episode {episode.position + 1}</h1>
      <div className="outcome">
        <Verdict status={episode.status} />
        <span className="final">{episode.failure !== null ? <span className="lost"><Chars text={episode.failure} /></span> : episode.answer ? <bdi className="bigans"><Chars text={episode.answer.text.slice(0, 120)} /></bdi> : <span className="quiet">no answer</span>}</span>
        {task.answers.length > 0 && !episode.reason.includes('expected') && <span className="quiet expected">expected <bdi><Chars text={task.answers.join(' or ').slice(0, 120)} /></bdi></span>}
        {episode.stop_reason && <span className="tag" title="how it ended"><Chars text={episode.stop_reason} /></span>}
        {episode.reason && <span className="quiet"><Chars text={episode.reason} /></span>}
        <span className="quiet figures">{[`${episode.turns.length} ${episode.turns.length === 1 ? 'call' : 'calls'}`, tokens > 0 && `${whole(tokens)} tokens`, episode.seconds > 0 && duration(episode.seconds)].filter(Boolean).join(' · ')}</span>
      </div>
      <nav className="steps" aria-label="Episodes">
        {samples.length > 1 && <span className="siblings" aria-label="Samples of the task">{samples.slice(0, 16).map((other) => <Link key={other.position} to={to.episode(episode.run, other.position, choice)} aria-current={other.position === episode.position ? 'page' : undefined} title={`sample ${other.sample + 1}: ${WORDS[other.status]}`} aria-label={`sample ${other.sample + 1}: ${WORDS[other.status]}`}><Sign mark={other.status} /></Link>)}</span>}
        {episode.previous !== null ? <Link to={to.episode(episode.run, episode.previous, choice)} aria-label="Previous episode" title="previous (k)">‹</Link> : <span aria-hidden>‹</span>}
        <span className="n">{episode.place === null ? '–' : whole(episode.place + 1)} of {whole(episode.total)}{choice.filter !== 'all' && ` ${choice.filter}`}</span>
        {episode.next !== null ? <Link to={to.episode(episode.run, episode.next, choice)} aria-label="Next episode" title="next (j)">›</Link> : <span aria-hidden>›</span>}
      </nav>
      <div className={`question ${all ? 'all' : ''}`}>
        <span className="quiet"><Chars text={task.id} />{episode.sample > 0 && ` · sample ${episode.sample + 1}`}</span>{' '}
        {all ? <ClippedText text={task.question} path={api.question(episode.run, episode.position)} /> : <bdi><Chars text={task.question.text.slice(0, 400)} /></bdi>}
        {long && <button className="linklike" aria-expanded={all} onClick={() => setAll(!all)}>{all ? 'less' : 'all'}</button>}
      </div>
    </header>
  )
}

function About({ episode }: { episode: Episode }) {
  const forks = episode.forks.map((fork) => <div key={fork.run}><Link to={to.episode(fork.run, fork.position, ALL, fork.turn)}><Chars text={nameOf(fork.run)} /></Link> <span className="quiet">at <Chars text={`${fork.turn}: ${fork.changes.join('; ')}`} /></span></div>)
  return (
    <div className="about">
      <Pairs pairs={[
        ['topology', episode.topology], ['env', episode.env], ['task', episode.task.id], ['sample', String(episode.sample + 1)], ['score', episode.score === null ? '–' : String(episode.score)],
        ...(episode.parent ? [['forked from', <Link key="parent" to={to.episode(episode.parent.run, episode.parent.position, ALL, episode.parent.turn)}><Chars text={`${nameOf(episode.parent.run)}, ${episode.parent.turn}`} /></Link>] as [string, React.ReactNode]] : []),
        ...(forks.length && !exported ? [['forks', <>{forks}</>] as [string, React.ReactNode]] : []), ...(episode.credit ? [['rewards', episode.credit] as [string, string]] : []), ...episode.task.details,
      ]} />
      {episode.notes && <><h3>What the topology wrote down</h3><pre className="text code" tabIndex={0}><Chars text={episode.notes} /></pre></>}
    </div>
  )
}
