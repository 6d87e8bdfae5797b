import { useEffect, useRef } from 'react'
import { Sign, WORDS, type Mark } from './Basics'

const KEYS: [string, string][] = [
  ['j  k', 'next and previous episode, as filtered and sorted'],
  ['↓  ↑  or  →  ←', 'next and previous turn'],
  ['d  ⇧d', 'next and previous disagreement'],
  ['Home  End', 'first and last turn'],
  ['space', 'play the episode as it unfolded, and stop'],
  ['p  t  c', "of the turn: its prompt, its tokens, what changed since the role's turn before"],
  ['f', 'fork from the turn'],
  ['u', 'up: from the episode to its run, from the run to all runs'],
  ['?', 'this'],
]

const SIGNS: Mark[] = ['correct', 'incorrect', 'unparsed', 'unscorable', 'failed', 'unknown']

export function Help({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  return (
    <dialog ref={dialog} className="help" onClose={close} aria-label="Keys and signs" onKeyDown={(event) => { if (event.key === '?') dialog.current?.close() }}>
      <header><h2>Keys</h2><button className="plain" onClick={() => dialog.current?.close()} aria-label="Close">✕</button></header>
      <table><tbody>{KEYS.map(([keys, what]) => <tr key={keys}><th scope="row">{keys.split('  ').map((key) => key === 'or' ? ' or ' : <kbd key={key}>{key}</kbd>)}</th><td>{what}</td></tr>)}</tbody></table>
      <h2>Signs</h2>
      <ul className="signs">{SIGNS.map((mark) => <li key={mark}><Sign mark={mark} /> {WORDS[mark]}</li>)}</ul>
      <p className="quiet">Of an answer on the way: what the env said of it where it was asked, else a comparison with the task's answers. Characters that cannot be seen are shown by name: <span className="hidden-char">ESC</span></p>
    </dialog>
  )
}
