// One turn in the transcript: who said what, what it came to, and on demand its prompt, its tokens and what it changed.
import { memo, useState } from 'react'
import { duration, nats, number, signed, whole } from '../lib/format'
import { api } from '../lib/routes'
import { exported } from '../lib/source'
import { segments, verb, type Segment } from '../lib/replies'
import type { EpisodePage, Step, ToolCallView, TurnView } from '../records'
import { Answer, Chars, Clip, markOf, Pairs, Sign } from './Basics'
import { DiffView } from './DiffView'
import { useWhole, WholeText } from './LongText'
import { Prompt } from './Prompt'
import { Tokens } from './Tokens'

export type Panel = 'prompt' | 'tokens' | 'changes' | 'details'
const PANELS: Panel[] = ['prompt', 'tokens', 'changes', 'details']

export interface CardProps {
  episode: EpisodePage
  turn: TurnView
  selected: boolean
  folded: boolean
  open: readonly Panel[]
  select: (id: string) => void
  toggle: (id: string, panel: Panel) => void
  fork: ((id: string) => void) | null
}

export const TurnCard = memo(function TurnCard({ episode, turn, selected, folded, open, select, toggle, fork }: CardProps) {
  const before = episode.turns.find((other) => other.id === turn.previous)
  const shown = PANELS.filter((panel) => (panel === 'changes' ? before !== undefined : panel !== 'tokens' || turn.tokens > 0))
  return (
    <article className={`turn ${selected ? 'selected' : ''} ${folded ? 'folded' : ''}`} aria-label={`turn ${turn.id}`} aria-current={selected ? 'true' : undefined}>
      <header>
        <button className="who" onClick={() => select(turn.id)} title={turn.id}><bdi><Chars text={turn.role} /></bdi></button>
        <span className="verb"><Chars text={verb(turn.move)} /></span>
        {turn.retry && <span className="tag warn">asked again</span>}
        {turn.replayed && <span className="tag">as in the parent</span>}
        <Reads turn={turn} select={select} />
        <span className="came">{turn.answer !== null && <Answer text={turn.answer} mark={markOf(turn.right)} />}</span>
      </header>
      {turn.mind && <Mind mind={turn.mind} select={select} after={turn.answer} />}
      {turn.failure !== null && <p className="unread"><Sign mark="unparsed" named /> not readable: expected <Chars text={turn.failure} /></p>}
      {folded ? null : <Reply episode={episode} turn={turn} select={select} />}
      {!folded && turn.tool_calls.map((call, i) => <ToolCall key={i} call={call} />)}
      <footer>
        <span className="figures">
          {turn.prompt_tokens + turn.completion_tokens > 0 && <span title="prompt + completion tokens">{whole(turn.prompt_tokens)} + {whole(turn.completion_tokens)} tokens</span>}
          {turn.answered_s > turn.asked_s && <span title="from asked to answered">{duration(turn.answered_s - turn.asked_s)}</span>}
          {turn.mean_logprob !== null && <span title="mean log-probability of a token, nats">{nats(turn.mean_logprob)} nats</span>}
          {turn.contribution !== null && <span title="what the topology measured of this reply">contribution {number(turn.contribution)}</span>}
          {turn.reward !== null && <span className="reward" title={turn.rewards.map(([term, value]) => `${term} ${number(value)}`).join(', ')}>reward {signed(turn.reward)}</span>}
          {turn.advantage !== null && <span className="reward">advantage {signed(turn.advantage)}</span>}
          {turn.finish !== 'stop' && <span className="tag warn" title="how sampling ended"><Chars text={turn.finish} /></span>}
        </span>
        <span className="tools">
          {shown.map((panel) => <button key={panel} aria-expanded={open.includes(panel)} onClick={() => toggle(turn.id, panel)}>{panel}</button>)}
          {fork && !exported && <button onClick={() => fork(turn.id)}>fork</button>}
        </span>
      </footer>
      {open.includes('prompt') && <Prompt run={episode.run} position={episode.position} turn={turn.id} />}
      {open.includes('tokens') && <Tokens run={episode.run} position={episode.position} turn={turn.id} />}
      {open.includes('changes') && before && <DiffView before={before.reply.text} after={turn.reply.text} from={before.id} />}
      {open.includes('details') && <Details turn={turn} />}
    </article>
  )
})

function Reads({ turn, select }: { turn: TurnView; select: (id: string) => void }) {
  if (turn.reads.length === 0) return null
  return (
    <span className="reads">reads {turn.reads.slice(0, 8).map((id) => <button key={id} onClick={() => select(id)}><Chars text={id} /></button>)}{turn.reads.length > 8 && <span className="quiet">and {turn.reads.length - 8} more</span>}</span>
  )
}

function Mind({ mind, after, select }: { mind: NonNullable<TurnView['mind']>; after: string | null; select: (id: string) => void }) {
  const way = mind.turned === 'to right' ? 'correct' : mind.turned === 'to wrong' ? 'incorrect' : ''
  return (
    <p className={`mindchange ${way}`}>
      <span aria-hidden>↻</span> changed its mind: <button onClick={() => select(mind.since)} title={mind.since}><bdi><Chars text={mind.before.slice(0, 80)} /></bdi></button> → <bdi><Chars text={(after ?? '').slice(0, 80)} /></bdi>
      {mind.turned && <strong> {mind.turned === 'to right' ? '↗ to right' : '↘ to wrong'}</strong>}
    </p>
  )
}

function Reply({ episode, turn, select }: { episode: EpisodePage; turn: TurnView; select: (id: string) => void }) {
  const { whole: all, more } = useWhole(turn.reply, api.turn(episode.run, episode.position, turn.id, 'reply'))
  if (turn.reply.length === 0) return turn.tool_calls.length ? null : <p className="quiet">(an empty reply)</p>
  if (all !== null) return <><WholeText text={all} />{more}</>
  const cut = segments(turn.reply.text, turn.opening, turn.steps)
  if (turn.steps.length === 0 && turn.opening === 0) return <><WholeText text={turn.reply.text} />{more}</>
  return <><pre className="text" dir="auto">{cut.map((segment, i) => <Part key={i} segment={segment} last={cut[i + 1]?.step !== segment.step} select={select} />)}</pre>{more}</>
}

function Part({ segment, last, select }: { segment: Segment; last: boolean; select: (id: string) => void }) {
  const { step } = segment
  // Marks stand at the end of a step's own line, not before the next.
  const text = step === null ? segment.text : segment.text.trimEnd()
  const inside = <Chars text={text} />
  const said = segment.opening ? <span className="given" title="given, not sampled">{inside}</span> : inside
  if (step === null) return said
  return <><span className={`step ${verdictOf(step)}`}>{said}</span>{last && step.marks.map((mark, i) => <button key={i} className="mark" onClick={() => select(mark.turn)} title={`${mark.turn}: ${mark.correct === null ? 'not readable' : mark.correct ? 'the step is correct' : 'the step is incorrect'}`}><Sign mark={mark.correct === null ? 'unparsed' : mark.correct ? 'correct' : 'incorrect'} named /></button>)}{segment.text.slice(text.length)}</>
}

export function verdictOf(step: Step): '' | 'correct' | 'incorrect' | 'mixed' {
  const known = new Set(step.marks.map((mark) => mark.correct).filter((correct) => correct !== null))
  return known.size === 2 ? 'mixed' : known.has(true) ? 'correct' : known.has(false) ? 'incorrect' : ''
}

export function ToolCall({ call }: { call: ToolCallView }) {
  const [open, setOpen] = useState(false)
  return (
    <div className="toolcall">
      <button aria-expanded={open} onClick={() => setOpen(!open)}>⚒ <Chars text={call.name} /> <code><Chars text={call.arguments.text.slice(0, open ? undefined : 160)} /></code></button><Clip text={call.arguments} />
      {call.output && <pre className="text"><span className="quiet">→ </span><Chars text={open ? call.output.text : call.output.text.slice(0, 400)} />{!open && call.output.length > 400 && '…'}</pre>}
    </div>
  )
}

function Details({ turn }: { turn: TurnView }) {
  return (
    <div className="panel">
      <Pairs pairs={[
        ['turn', turn.id], ['policy', turn.policy], ['version', turn.version], ['round', String(turn.round)], ['asked after', `${turn.after} turns`],
        ['goes on from', turn.follows ?? '–'], ['temperature', number(turn.temperature)], ['top p', number(turn.top_p)], ['seed', turn.seed], ['finish', turn.finish],
        ['asked at', duration(turn.asked_s)], ['in the queue', duration(turn.queue_s)], ['in the batch', duration(turn.compute_s)],
        ...turn.rewards.map(([term, value]): [string, string] => [`reward: ${term}`, number(value)]), ...turn.result.map(([field, value]): [string, string] => [field === 'type' ? 'result' : field, value]),
      ]} />
    </div>
  )
}
