// The address bar is the pages' state: History API on a server, the part after # in an exported file.
import { useSyncExternalStore, type AnchorHTMLAttributes, type MouseEvent } from 'react'
import { exported } from './source'

const hears = new Set<() => void>()
const tell = () => hears.forEach((hear) => hear())

export function address(): string {
  return exported ? location.hash.slice(1) || '/' : location.pathname + location.search
}

export const href = (to: string) => (exported ? '#' + to : to)

export function go(to: string, replace = false): void {
  if (to === address()) return
  history[replace ? 'replaceState' : 'pushState'](null, '', href(to))
  tell()
}

export function useAddress(): string {
  return useSyncExternalStore((hear) => {
    hears.add(hear)
    addEventListener('popstate', hear)
    addEventListener('hashchange', hear)
    return () => {
      hears.delete(hear)
      removeEventListener('popstate', hear)
      removeEventListener('hashchange', hear)
    }
  }, address)
}

/** A link within the app. A click with a modifier is the browser's own. */
export function Link({ to, replace, ...rest }: { to: string; replace?: boolean } & AnchorHTMLAttributes<HTMLAnchorElement>) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    rest.onClick?.(event)
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    event.preventDefault()
    go(to, replace)
  }
  return <a {...rest} href={href(to)} onClick={follow} />
}
