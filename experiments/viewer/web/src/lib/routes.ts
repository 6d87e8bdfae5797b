// Where every page is, and what it asks the server for. Runs, turns and tasks are named by whoever made them, so every
// part of an address is encoded.
import type { FilterCount } from '../records'

export type Filter = FilterCount['filter']
export type Sort = 'position' | 'longest' | 'slowest' | 'tokens'

/** Which episodes of a run, in which order: travels in the address from the list to the episodes. */
export interface Choice {
  filter: Filter
  sort: Sort
  task: string
}

export type Page =
  | { page: 'runs' }
  | { page: 'compare'; runs: string[] }
  | { page: 'run'; run: string; choice: Choice }
  | { page: 'episode'; run: string; position: number; turn: string | null; choice: Choice }
  | { page: 'nowhere'; path: string }

export const FILTERS: Filter[] = [
  'all', 'right', 'wrong', 'disagreement', 'flipped to right', 'flipped to wrong', 'failed', 'unparsed', 'unscorable',
]
export const SORTS: Sort[] = ['position', 'longest', 'slowest', 'tokens']
export const ALL: Choice = { filter: 'all', sort: 'position', task: '' }

const enc = encodeURIComponent

function query(values: Record<string, string | number | undefined | null>): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '')
  return given.length ? '?' + given.map(([key, value]) => `${key}=${enc(String(value))}`).join('&') : ''
}

function chosen({ filter, sort, task }: Choice) {
  return { filter: filter === 'all' ? '' : filter, sort: sort === 'position' ? '' : sort, task }
}

/** Addresses of pages. Episodes are counted from 1 there, as everywhere that people read. */
export const to = {
  runs: () => '/',
  compare: (runs: string[]) => '/compare' + (runs.length ? '?runs=' + runs.map(enc).join(',') : ''),
  run: (run: string, choice = ALL) => `/run/${enc(run)}${query(chosen(choice))}`,
  episode: (run: string, position: number, choice = ALL, turn: string | null = null) =>
    `/run/${enc(run)}/episode/${position + 1}${turn === null ? '' : '/turn/' + enc(turn)}${query(chosen(choice))}`,
}

/** The page at an address; what is no address of ours is `nowhere`, never a guess. */
export function parse(address: string): Page {
  const at = address.indexOf('?')
  const path = at < 0 ? address : address.slice(0, at)
  const given = new URLSearchParams(at < 0 ? '' : address.slice(at))
  const nowhere: Page = { page: 'nowhere', path: address }
  let parts: string[]
  try {
    parts = path.split('/').filter((part) => part !== '').map(decodeURIComponent)
  } catch {
    return nowhere
  }
  const choice = readChoice(given)
  const [first, run, second, number, third, turn] = parts
  if (parts.length === 0) return { page: 'runs' }
  if (first === 'compare' && parts.length === 1) {
    // Split before decoding: a comma within a name is encoded.
    const raw = /[?&]runs=([^&]*)/.exec(address)?.[1] ?? ''
    return { page: 'compare', runs: raw.split(',').filter(Boolean).map((name) => decodeURIComponent(name)) }
  }
  if (first !== 'run' || run === undefined) return nowhere
  if (parts.length === 2) return { page: 'run', run, choice }
  if (second !== 'episode' || number === undefined || !/^[1-9]\d{0,14}$/.test(number)) return nowhere
  const position = Number(number) - 1
  if (parts.length === 4) return { page: 'episode', run, position, turn: null, choice }
  return third === 'turn' && parts.length === 6 && turn !== undefined
    ? { page: 'episode', run, position, turn, choice }
    : nowhere
}

function readChoice(given: URLSearchParams): Choice {
  return {
    filter: FILTERS.find((filter) => filter === given.get('filter')) ?? 'all',
    sort: SORTS.find((sort) => sort === given.get('sort')) ?? 'position',
    task: given.get('task') ?? '',
  }
}

/** What the pages ask for. In an exported file the same paths name the answers that it holds. */
export const api = {
  runs: (under: string | null) => '/api/runs' + query({ under }),
  compare: (runs: string[]) => '/api/compare?' + runs.map((run) => `runs=${enc(run)}`).join('&'),
  run: (run: string) => `/api/runs/${enc(run)}`,
  training: (run: string) => `/api/runs/${enc(run)}/training`,
  grid: (run: string, offset: number, limit: number) => `/api/runs/${enc(run)}/grid${query({ offset, limit })}`,
  episodes: (run: string, choice: Choice, offset: number, limit: number) =>
    `/api/runs/${enc(run)}/episodes${query({ ...chosen(choice), offset, limit })}`,
  episode: (run: string, position: number, choice = ALL) =>
    `/api/runs/${enc(run)}/episodes/${position}${query(chosen(choice))}`,
  question: (run: string, position: number) => `/api/runs/${enc(run)}/episodes/${position}/question`,
  turn: (run: string, position: number, turn: string, what: 'reply' | 'tokens' | 'prompt', whole = false) =>
    `/api/runs/${enc(run)}/episodes/${position}/turns/${enc(turn)}/${what}${whole ? '?whole=true' : ''}`,
  diff: (run: string, position: number) => `/api/runs/${enc(run)}/episodes/${position}/diff`,
  choices: (run: string, position: number) => `/api/runs/${enc(run)}/episodes/${position}/fork`,
  fork: () => '/api/fork',
  events: (under: string | null) => '/api/events' + query({ under }),
}

/** The training or sweep that a run lies in: keys are folders with `~` between them, a `~` of a name is `~.`. */
export function parentOf(run: string): string | null {
  const at = run.search(/~(?!\.)/)
  return at < 0 ? null : run.slice(0, at)
}

/** A run's own name: its folders within the training or sweep that it lies in. */
export function nameOf(run: string): string {
  const parent = parentOf(run)
  return (parent === null ? run : run.slice(parent.length + 1)).replace(/~(?!\.)/g, '/').replaceAll('~.', '~')
}
