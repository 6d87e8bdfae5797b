import { useMemo } from 'react'
import { changes } from '../lib/replies'
import { Chars } from './Basics'

/** What was taken away and what was added, told by strokes as well as by colour. */
export function DiffView({ before, after, from }: { before: string; after: string; from?: string }) {
  const found = useMemo(() => changes(before, after), [before, after])
  const same = found?.every((piece) => piece.kind === 'same')
  return (
    <div className="panel">
      {from && <p className="quiet">against <Chars text={from} /></p>}
      {found === null ? <p className="quiet">The two differ in too much to show word by word.</p> : same ? <p className="quiet">The same words.</p> : (
        <pre className="text" dir="auto">{found.map((piece, i) => piece.kind === 'added' ? <ins key={i}><Chars text={piece.text} /></ins> : piece.kind === 'removed' ? <del key={i}><Chars text={piece.text} /></del> : <span key={i}><Chars text={piece.text} /></span>)}</pre>
      )}
    </div>
  )
}
