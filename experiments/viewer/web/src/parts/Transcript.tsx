// The transcript, round by round. Long ones keep in the page what is in view; short ones are whole, for the browser's search.
import { useVirtualizer } from '@tanstack/react-virtual'
import { useEffect, useMemo, useRef } from 'react'
import type { EpisodePage } from '../records'
import { TurnCard, type Panel } from './TurnCard'

const WHOLE = 60

type Item = { round: number; count: number } | { id: string }

/** Rounds' headings between the turns; those of a graph without rounds of its own have none. */
export function items(turns: { id: string; round: number; move: string }[]): Item[] {
  const foreign = turns.some((turn) => turn.move === 'chat')
  const found: Item[] = []
  turns.forEach((turn, i) => {
    if (!foreign && (i === 0 || turns[i - 1]!.round !== turn.round)) found.push({ round: turn.round, count: turns.filter((other) => other.round === turn.round).length })
    found.push({ id: turn.id })
  })
  return found
}

interface Props {
  episode: EpisodePage
  selected: string | null
  unfolded: Set<string> | null
  open: Map<string, readonly Panel[]>
  select: (id: string) => void
  toggle: (id: string, panel: Panel) => void
  fork: ((id: string) => void) | null
}

export function Transcript({ episode, selected, unfolded, open, select, toggle, fork }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const byId = useMemo(() => new Map(episode.turns.map((turn) => [turn.id, turn])), [episode])
  const rows = useMemo(() => items(episode.turns), [episode])
  const few = rows.length <= WHOLE
  const list = useVirtualizer({
    count: rows.length, getScrollElement: () => box.current, overscan: few ? WHOLE : 6,
    estimateSize: (i) => {
      const row = rows[i]!
      return 'id' in row ? 96 + 20 * Math.min(60, Math.ceil((byId.get(row.id)?.reply.text.length ?? 0) / 80)) : 36
    },
    getItemKey: (i) => {
      const row = rows[i]!
      return 'id' in row ? row.id : `round ${row.round} ${i}`
    },
  })
  useEffect(() => {
    const at = selected === null ? -1 : rows.findIndex((row) => 'id' in row && row.id === selected)
    if (at >= 0) list.scrollToIndex(at, { align: inSight(box.current, at) ? 'auto' : 'start' })
    // Only a new selection scrolls: a list that measured itself anew must not take the reader away.
  }, [selected, episode.run, episode.position])
  return (
    <div className="transcript" ref={box} tabIndex={0} role="region" aria-label="Transcript">
      <h2 className="unseen">Transcript</h2>
      <div style={{ height: list.getTotalSize(), position: 'relative' }}>
        {list.getVirtualItems().map((item) => {
          const row = rows[item.index]!
          const turn = 'id' in row ? byId.get(row.id) : undefined
          return (
            <div key={item.key} data-index={item.index} ref={list.measureElement} className="slot" style={{ transform: `translateY(${item.start}px)` }}>
              {'round' in row ? <h3 className="round">{row.round ? `Round ${row.round}` : 'Before the debate'} <span className="quiet">{row.count} {row.count === 1 ? 'turn' : 'turns'}</span></h3> : turn && (
                <TurnCard episode={episode} turn={turn} selected={turn.id === selected} folded={unfolded !== null && !unfolded.has(turn.id)} open={open.get(turn.id) ?? NONE} select={select} toggle={toggle} fork={fork} />
              )}
            </div>
          )
        })}
      </div>
    </div>
  )
}

const NONE: readonly Panel[] = []

function inSight(area: HTMLElement | null, index: number): boolean {
  const card = area?.querySelector(`[data-index="${index}"]`)?.getBoundingClientRect()
  const view = area?.getBoundingClientRect()
  return !!card && !!view && card.top >= view.top && card.top < view.bottom - 60
}
