// Scrub or play an episode as it unfolded. The order is that of being answered; the pauses are the real ones, within bounds.
import { useEffect } from 'react'
import { duration } from '../lib/format'
import type { TurnView } from '../records'

/** Ids in the order in which they were answered; where no times are known, as asked. */
export function unfolding(turns: Pick<TurnView, 'id' | 'answered_s'>[]): string[] {
  return turns.map((turn, i) => ({ turn, i })).sort((a, b) => a.turn.answered_s - b.turn.answered_s || a.i - b.i).map(({ turn }) => turn.id)
}

interface Props {
  turns: TurnView[]
  order: string[]
  /** How many turns are unfolded; null: all, nothing is being replayed. */
  at: number | null
  playing: boolean
  setAt: (at: number | null) => void
  setPlaying: (on: boolean) => void
}

export function Replay({ turns, order, at, playing, setAt, setPlaying }: Props) {
  const now = at ?? order.length
  useEffect(() => {
    if (!playing) return
    if (now >= order.length) return setPlaying(false)
    const when = (i: number) => turns.find((turn) => turn.id === order[i])?.answered_s ?? 0
    const pause = 1000 * (when(now) - (now > 0 ? when(now - 1) : 0))
    const timer = setTimeout(() => setAt(now + 1), Math.min(1400, Math.max(260, pause)))
    return () => clearTimeout(timer)
  }, [playing, now, order, turns, setAt, setPlaying])
  const play = () => {
    if (!playing && now >= order.length) setAt(0)
    setPlaying(!playing)
  }
  const last = turns.find((turn) => turn.id === order[now - 1])
  return (
    <div className="replay" role="group" aria-label="Replay">
      <button onClick={play} aria-label={playing ? 'Stop' : 'Play the episode as it unfolded'} title={`${playing ? 'stop' : 'play'} (space)`}>
        <svg viewBox="0 0 16 16" className="glyph" aria-hidden>{playing ? <path d="M4 3h3v10H4zM9 3h3v10H9z" className="filled" /> : <path d="M4.5 2.5l9 5.5-9 5.5z" className="filled" />}</svg>
      </button>
      <input type="range" min={0} max={order.length} value={now} data-own-keys aria-label="Turns unfolded" aria-valuetext={`${now} of ${order.length} turns`} onChange={(event) => { setPlaying(false); setAt(Number(event.target.value)) }} />
      <span className="n">{now} / {order.length}</span>
      <span className="n quiet clock">{duration(last?.answered_s ?? 0)}</span>
      {at !== null && <button onClick={() => { setPlaying(false); setAt(null) }}>all</button>}
    </div>
  )
}
