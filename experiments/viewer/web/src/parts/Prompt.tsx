import { useState } from 'react'
import { bytes, whole } from '../lib/format'
import { api } from '../lib/routes'
import { useAsk } from '../lib/source'
import type { PromptView } from '../records'
import { Chars, Waiting } from './Basics'
import { WholeText } from './LongText'
import { ToolCall } from './TurnCard'

/** The conversation as the model was asked; and the very text, special tokens included, where the tokenizer is at hand. */
export function Prompt({ run, position, turn }: { run: string; position: number; turn: string }) {
  const [all, setAll] = useState(false)
  const [exact, setExact] = useState(false)
  const { data, problem, again } = useAsk<PromptView>(api.turn(run, position, turn, 'prompt', all))
  if (data === null) return <div className="panel"><Waiting problem={problem} what="the prompt" again={again} /></div>
  const clipped = [...data.messages.map((message) => message.content), ...(data.text ? [data.text] : [])].some((text) => text.length > text.text.length)
  return (
    <div className="panel prompt">
      <p className="quiet">
        {whole(data.tokens)} prompt tokens{' '}
        {data.text ? <button className="chip" aria-pressed={exact} onClick={() => setExact(!exact)}>exact text</button> : <span>· the model's tokenizer is not at hand: the messages, not their tokens</span>}
        {clipped && !all && <button className="chip" onClick={() => setAll(true)}>show all of it</button>}
      </p>
      {exact && data.text ? <WholeText text={data.text.text} /> : data.messages.map((message, i) => (
        <div key={i} className={`message ${message.turn === turn ? 'new' : ''}`}>
          <span className="role"><Chars text={message.role} />{message.turn && message.turn !== turn && <span className="quiet"> <Chars text={message.turn} /></span>}</span>
          <div><WholeText text={message.content.text} />{message.content.length > message.content.text.length && <span className="quiet">the beginning of {bytes(message.content.length)}</span>}{message.tool_calls.map((call, j) => <ToolCall key={j} call={call} />)}</div>
        </div>
      ))}
    </div>
  )
}
