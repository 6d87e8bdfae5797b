// Curves over updates. Lines differ by dash as well as by colour, and the figures under the pointer are written out.
import { useEffect, useMemo, useRef } from 'react'
import uPlot from 'uplot'
import { number } from '../lib/format'
import { useTheme } from '../lib/theme'
import { visible } from '../lib/text'
import type { Series } from '../records'

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [12, 4], [1, 2]]

/** A piece of the line as a background, so that the legend, too, tells lines apart without colour. */
export function swatch(dash: number[], colour: string) {
  if (dash.length === 0) return colour
  let at = 0
  const stops = dash.map((length, i) => {
    const shade = i % 2 === 0 ? colour : 'transparent'
    return `${shade} ${at}px ${(at += length)}px`
  })
  return `repeating-linear-gradient(90deg, ${stops.join(', ')})`
}

/** All lines of one chart on one axis of updates; where a line has no figure there is none. */
export function aligned(series: Series[]): uPlot.AlignedData {
  const xs = [...new Set(series.flatMap((line) => line.x))].sort((a, b) => a - b)
  const place = new Map(xs.map((x, i) => [x, i]))
  const column = (line: Series, values: (number | null)[] | null) => {
    const made: (number | null)[] = xs.map(() => null)
    line.x.forEach((x, i) => (made[place.get(x)!] = values?.[i] ?? null))
    return made
  }
  return [xs, ...series.map((line) => column(line, line.y)), ...series.filter(banded).flatMap((line) => [column(line, line.low), column(line, line.high)])]
}

const banded = (line: Series) => line.low !== null && line.high !== null

export function Curves({ title, series }: { title: string; series: Series[] }) {
  const box = useRef<HTMLDivElement>(null)
  const theme = useTheme()
  const data = useMemo(() => aligned(series), [series])
  const unit = series.find((line) => line.unit)?.unit ?? ''
  useEffect(() => {
    const area = box.current!
    const style = getComputedStyle(document.documentElement)
    const colour = (name: string) => style.getPropertyValue(name).trim()
    const lines = series.map((_, i) => colour(`--line-${(i % 6) + 1}`))
    const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: `11px ${colour('--sans')}` }
    const extra = series.flatMap((line, i) => (banded(line) ? [i, i] : []))
    const bands = series.filter(banded).map((_, i) => ({ series: [series.length + 2 * i + 2, series.length + 2 * i + 1] as [number, number], fill: lines[extra[2 * i]!] + '22' }))
    const few = data[0].length < 40
    const markers = { width: 0, fill: (_: uPlot, i: number) => swatch(DASHES[(i - 1) % DASHES.length]!, lines[i - 1] ?? 'transparent') }
    const plot = new uPlot(
      {
        width: area.clientWidth, height: 180, legend: { show: true, live: true, markers }, bands, cursor: { points: { size: 6 } },
        scales: { x: { time: false, range: (_, from, till) => (from === till ? [from - 1, till + 1] : [from, till]) }, y: { range: (_, from, till) => (from === till ? (from === 0 ? [0, 1] : [from - Math.abs(from) / 2, till + Math.abs(till) / 2]) : uPlot.rangeNum(from, till, 0.1, true)) } },
        axes: [{ ...axis, size: 26, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] }, { ...axis, size: 48, values: (_, ticks) => ticks.map(number) }],
        // Away from the pointer the legend tells where it has come to.
        hooks: { setCursor: [(plot) => plot.cursor.idx == null && plot.setLegend({ idx: data[0].length - 1 }, false)] },
        series: [
          { label: 'update' },
          ...series.map((line, i) => ({ label: visible(line.name), stroke: lines[i], width: 1.6, dash: DASHES[i % DASHES.length], spanGaps: true, points: { show: few, size: 5 }, value: (_: uPlot, v: number | null) => (v === null ? '–' : number(v)) })),
          ...extra.map((i) => ({ label: '', stroke: 'transparent', fill: undefined, width: 0, points: { show: false }, class: 'unlisted', spanGaps: true, value: () => String(i) })),
        ],
      },
      data, area,
    )
    plot.setLegend({ idx: data[0].length - 1 }, false)
    const watch = new ResizeObserver(() => plot.setSize({ width: area.clientWidth, height: 180 }))
    watch.observe(area)
    return () => {
      watch.disconnect()
      plot.destroy()
    }
  }, [data, series, theme])
  return (
    <figure className="curves">
      <figcaption>{visible(title)} <span className="quiet">{visible(unit)}</span></figcaption>
      <div ref={box} role="img" aria-label={`${title}: ${series.map((line) => `${line.name} ${number(line.y.findLast((y) => y !== null) ?? NaN)}`).join(', ')} at the end`} />
    </figure>
  )
}
