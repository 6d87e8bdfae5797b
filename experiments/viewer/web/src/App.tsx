import { useEffect, useState } from 'react'
import { Help } from './parts/Help'
import { Link, useAddress } from './lib/router'
import { nameOf, parentOf, parse, to, type Page } from './lib/routes'
import { exported, holds, useLive } from './lib/source'
import { visible } from './lib/text'
import { switchTheme, useTheme } from './lib/theme'
import { ComparePage } from './pages/ComparePage'
import { EpisodePage } from './pages/EpisodePage'
import { RunPage } from './pages/RunPage'
import { RunsPage } from './pages/RunsPage'
import { Chars } from './parts/Basics'
import { useKeys } from './lib/keys'

export function App() {
  const page = parse(useAddress())
  const [help, setHelp] = useState(false)
  const dark = useTheme() === 'dark'
  const run = page.page === 'run' || page.page === 'episode' ? page.run : null
  const link = useLive(run)
  useKeys({ '?': () => setHelp((open) => !open) })
  useEffect(() => {
    document.title = titleOf(page)
  })
  return (
    <div className={`app ${page.page}`}>
      <a className="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main')?.focus() }}>Skip to the content</a>
      <header className="bar">
        <nav aria-label="Where you are"><Crumbs page={page} /></nav>
        <span className={`link ${link}`} title={LINKS[link]}>{link}</span>
        <button className="plain" onClick={switchTheme} aria-label={dark ? 'Light colours' : 'Dark colours'} title={dark ? 'Light colours' : 'Dark colours'}>
          <svg viewBox="0 0 16 16" className="glyph" aria-hidden><circle cx="8" cy="8" r="6" fill="none" /><path d="M8 2a6 6 0 0 1 0 12z" className="filled" /></svg>
        </button>
        <button className="plain" onClick={() => setHelp(true)} aria-label="Keys and signs" title="Keys and signs (?)">?</button>
      </header>
      <main id="main" tabIndex={-1}><Shown page={page} /></main>
      {help && <Help close={() => setHelp(false)} />}
    </div>
  )
}

const LINKS = {
  live: 'What is stored appears here by itself',
  lost: 'The server cannot be reached; what is shown may be old',
  file: 'From a file: nothing is loaded, nothing is sent',
}

function Shown({ page }: { page: Page }) {
  switch (page.page) {
    case 'runs':
      return exported ? <FirstOfFile /> : <RunsPage />
    case 'compare':
      return <ComparePage runs={page.runs} />
    case 'run':
      return <RunPage key={page.run} run={page.run} choice={page.choice} />
    case 'episode':
      return <EpisodePage run={page.run} position={page.position} turn={page.turn} choice={page.choice} />
    case 'nowhere':
      return <div className="problems" role="alert"><h1>There is no such page</h1><p><Chars text={page.path} /></p><Link to={to.runs()}>All runs</Link></div>
  }
}

/** A file opens at what it holds. */
function FirstOfFile() {
  const run = exported?.run?.run ?? exported?.runs?.runs[0]
  if (run) return <RunPage run={run.key} choice={{ filter: 'all', sort: 'position', task: '' }} />
  const first = exported?.episodes[0]
  if (first) return <EpisodePage run={first.run} position={first.position} turn={null} choice={{ filter: 'all', sort: 'position', task: '' }} />
  return <div className="problems">This file holds no run and no episode.</div>
}

function Crumbs({ page }: { page: Page }) {
  const run = page.page === 'run' || page.page === 'episode' ? page.run : null
  const above = run === null ? null : parentOf(run)
  return (
    <ol className="crumbs">
      <li><Link to={to.runs()} className="home">Palaestra</Link></li>
      {page.page === 'compare' && <li aria-current="page">Comparison</li>}
      {above !== null && <li>{holds(above) ? <Link to={to.run(above)}><Chars text={nameOf(above)} /></Link> : <Chars text={nameOf(above)} />}</li>}
      {run !== null && <li aria-current={page.page === 'run' ? 'page' : undefined}>{page.page === 'run' || !holds(run) ? <Chars text={nameOf(run)} /> : <Link to={to.run(run, page.page === 'episode' ? page.choice : undefined)}><Chars text={nameOf(run)} /></Link>}</li>}
      {page.page === 'episode' && <li aria-current="page">Episode {page.position + 1}</li>}
    </ol>
  )
}

function titleOf(page: Page): string {
  const name = (run: string) => visible(nameOf(run))
  if (page.page === 'run') return `${name(page.run)} · Palaestra`
  if (page.page === 'episode') return `${name(page.run)}, episode ${page.position + 1} · Palaestra`
  if (page.page === 'compare') return 'Comparison · Palaestra'
  return exported?.title ? visible(exported.title) : 'Runs · Palaestra'
}
