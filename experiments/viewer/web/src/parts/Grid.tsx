// The outcome grid, tasks by samples. Drawn on a canvas, the part in view alone: 20,000 tasks are as quick as 20.
import { useEffect, useMemo, useRef, useState } from 'react'
import { whole } from '../lib/format'
import { go } from '../lib/router'
import { api, to, type Choice } from '../lib/routes'
import { ask, useAsk } from '../lib/source'
import { useTheme } from '../lib/theme'
import { brief } from '../lib/text'
import type { GridPage, GridRow } from '../records'
import { Sign, WORDS, type Status } from './Basics'

const STATUS: Record<string, Status> = { c: 'correct', i: 'incorrect', p: 'unparsed', s: 'unscorable', f: 'failed' }
const PAGE = 20_000

/** Where cells are: blocks of one task's samples in a row, as many blocks beside one another as there is room for. */
export function layout(tasks: number, samples: number, width: number) {
  const cell = tasks * samples > 4000 ? 9 : 13
  const gap = samples > 1 ? 6 : 0
  const block = samples * cell + gap
  const across = Math.max(1, Math.floor((width + gap) / block))
  return { cell, block, across, rows: Math.ceil(tasks / across) }
}

export function Grid({ run, tasks, samples, choice }: { run: string; tasks: number; samples: number; choice: Choice }) {
  const first = useAsk<GridPage>(api.grid(run, 0, PAGE), (key) => key === run)
  const [rest, setRest] = useState<GridRow[]>([])
  const total = first.data?.total ?? tasks
  useEffect(() => {
    // More tasks than one answer holds come one answer after the other.
    let gone = false
    const fetchRest = async () => {
      const found: GridRow[] = []
      while (PAGE + found.length < total && !gone) {
        const page = await ask<GridPage>(api.grid(run, PAGE + found.length, PAGE))
        if (page.rows.length === 0) break
        found.push(...page.rows)
      }
      if (!gone) setRest(found)
    }
    if (total > PAGE) void fetchRest().catch(() => undefined)
    return () => void (gone = true)
  }, [run, total])
  const rows = useMemo(() => [...(first.data?.rows ?? []), ...rest], [first.data, rest])
  if (first.data === null) return <p className="quiet">{first.problem ?? 'Reading the outcomes…'}</p>
  return <Cells run={run} rows={rows} samples={first.data.samples || samples} choice={choice} />
}

function Cells({ run, rows, samples, choice }: { run: string; rows: GridRow[]; samples: number; choice: Choice }) {
  const box = useRef<HTMLDivElement>(null)
  const canvas = useRef<HTMLCanvasElement>(null)
  const [width, setWidth] = useState(0)
  const [at, setAt] = useState<{ row: number; sample: number } | null>(null)
  const theme = useTheme()
  const place = layout(rows.length, samples, width)
  const height = place.rows * place.cell

  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.floor(entry!.contentRect.width)))
    watch.observe(box.current!)
    return () => watch.disconnect()
  }, [])

  useEffect(() => {
    const area = box.current!
    const paint = () => draw(canvas.current!, area, rows, samples, layout(rows.length, samples, width), at)
    paint()
    area.addEventListener('scroll', paint)
    return () => area.removeEventListener('scroll', paint)
  }, [rows, samples, width, at, theme])

  const found = (event: React.MouseEvent) => {
    const area = box.current!.getBoundingClientRect()
    const [x, y] = [event.clientX - area.left, event.clientY - area.top + box.current!.scrollTop]
    const column = Math.floor(x / place.block)
    const sample = Math.floor((x - column * place.block) / place.cell)
    const row = Math.floor(y / place.cell) * place.across + column
    return column < place.across && sample < samples && row < rows.length && row >= 0 ? { row, sample } : null
  }
  const open = (cell: { row: number; sample: number } | null) => {
    const position = cell === null ? -1 : (rows[cell.row]?.positions[cell.sample] ?? -1)
    if (position >= 0) go(to.episode(run, position, { ...choice, task: '' }))
  }
  const key = (event: React.KeyboardEvent) => {
    const now = at ?? { row: 0, sample: 0 }
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: place.across * samples, ArrowUp: -place.across * samples }
    const step = steps[event.key]
    if (event.key === 'Enter') return open(at)
    if (step === undefined) return
    event.preventDefault()
    const next = at === null ? 0 : Math.min(rows.length * samples - 1, Math.max(0, now.row * samples + now.sample + step))
    const cell = { row: Math.floor(next / samples), sample: next % samples }
    setAt(cell)
    const top = Math.floor(cell.row / place.across) * place.cell
    const area = box.current!
    if (top < area.scrollTop || top + place.cell > area.scrollTop + area.clientHeight) area.scrollTop = top - area.clientHeight / 2
  }
  const said = at === null ? null : rows[at.row]
  const status = said ? STATUS[said.cells[at!.sample] ?? '.'] : undefined
  return (
    <div className="gridbox">
      <div className="cells" ref={box} style={{ height: Math.min(height, 300) }} tabIndex={0} role="application" aria-label={`Outcomes of ${whole(rows.length)} tasks: arrows go from cell to cell, Enter opens the episode`}
        onMouseMove={(event) => setAt(found(event))} onMouseLeave={() => setAt(null)} onClick={(event) => open(found(event))} onKeyDown={key}>
        <div className="pin"><canvas ref={canvas} aria-hidden /></div>
        <div style={{ height, minWidth: 1 }} aria-hidden />
      </div>
      <p className="said" aria-live="polite">
        {said ? <>{status && <Sign mark={status} />}{status ? WORDS[status] : 'not played'} · {brief(said.task, 40)}{samples > 1 && ` · sample ${at!.sample + 1}`}</> : <span className="quiet">a cell {samples > 1 ? `an episode, ${samples} samples a task` : 'a task'}; it opens with a click</span>}
      </p>
    </div>
  )
}

type Place = ReturnType<typeof layout>

function draw(canvas: HTMLCanvasElement, area: HTMLElement, rows: GridRow[], samples: number, place: Place, at: { row: number; sample: number } | null) {
  const ratio = devicePixelRatio || 1
  const [width, height] = [area.clientWidth, area.clientHeight]
  canvas.width = width * ratio
  canvas.height = height * ratio
  canvas.style.width = `${width}px`
  canvas.style.height = `${height}px`
  const brush = canvas.getContext('2d')!
  brush.scale(ratio, ratio)
  const style = getComputedStyle(document.documentElement)
  const colour = (name: string) => style.getPropertyValue(name)
  const colours = Object.fromEntries(Object.entries(STATUS).map(([letter, name]) => [letter, colour(`--${name}`)]))
  const [ground, line] = [colour('--bg'), colour('--line')]
  const size = place.cell - 2
  const firstLine = Math.floor(area.scrollTop / place.cell)
  const lastLine = Math.min(place.rows, Math.ceil((area.scrollTop + height) / place.cell))
  for (let row = firstLine * place.across; row < Math.min(rows.length, lastLine * place.across); row++) {
    const top = Math.floor(row / place.across) * place.cell - area.scrollTop
    for (let sample = 0; sample < samples; sample++) {
      const left = (row % place.across) * place.block + sample * place.cell
      const letter = rows[row]!.cells[sample] ?? '.'
      brush.fillStyle = colours[letter] ?? line
      // Incorrect cells are full, correct ones light: what went wrong is what is looked for, and it shows without colour.
      cellOf(brush, letter, left, top, size, ground)
      if (at?.row === row && at.sample === sample) {
        brush.strokeStyle = colour('--text')
        brush.lineWidth = 2
        brush.strokeRect(left - 0.5, top - 0.5, size + 1, size + 1)
      }
    }
  }
}

function cellOf(brush: CanvasRenderingContext2D, letter: string, left: number, top: number, size: number, ground: string) {
  if (letter === 'c') {
    brush.globalAlpha = 0.42
    brush.fillRect(left, top, size, size)
    brush.globalAlpha = 1
    return
  }
  if (letter === '.') {
    brush.fillRect(left + size / 2 - 1, top + size / 2 - 1, 2, 2)
    return
  }
  brush.fillRect(left, top, size, size)
  brush.strokeStyle = ground
  brush.lineWidth = 1.4
  brush.beginPath()
  const [a, b, middle] = [size * 0.28, size * 0.72, size / 2]
  if (letter === 'i') brush.moveTo(left + a, top + a), brush.lineTo(left + b, top + b), brush.moveTo(left + b, top + a), brush.lineTo(left + a, top + b)
  else if (letter === 'f') brush.moveTo(left + middle, top + size * 0.2), brush.lineTo(left + middle, top + size * 0.8)
  else brush.moveTo(left + a, top + middle), brush.lineTo(left + b, top + middle)
  brush.stroke()
}
