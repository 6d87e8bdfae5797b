// The small parts that every page is made of.
import type { ReactNode } from 'react'
import { pieces, visible } from '../lib/text'
import { bytes } from '../lib/format'
import type { Clipped, EpisodeRow, Problem, TurnView } from '../records'

export type Status = EpisodeRow['status']
export type Mark = Status | 'unknown'

/** Text of a model, a task or a user: as text, with what cannot be seen shown by name. */
export function Chars({ text }: { text: string }) {
  return (
    <>
      {pieces(text).map((piece, i) =>
        typeof piece === 'string' ? piece : <span className="hidden-char" key={i} title="a character that cannot be seen">{piece.hidden}</span>,
      )}
    </>
  )
}

/** A text that may be only its beginning, on one line of a list. */
export function Line({ text }: { text: Clipped }) {
  return <bdi><Chars text={text.text.slice(0, 300)} />{text.length > Math.min(300, text.text.length) && '…'}</bdi>
}

const SHAPES: Record<Mark, ReactNode> = {
  correct: <path d="M3.5 8.5l3 3 6-7" />,
  incorrect: <path d="M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6" />,
  unparsed: <path d="M5.6 6a2.4 2.4 0 1 1 3.4 2.2c-.7.3-1 .8-1 1.5M8 12.4v.1" />,
  unscorable: <path d="M3.5 8h9" />,
  failed: <path d="M8 3.2v6M8 12.4v.1" />,
  unknown: <path d="M8 7.9v.2" />,
}

export const WORDS: Record<Mark, string> = {
  correct: 'correct', incorrect: 'incorrect', unparsed: 'unparsed', unscorable: 'unscorable', failed: 'failed', unknown: 'not judged',
}

/** A verdict's sign; its word stands beside it or is its name. */
export function Sign({ mark, named = false }: { mark: Mark; named?: boolean }) {
  return (
    <svg className={`sign ${mark}`} viewBox="0 0 16 16" role={named ? 'img' : undefined} aria-label={named ? WORDS[mark] : undefined} aria-hidden={!named}>
      <circle cx="8" cy="8" r="7.25" />
      {SHAPES[mark]}
    </svg>
  )
}

export function Verdict({ status }: { status: Status }) {
  return <span className={`verdict ${status}`}><Sign mark={status} />{WORDS[status]}</span>
}

export const markOf = (right: TurnView['right']): Mark => right ?? 'unknown'

/** An answer with the verdict on it. */
export function Answer({ text, mark, title }: { text: string; mark: Mark; title?: string }) {
  return (
    <span className={`answer ${mark}`} title={title ?? `${visible(text.slice(0, 200))}: ${WORDS[mark]}`}>
      <Sign mark={mark} named />
      <bdi><Chars text={text.length > 60 ? text.slice(0, 60) + '…' : text} /></bdi>
    </span>
  )
}

export function Problems({ problems }: { problems: Problem[] }) {
  if (problems.length === 0) return null
  return (
    <div className="problems" role="note">
      <strong>{problems.length === 1 ? 'Something could not be read' : `${problems.length} things could not be read`}</strong>
      <ul>{problems.slice(0, 20).map((problem, i) => <li key={i}><Chars text={`${problem.where}: ${problem.what}`} /></li>)}</ul>
      {problems.length > 20 && <p>and {problems.length - 20} more</p>}
    </div>
  )
}

export function Waiting({ problem, what, again }: { problem: string | null; what: string; again?: () => void }) {
  if (problem === null) return <div className="waiting" aria-busy="true">Reading {what}…</div>
  return (
    <div className="problems" role="alert">
      <strong>{what} could not be read</strong>
      <p><Chars text={problem} /></p>
      {again && <button onClick={again}>Try again</button>}
    </div>
  )
}

/** An answer that failed while older data is still shown. */
export function Stale({ problem }: { problem: string | null }) {
  return problem === null ? null : <div className="problems" role="alert">What is shown may be old: <Chars text={problem} /></div>
}

export function Clip({ text }: { text: Clipped }) {
  return <>{text.length > text.text.length && <span className="quiet"> {bytes(text.length)} in all</span>}</>
}

export function Pairs({ pairs }: { pairs: [string, ReactNode][] }) {
  return (
    <dl className="pairs">
      {pairs.map(([name, value], i) => (
        <div key={i}><dt><Chars text={name} /></dt><dd>{typeof value === 'string' ? <bdi><Chars text={value} /></bdi> : value}</dd></div>
      ))}
    </dl>
  )
}

export function Section({ title, aside, children, id }: { title: string; aside?: ReactNode; children: ReactNode; id?: string }) {
  return (
    <section className="section" aria-label={title} id={id}>
      <header><h2>{title}</h2>{aside && <div className="aside">{aside}</div>}</header>
      {children}
    </section>
  )
}
