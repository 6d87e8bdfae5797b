// Where the records come from: the server, or the data that an exported file holds.
import { useCallback, useEffect, useRef, useState } from 'react'
import type { Changed, EpisodePage, EpisodesPage, Exported } from '../records'
import { api } from './routes'

/** What a file made by `palaestra export --html` holds; null when a server is asked. */
export const exported: Exported | null = readExported()

/** Whether there is a page of a run, training or sweep to go to. */
export const holds = (key: string) => !exported || exported.run?.run.key === key || (exported.runs?.runs ?? []).some((run) => run.key === key)

function readExported(): Exported | null {
  const text = document.getElementById('palaestra-data')?.textContent?.trim()
  return text ? (JSON.parse(text) as Exported) : null
}

const KEPT = 60
const answers = new Map<string, unknown>()

function keep(path: string, answer: unknown): void {
  answers.delete(path)
  answers.set(path, answer)
  if (answers.size > KEPT) answers.delete(answers.keys().next().value!)
}

/** Ask for a record.
 * @throws Error with the server's own words, on one line. */
export async function ask<T>(path: string, signal?: AbortSignal): Promise<T> {
  if (exported) return fromExport(exported, path) as T
  const response = await fetch(path, { signal, headers: { Accept: 'application/json' } })
  const answer = await read(response)
  keep(path, answer)
  return answer as T
}

export async function send<T>(path: string, body: unknown): Promise<T> {
  const headers = { 'Content-Type': 'application/json', Accept: 'application/json' }
  return (await read(await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) }))) as T
}

async function read(response: Response): Promise<unknown> {
  const answer: unknown = await response.json().catch(() => null)
  if (response.ok) return answer
  const detail = (answer as { detail?: unknown } | null)?.detail
  throw new Error(typeof detail === 'string' ? detail : detail ? JSON.stringify(detail) : `the server answered ${response.status}`)
}

/** An answer that the file holds. Lists of episodes are made from the episodes in it. */
export function fromExport(data: Exported, path: string): unknown {
  const plain = path.split('?')[0]!
  const held = data.answers[path] ?? data.answers[plain]
  if (held !== undefined) return held
  if (plain === '/api/runs' && data.runs) return data.runs
  if (data.run && plain === api.run(data.run.run.key)) return data.run
  const place = data.episodes.findIndex((episode) => plain === api.episode(episode.run, episode.position))
  if (place >= 0) return alone(data.episodes, place)
  const run = /^\/api\/runs\/([^/]+)\/episodes$/.exec(plain)?.[1]
  if (run !== undefined) return listed(data.episodes.filter((episode) => episode.run === decodeURIComponent(run)))
  throw new Error('this file does not hold that part of the run')
}

function alone(episodes: EpisodePage[], place: number): EpisodePage {
  const episode = episodes[place]!
  const same = episodes.filter((other) => other.run === episode.run)
  const at = same.indexOf(episode)
  const neighbour = (step: number) => same[at + step]?.position ?? null
  return { ...episode, previous: neighbour(-1), next: neighbour(1), place: at, total: same.length }
}

function listed(episodes: EpisodePage[]): EpisodesPage {
  const rows = episodes.map((episode) => ({
    position: episode.position, task: episode.task.id, sample: episode.sample, status: episode.status,
    score: episode.score, answer: episode.answer, question: episode.task.question, stop_reason: episode.stop_reason,
    failure: episode.failure, calls: episode.turns.length,
    tokens: episode.turns.reduce((sum, turn) => sum + turn.prompt_tokens + turn.completion_tokens, 0),
    unread: episode.turns.filter((turn) => turn.failure !== null).length, seconds: episode.seconds,
    opening: null, disagreement: episode.disagreements.length > 0, turned: null,
  }))
  return { total: rows.length, offset: 0, rows, looked: rows.length, episodes: rows.length }
}

export interface Asked<T> {
  data: T | null
  /** Why there is none, or why what is shown may be old. */
  problem: string | null
  again: () => void
}

/** A record, asked for again whenever something is stored in one of the runs that it is about. */
export function useAsk<T>(path: string | null, about: (run: string) => boolean = () => false): Asked<T> {
  const held = (of: string | null) => (of === null ? null : ((answers.get(of) as T | undefined) ?? null))
  const [state, setState] = useState<{ path: string | null; data: T | null; problem: string | null }>(() => ({ path, data: held(path), problem: null }))
  const [asked, setAsked] = useState(0)
  const concerns = useRef(about)
  concerns.current = about
  const flight = useRef<'none' | 'under way' | 'ask again'>('none')
  const again = useCallback(() => setAsked((n) => n + 1), [])

  useEffect(() => {
    if (path === null) return
    const stop = new AbortController()
    const landed = (next: (was: { path: string | null; data: T | null }) => { data: T | null; problem: string | null }) => {
      if (stop.signal.aborted) return
      setState((was) => ({ path, ...next(was) }))
      const wanted = flight.current === 'ask again'
      flight.current = 'none'
      if (wanted) again()
    }
    flight.current = 'under way'
    ask<T>(path, stop.signal).then(
      (data) => landed(() => ({ data, problem: null })),
      (error: unknown) => landed((was) => ({ data: was.path === path ? was.data : null, problem: error instanceof Error ? error.message : String(error) })),
    )
    return () => stop.abort()
  }, [path, asked, again])

  useEffect(() => onChanged((runs) => {
    if (runs !== null && !runs.some((run) => concerns.current(run))) return
    // An answer that is under way is awaited: a run that stores faster than it is read would never be shown.
    if (flight.current === 'none') again()
    else flight.current = 'ask again'
  }), [again])

  return state.path === path ? { ...state, again } : { data: held(path), problem: null, again }
}

/** Ask again every second while something is not yet known: the server looks through a long run's turns for a while. */
export function useWhile(on: boolean, again: () => void): void {
  useEffect(() => {
    if (!on || exported) return
    const timer = setInterval(again, 1000)
    return () => clearInterval(timer)
  }, [on, again])
}

/** Hears of the runs in which something was stored; null: of any, as some news may have been missed. */
type Hear = (runs: string[] | null) => void
const hears = new Set<Hear>()

function onChanged(hear: Hear): () => void {
  hears.add(hear)
  return () => void hears.delete(hear)
}

export type Link = 'live' | 'lost' | 'file'

/** Follow what is stored: in all runs, or in a run, a training or a sweep. */
export function useLive(run: string | null): Link {
  const [link, setLink] = useState<Link>(exported ? 'file' : 'live')
  useEffect(() => {
    if (exported) return
    let events: EventSource | null = null
    let missed = false
    const open = () => {
      events = new EventSource(api.events(run))
      events.addEventListener('changed', (event) => {
        const changed = JSON.parse((event as MessageEvent<string>).data) as Changed
        hears.forEach((hear) => hear([...changed.runs.map((stored) => stored.run), ...changed.gone]))
      })
      events.onopen = () => {
        setLink('live')
        if (missed) hears.forEach((hear) => hear(null))
        missed = false
      }
      events.onerror = () => {
        missed = true
        setLink('lost')
      }
    }
    const close = () => {
      events?.close()
      events = null
    }
    // A browser has six connections to a server for all its tabs together: a tab that nobody sees holds none.
    const follow = () => {
      if (!document.hidden) return events ?? open()
      missed = true
      close()
    }
    follow()
    document.addEventListener('visibilitychange', follow)
    return () => {
      document.removeEventListener('visibilitychange', follow)
      close()
    }
  }, [run])
  return link
}
