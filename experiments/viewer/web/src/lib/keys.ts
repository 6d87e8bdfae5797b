// Keys of a page. Where the reader types, or holds a modifier, they are the browser's.
import { useEffect, useRef } from 'react'

export function useKeys(keys: Record<string, (() => void) | undefined>, on = true): void {
  const now = useRef(keys)
  now.current = keys
  useEffect(() => {
    if (!on) return
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
      const target = event.target
      if (target instanceof HTMLElement && target.closest('input:not([type=checkbox]):not([type=radio]), textarea, select, dialog, [data-own-keys]')) return
      // A button or a link that has the focus keeps the keys that press it.
      if ((event.key === ' ' || event.key === 'Enter') && target instanceof HTMLElement && target.closest('button, a, summary, input')) return
      const act = now.current[event.key]
      if (act === undefined) return
      event.preventDefault()
      act()
    }
    document.addEventListener('keydown', pressed)
    return () => document.removeEventListener('keydown', pressed)
  }, [on])
}
