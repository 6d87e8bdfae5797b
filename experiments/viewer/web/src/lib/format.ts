// Figures as people read them. Nothing is rounded to a claim that it is not: what is unknown is a dash.
const NONE = '–'

export const whole = (n: number | null | undefined) => (n === null || n === undefined ? NONE : Math.round(n).toLocaleString('en-US'))

export const percent = (share: number | null | undefined, digits = 1) =>
  share === null || share === undefined ? NONE : (100 * share).toFixed(digits)

/** A difference of shares, in points with its sign. */
export const points = (share: number) => (share < 0 ? '−' : '+') + (100 * Math.abs(share)).toFixed(1)

export const interval = (bounds: [number, number] | null) =>
  bounds === null ? '' : `${percent(bounds[0], 0)}–${percent(bounds[1], 0)}`

export function compact(n: number | null | undefined): string {
  if (n === null || n === undefined) return NONE
  if (Math.abs(n) < 1000) return Number.isInteger(n) ? String(n) : n.toFixed(1)
  if (Math.abs(n) < 1e6) return (n / 1000).toFixed(Math.abs(n) < 1e4 ? 2 : 1) + ' k'
  return (n / 1e6).toFixed(2) + ' M'
}

export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return NONE
  if (seconds === 0) return '0 s'
  if (seconds < 0.9995) return `${Math.round(1000 * seconds)} ms`
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, '0')} s`
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`
}

export const dollars = (n: number | null) => (n === null ? NONE : n !== 0 && n < 0.01 ? '<$0.01' : '$' + n.toFixed(2))

export const bytes = (n: number) => (n < 1000 ? `${n} characters` : n < 1e6 ? `${(n / 1000).toFixed(1)} k characters` : `${(n / 1e6).toFixed(2)} M characters`)

export const pvalue = (p: number) => (p < 0.001 ? '<0.001' : p.toFixed(3))

export const nats = (n: number) => n.toFixed(2).replace(/^-0.00$/, '0.00').replace('-', '−')

export const signed = (n: number, digits = 2) => (n < 0 ? '−' : '+') + Math.abs(n).toFixed(digits)

export const number = (n: number) =>
  n !== 0 && Math.abs(n) < 0.001 ? n.toExponential(1) : Math.abs(n) >= 1000 ? compact(n) : String(+n.toPrecision(4))

export function when(iso: string | null): string {
  const date = iso === null ? null : new Date(iso)
  if (date === null || Number.isNaN(date.getTime())) return NONE
  const two = (n: number) => String(n).padStart(2, '0')
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`
}
