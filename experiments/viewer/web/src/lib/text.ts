// Text of models, tasks and users is data. It is shown as text, and what would be invisible, or would reorder the line, is
// shown by its name: escape sequences, bidirectional controls, zero-width characters, Unicode tags.

// Tab and newline are text. Joiners are left: scripts and emoji need them.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e0fff}]/gu

const NAMES: Record<number, string> = {
  0x1b: 'ESC', 0x7f: 'DEL', 0x0d: 'CR', 0x00: 'NUL', 0x07: 'BEL', 0x08: 'BS', 0xad: 'SHY', 0x61c: 'ALM',
  0x200b: 'ZWSP', 0x200e: 'LRM', 0x200f: 'RLM', 0x202a: 'LRE', 0x202b: 'RLE', 0x202c: 'PDF', 0x202d: 'LRO',
  0x202e: 'RLO', 0x2066: 'LRI', 0x2067: 'RLI', 0x2068: 'FSI', 0x2069: 'PDI', 0x2060: 'WJ', 0xfeff: 'BOM',
}

export type Piece = string | { hidden: string }

/** A text in pieces: what can be seen as it is, and the names of what cannot. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = []
  let last = 0
  const plain = text.replaceAll('\r\n', '\n')
  for (const match of plain.matchAll(HIDDEN)) {
    if (match.index > last) found.push(plain.slice(last, match.index))
    const code = match[0].codePointAt(0)!
    found.push({ hidden: NAMES[code] ?? 'U+' + code.toString(16).toUpperCase().padStart(4, '0') })
    last = match.index + match[0].length
  }
  if (last < plain.length) found.push(plain.slice(last))
  return found
}

/** The same in one string, for titles and labels that take no markup. */
export function visible(text: string): string {
  return pieces(text).map((piece) => (typeof piece === 'string' ? piece : `⟨${piece.hidden}⟩`)).join('')
}

/** On one line, cut to a length. */
export function brief(text: string, length = 80): string {
  const line = visible(text.slice(0, 4 * length)).replace(/\s+/g, ' ').trim()
  return line.length > length || text.length > 4 * length ? line.slice(0, length).trimEnd() + '…' : line
}

/** A long text in parts of about `size` characters that end with a line where they can, for showing a part at a time. */
export function parts(text: string, size = 4000): string[] {
  const found: string[] = []
  for (let start = 0; start < text.length; ) {
    let end = Math.min(text.length, start + size)
    if (end < text.length) {
      const line = text.lastIndexOf('\n', end)
      if (line > start) end = line + 1
      else if (/[\uD800-\uDBFF]/.test(text[end - 1]!)) end += 1
    }
    found.push(text.slice(start, end))
    start = end
  }
  return found
}
