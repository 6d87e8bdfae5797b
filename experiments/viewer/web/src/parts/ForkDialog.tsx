import { useEffect, useRef, useState } from 'react'
import { go } from '../lib/router'
import { api, to } from '../lib/routes'
import { send, useAsk } from '../lib/source'
import type { EpisodePage, ForkChoices, Forked, ForkWish, PromptView } from '../records'
import { Chars, Waiting } from './Basics'

type What = 'seed' | 'model' | 'settings' | 'message' | 'reply'
const WORDS: Record<What, string> = { seed: 'another seed', model: 'another model', settings: 'role settings', message: 'an edited message', reply: 'an edited reply' }

/** Play on from a turn with one thing changed. What comes before stays as recorded; the branch is a run of its own. */
export function ForkDialog({ episode, turn, close }: { episode: EpisodePage; turn: string; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  const { data, problem } = useAsk<ForkChoices>(api.choices(episode.run, episode.position))
  const record = episode.turns.find((other) => other.id === turn)!
  return (
    <dialog ref={dialog} className="fork" onClose={close} aria-label={`Fork from ${turn}`}>
      <header><h2>Fork from <Chars text={turn} /></h2><button className="plain" onClick={() => dialog.current?.close()} aria-label="Close">✕</button></header>
      {data === null ? <Waiting problem={problem} what="what can be changed" /> : !data.possible ? <p><Chars text={data.why_not ?? 'This episode cannot be forked.'} /></p> : <Wish episode={episode} choices={data} turn={turn} role={record.role} reply={record.reply} cancel={() => dialog.current?.close()} />}
    </dialog>
  )
}

function Wish({ episode, choices, turn, role, reply, cancel }: { episode: EpisodePage; choices: ForkChoices; turn: string; role: string; reply: { text: string; length: number }; cancel: () => void }) {
  const [what, setWhat] = useState<What>('seed')
  const prompt = useAsk<PromptView>(what === 'message' ? api.turn(episode.run, episode.position, turn, 'prompt', true) : null)
  const last = prompt.data?.messages.filter((message) => message.turn === turn).at(-1)?.content.text ?? prompt.data?.messages.at(-1)?.content.text
  const [values, setValues] = useState<Partial<Record<What, string>>>({ seed: String((Number(choices.seed) + 1) % 2 ** 31), reply: reply.length === reply.text.length ? reply.text : '' })
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<string | null>(null)
  const value = values[what] ?? (what === 'message' ? (last ?? '') : '')
  const set = (text: string) => setValues({ ...values, [what]: text })
  const asked = [...new Set([...choices.roles.map(([, model]) => model), ...(what === 'model' && value ? [value] : [])])]
  const play = (event: React.FormEvent) => {
    event.preventDefault()
    const wish = wishOf(episode, turn, role, what, value, asked)
    if (typeof wish === 'string') return setProblem(wish)
    setBusy(true)
    setProblem(null)
    send<Forked>(api.fork(), wish).then((made) => go(to.episode(made.run, made.position, undefined, made.turn)), (error: unknown) => setProblem(error instanceof Error ? error.message : String(error))).finally(() => setBusy(false))
  }
  return (
    <form onSubmit={play}>
      <fieldset className="chips"><legend>Change</legend>{(Object.keys(WORDS) as What[]).map((kind) => <label key={kind} className="chip"><input type="radio" name="what" checked={what === kind} onChange={() => setWhat(kind)} />{WORDS[kind]}</label>)}</fieldset>
      <label className="field"><span>{LABELS[what](role)}</span>
        {what === 'message' || what === 'reply' || what === 'settings' ? <textarea rows={what === 'settings' ? 3 : 9} value={value} placeholder={what === 'settings' ? `${role}.temperature=0.2` : undefined} onChange={(event) => set(event.target.value)} spellCheck={false} /> : <input value={value} list="models" inputMode={what === 'seed' ? 'numeric' : undefined} placeholder={what === 'model' ? choices.models.join(', ') : undefined} onChange={(event) => set(event.target.value)} spellCheck={false} autoComplete="off" />}
      </label>
      {what === 'model' && <datalist id="models">{asked.map((model) => <option key={model} value={model} />)}</datalist>}
      <p className="quiet">Turns before this one stay as recorded. From here on these models are asked: <Chars text={asked.join(', ')} />.</p>
      {problem && <div className="problems" role="alert"><Chars text={problem} /></div>}
      <footer><button type="button" onClick={cancel}>Cancel</button><button className="primary" disabled={busy || value.trim() === ''}>{busy ? 'Playing on…' : 'Play on'}</button></footer>
    </form>
  )
}

const LABELS: Record<What, (role: string) => string> = {
  seed: () => 'Seed of all that is sampled from here on',
  model: (role) => `Model of ${role} from here on`,
  settings: () => 'Settings, one a line: ROLE.KEY=VALUE',
  message: () => "The turn's last message, as the model is to read it",
  reply: () => 'What the turn is to have said; nothing is sampled for it',
}

/** What the server is asked for, or what is wrong with what was typed. */
export function wishOf(episode: Pick<EpisodePage, 'run' | 'position'>, turn: string, role: string, what: What, value: string, models: string[]): ForkWish | string {
  const wish = { run: episode.run, position: episode.position, turn, models }
  if (what === 'seed') return /^\d{1,15}$/.test(value.trim()) ? { ...wish, seed: Number(value) } : `a seed is a whole number, not ${JSON.stringify(value)}`
  if (what === 'model') return { ...wish, model: value.trim() }
  if (what === 'message') return { ...wish, message: value }
  if (what === 'reply') return { ...wish, reply: value }
  const settings: Record<string, string> = {}
  for (const line of value.split('\n').map((text) => text.trim()).filter(Boolean)) {
    const at = line.indexOf('=')
    if (at < 1) return `expected ROLE.KEY=VALUE, as in ${role}.temperature=0.2, not ${JSON.stringify(line)}`
    settings[line.slice(0, at).trim()] = line.slice(at + 1).trim()
  }
  return { ...wish, settings }
}
