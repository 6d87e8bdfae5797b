// Long texts in parts: only those in view are in the page, so that a reply of a megabyte scrolls like a short one.
import { useVirtualizer } from '@tanstack/react-virtual'
import { useMemo, useRef, useState } from 'react'
import { bytes } from '../lib/format'
import { ask } from '../lib/source'
import { parts } from '../lib/text'
import type { Clipped, TextView } from '../records'
import { Chars } from './Basics'

const PLAIN = 40_000

/** A whole text; beyond what a page bears, in a window of its own. */
export function WholeText({ text }: { text: string }) {
  return text.length <= PLAIN ? <pre className="text" dir="auto"><Chars text={text} /></pre> : <Windowed text={text} />
}

function Windowed({ text }: { text: string }) {
  const box = useRef<HTMLDivElement>(null)
  const shown = useMemo(() => parts(text, 2000), [text])
  const rows = useVirtualizer({ count: shown.length, getScrollElement: () => box.current, estimateSize: () => 480, overscan: 2 })
  return (
    <div className="text windowed" ref={box} tabIndex={0} role="region" aria-label={`text of ${bytes(text.length)}`}>
      <div style={{ height: rows.getTotalSize(), position: 'relative' }}>
        {rows.getVirtualItems().map((row) => (
          <pre key={row.key} data-index={row.index} ref={rows.measureElement} dir="auto" style={{ position: 'absolute', insetInline: 0, top: 0, transform: `translateY(${row.start}px)` }}>
            <Chars text={shown[row.index]!} />
          </pre>
        ))}
      </div>
    </div>
  )
}

/** The button that fetches the whole of a clipped text, and then the text. */
export function useWhole(clipped: Clipped, path: string): { whole: string | null; more: React.ReactNode } {
  const [whole, setWhole] = useState<string | null>(null)
  const [problem, setProblem] = useState<string | null>(null)
  const [busy, setBusy] = useState(false)
  if (clipped.length <= clipped.text.length) return { whole: null, more: null }
  const fetchIt = () => {
    setBusy(true)
    ask<TextView>(path)
      .then((view) => setWhole(view.text), (error: unknown) => setProblem(error instanceof Error ? error.message : String(error)))
      .finally(() => setBusy(false))
  }
  const more = (
    <p className="more">
      {whole === null ? <button onClick={fetchIt} disabled={busy}>{busy ? 'Reading…' : `Show all ${bytes(clipped.length)}`}</button> : <button onClick={() => setWhole(null)}>Show the beginning only</button>}
      {problem && <span className="quiet"> <Chars text={problem} /></span>}
    </p>
  )
  return { whole, more }
}

export function ClippedText({ text, path }: { text: Clipped; path: string }) {
  const { whole, more } = useWhole(text, path)
  return <><WholeText text={whole ?? text.text} />{more}</>
}
