// Dark or light: as the system has it, unless the reader has chosen.
import { useSyncExternalStore } from 'react'

const KEY = 'palaestra-theme'
type Theme = 'dark' | 'light'
const system = matchMedia('(prefers-color-scheme: dark)')
const hears = new Set<() => void>()

function chosen(): Theme | null {
  try {
    const kept = localStorage.getItem(KEY)
    return kept === 'dark' || kept === 'light' ? kept : null
  } catch {
    return null // Pages opened from disk may have no storage.
  }
}

export const theme = (): Theme => (document.documentElement.dataset.theme as Theme | undefined) ?? 'light'

export function applyTheme(): void {
  document.documentElement.dataset.theme = chosen() ?? (system.matches ? 'dark' : 'light')
  hears.forEach((hear) => hear())
}

system.addEventListener('change', applyTheme)

export function switchTheme(): void {
  try {
    localStorage.setItem(KEY, theme() === 'dark' ? 'light' : 'dark')
    applyTheme()
  } catch {
    document.documentElement.dataset.theme = theme() === 'dark' ? 'light' : 'dark'
    hears.forEach((hear) => hear())
  }
}

export function useTheme(): Theme {
  return useSyncExternalStore((hear) => {
    hears.add(hear)
    return () => void hears.delete(hear)
  }, theme)
}
