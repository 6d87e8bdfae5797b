import { useState } from 'react'
import { percent, whole } from '../lib/format'
import { api } from '../lib/routes'
import { useAsk } from '../lib/source'
import { visible } from '../lib/text'
import type { TokensView } from '../records'
import { Chars, Waiting } from './Basics'

const AT_ONCE = 2000

/** The least likely of all, the least first. */
export function surprises(logprobs: number[], most = 5): number[] {
  return logprobs.map((_, i) => i).sort((a, b) => logprobs[a]! - logprobs[b]!).slice(0, most).filter((i) => logprobs[i]! < Math.log(0.9))
}

const share = (p: number) => (p < 0.01 ? '<1 %' : `${percent(p, 0)} %`)

/** Tokens as sampled, the darker the less likely; the least likely are named in words too. */
export function Tokens({ run, position, turn }: { run: string; position: number; turn: string }) {
  const { data, problem, again } = useAsk<TokensView>(api.turn(run, position, turn, 'tokens'))
  const [shown, setShown] = useState(AT_ONCE)
  if (data === null) return <div className="panel"><Waiting problem={problem} what="the tokens" again={again} /></div>
  const { ids, pieces, logprobs } = data
  const name = (i: number) => visible(JSON.stringify(pieces?.[i] ?? String(ids[i])))
  const chance = (i: number) => (logprobs[i] === undefined ? 'log-probability not recorded' : `${percent(Math.exp(logprobs[i]))} %, ${logprobs[i].toFixed(3)} nats`)
  const rare = surprises(logprobs)
  return (
    <div className="panel tokens">
      {data.why_not && <p className="quiet"><Chars text={data.why_not} /></p>}
      <pre className="text" dir="auto">
        {ids.slice(0, shown).map((id, i) => {
          const p = logprobs[i] === undefined ? 1 : Math.exp(logprobs[i])
          return <span key={i} className={`token ${p < 0.5 ? 'rare' : ''}`} style={p < 0.995 ? { background: `color-mix(in oklab, var(--shade) ${Math.round(75 * (1 - p))}%, transparent)` } : undefined} title={`${name(i)} · id ${id} · ${chance(i)}`}>{pieces ? <Chars text={pieces[i] ?? ''} /> : `${id} `}</span>
        })}
      </pre>
      {ids.length > shown && <p className="more"><button onClick={() => setShown(shown + 10 * AT_ONCE)}>Show more of {whole(ids.length)} tokens</button></p>}
      {rare.length > 0 && <p className="quiet">least likely: {rare.map((i, n) => <span key={i}>{n > 0 && ', '}<code>{name(i)}</code> {share(Math.exp(logprobs[i]!))}</span>)}</p>}
      {data.choices.length > 0 && <p className="quiet">choices: {data.choices.map((value) => percent(Math.exp(value)) + ' %').join(', ')}</p>}
      <p className="legend quiet" aria-hidden>certain <span className="ramp" /> unlikely</p>
    </div>
  )
}
