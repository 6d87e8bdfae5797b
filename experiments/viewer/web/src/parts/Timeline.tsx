// When each role spoke: in the engine's queue, in its batch, and the rest of the wait, on the episode's clock.
import { duration } from '../lib/format'
import { visible, brief } from '../lib/text'
import type { EpisodePage, TurnView } from '../records'

/** Ticks at whole steps of 1, 2 or 5, at most about six. */
export function ticks(end: number): number[] {
  if (!(end > 0)) return [0]
  const rough = end / 6
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough) ?? 10 * power
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, i) => +(i * step).toPrecision(6))
}

/** Turns of one role in as few rows as keep those that overlap apart; of very many the rest share the last. */
export function rowsOf<T extends Pick<TurnView, 'asked_s' | 'answered_s'>>(turns: T[], most = 8): T[][] {
  const rows: T[][] = []
  for (const turn of [...turns].sort((a, b) => a.asked_s - b.asked_s)) {
    const free = rows.find((row) => row.at(-1)!.answered_s <= turn.asked_s + 1e-6)
    if (free) free.push(turn)
    else if (rows.length < most) rows.push([turn])
    else rows[most - 1]!.push(turn)
  }
  return rows
}

export const timed = (turns: TurnView[]) => turns.some((turn) => turn.answered_s > 0)

export function Timeline({ episode, selected, unfolded, select }: { episode: EpisodePage; selected: string | null; unfolded: Set<string> | null; select: (id: string) => void }) {
  const { turns, roles } = episode
  const end = Math.max(...turns.map((turn) => turn.answered_s), 1e-6)
  if (!timed(turns)) return <p className="waiting">No times were recorded.</p>
  const share = (seconds: number) => `${(100 * Math.max(0, seconds)) / end}%`
  return (
    <div className="timeline" role="region" tabIndex={0} aria-label="Time line">
      <div className="lane axis" aria-hidden><span className="who" /><span className="track">{ticks(end).map((tick) => <span key={tick} className="tick" style={{ left: share(tick) }}><i>{duration(tick)}</i></span>)}</span></div>
      {roles.flatMap((role) => rowsOf(turns.filter((turn) => turn.role === role)).map((row, i) => (
        <div className={`lane ${i ? 'more' : ''}`} key={`${role} ${i}`}>
          <span className="who" title={visible(role)}>{i === 0 && brief(role, 16)}</span>
          <span className="track">
            {row.map((turn) => {
              const all = turn.answered_s - turn.asked_s
              const of = (seconds: number) => `${all > 0 ? (100 * Math.min(all, Math.max(0, seconds))) / all : 0}%`
              return (
                <button key={turn.id} className={`span ${turn.id === selected ? 'selected' : ''} ${unfolded !== null && !unfolded.has(turn.id) ? 'folded' : ''}`} style={{ left: share(turn.asked_s), width: `max(4px, ${share(all)})` }} onClick={() => select(turn.id)} tabIndex={-1}
                  aria-label={`${visible(turn.id)}: ${duration(all)}`} title={`${visible(turn.id)}: asked at ${duration(turn.asked_s)}, answered in ${duration(all)}; queue ${duration(turn.queue_s)}, batch ${duration(turn.compute_s)}`}>
                  <span className="queue" style={{ width: of(turn.queue_s) }} /><span className="compute" style={{ width: of(turn.compute_s) }} />
                </button>
              )
            })}
          </span>
        </div>
      )))}
      <p className="key"><span className="swatch queue" /> queue <span className="swatch compute" /> batch <span className="swatch other" /> routing and waiting for others of the batch</p>
    </div>
  )
}
