// Small distributions: counted words, histograms, votes. Figures stand beside the bars, so that no bar has to be measured by eye.
import { number, percent, whole } from '../lib/format'
import type { Count, Histogram, VoteCount } from '../records'
import { Chars, Sign, type Status } from './Basics'

export function Counts({ counts, signs = false, most = 8 }: { counts: Count[]; signs?: boolean; most?: number }) {
  const top = Math.max(1, ...counts.map((count) => count.n))
  const all = counts.reduce((sum, count) => sum + count.n, 0)
  return (
    <ul className="bars">
      {counts.slice(0, most).map((count, i) => (
        <li key={i}>
          <span className="label">{signs && <Sign mark={count.label as Status} />}<bdi><Chars text={count.label || '(none)'} /></bdi></span>
          <span className="track"><span className={`bar ${signs ? count.label : ''}`} style={{ width: `${(100 * count.n) / top}%` }} /></span>
          <span className="n">{whole(count.n)}</span><span className="n quiet">{percent(all ? count.n / all : null, 0)} %</span>
        </li>
      ))}
      {counts.length > most && <li className="quiet">and {counts.length - most} more</li>}
    </ul>
  )
}

export function Bins({ title, histogram, unit = '' }: { title: string; histogram: Histogram; unit?: string }) {
  const { counts, edges } = histogram
  const top = Math.max(1, ...counts)
  const all = counts.reduce((sum, n) => sum + n, 0)
  const [from, till] = [edges[0] ?? 0, edges.at(-1) ?? 0]
  const label = `${title}: ${whole(all)} from ${number(from)} to ${number(till)} ${unit}`
  return (
    <figure className="bins">
      <figcaption><Chars text={title} />{unit && `, ${unit}`}</figcaption>
      <svg viewBox={`0 0 ${counts.length * 10} 44`} preserveAspectRatio="none" role="img" aria-label={label}>
        {counts.map((n, i) => (
          <rect key={i} x={i * 10 + 0.5} width="9" y={44 - (n ? Math.max(1.5, (42 * n) / top) : 0)} height={n ? Math.max(1.5, (42 * n) / top) : 0}>
            <title>{`${number(edges[i]!)} to ${number(edges[i + 1]!)}: ${whole(n)}`}</title>
          </rect>
        ))}
      </svg>
      <div className="ends"><span>{number(from)}</span><span className="quiet">most {whole(top)}</span><span>{number(till)}</span></div>
    </figure>
  )
}

/** How many agreed, and how often their episode came to a correct answer. */
export function Votes({ title, votes }: { title: string; votes: VoteCount[] }) {
  const top = Math.max(1, ...votes.map((vote) => vote.episodes))
  return (
    <figure className="votes">
      <figcaption>{title}</figcaption>
      <ul className="bars">
        {[...votes].sort((a, b) => b.of - a.of || b.agreeing - a.agreeing).slice(0, 12).map((vote) => (
          <li key={`${vote.agreeing}/${vote.of}`}>
            <span className="label">{vote.agreeing} of {vote.of} agree</span>
            <span className="track" title={`${vote.right} of ${vote.episodes} correct`}>
              <span className="bar correct" style={{ width: `${(100 * vote.right) / top}%` }} />
              <span className="bar incorrect" style={{ width: `${(100 * (vote.episodes - vote.right)) / top}%` }} />
            </span>
            <span className="n">{whole(vote.episodes)}</span><span className="n quiet">{percent(vote.right / vote.episodes, 0)} % ✓</span>
          </li>
        ))}
      </ul>
    </figure>
  )
}
