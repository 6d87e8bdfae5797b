import { describe, expect, it } from 'vitest'
import type { Exported } from '../records'
import { inLayers, pathThrough } from '../lib/layout'
import { changes, segments } from '../lib/replies'
import { api, nameOf, parentOf, parse, to } from '../lib/routes'
import { parts, pieces, visible } from '../lib/text'
import { compact, duration, points } from '../lib/format'

describe('addresses', () => {
  it('lead back to what they were made from, whatever runs and turns are called', () => {
    const choice = { filter: 'flipped to right', sort: 'longest', task: 'a/b & c' } as const
    for (const run of ['talk', 'first~rollouts~0001', 'a/b', '50 %', '#x?y', 'ä,ö'])
      for (const turn of [null, 'judge/0.1', 'weird role/2', '..%2F'])
        expect(parse(to.episode(run, 41, choice, turn))).toEqual({ page: 'episode', run, position: 41, turn, choice })
    expect(parse(to.compare(['a,b', 'c']))).toEqual({ page: 'compare', runs: ['a,b', 'c'] })
  })
  it('that are none are nowhere', () => {
    for (const path of ['/run', '/run/a/episode', '/run/a/episode/0', '/run/a/episode/x', '/run/%E0%A4%A', '/what'])
      expect(parse(path).page).toBe('nowhere')
  })
  it('count episodes from 1, records from 0', () => {
    expect(to.episode('a', 0)).toBe('/run/a/episode/1')
    expect(api.episode('a', 0)).toBe('/api/runs/a/episodes/0')
  })
  it('tell a run from the training it lies in', () => {
    expect([parentOf('first~rollouts~0001'), nameOf('first~rollouts~0001')]).toEqual(['first', 'rollouts/0001'])
    expect([parentOf('a~.b'), nameOf('a~.b')]).toEqual([null, 'a~b'])
  })
})

describe('texts', () => {
  it('show what cannot be seen by its name', () => {
    expect(visible('a\u001b[31m\u202eb\u200b\u{e0041}')).toBe('a⟨ESC⟩[31m⟨RLO⟩b⟨ZWSP⟩⟨U+E0041⟩')
    expect(pieces('tab\t and\r\nline')).toEqual(['tab\t and\nline'])
    expect(visible('👩‍🚀 سلام')).toBe('👩‍🚀 سلام')
  })
  it('are cut without losing anything, and never within a character', () => {
    const text = '🚀'.repeat(3000) + '\n' + 'line\n'.repeat(3000)
    const cut = parts(text, 1001)
    expect(cut.join('')).toBe(text)
    expect(cut.every((part) => part.isWellFormed())).toBe(true)
    expect(Math.max(...cut.map((part) => part.length))).toBeLessThanOrEqual(1002)
  })
})

describe('replies', () => {
  const step = (start: number, end: number) => ({ start, end, marks: [] })
  it('are cut at their steps, whatever the steps claim', () => {
    for (const steps of [[step(0, 2), step(2, 5)], [step(1, 3), step(2, 4)], [step(3, 99)], [step(50, 60)], [step(4, 4)]])
      expect(segments('abcdef', 2, steps).map((segment) => segment.text).join('')).toBe('abcdef')
    expect(segments('abcdef', 2, [step(1, 3)])).toMatchObject([
      { text: 'a', opening: true, step: null }, { text: 'b', opening: true, step: { start: 1 } }, { text: 'c', opening: false, step: { start: 1 } }, { text: 'def', opening: false, step: null },
    ])
  })
  it('tell what was taken away and what was added', () => {
    expect(changes('so it is 12', 'so it is 14')).toEqual([
      { text: 'so it is ', kind: 'same' }, { text: '12', kind: 'removed' }, { text: '14', kind: 'added' },
    ])
  })
})

describe('the graph', () => {
  it('of very many turns puts each below all that it reads, and no two in one place', () => {
    const turns = Array.from({ length: 400 }, (_, i) => ({ id: `t${i}` }))
    const edges = turns.slice(3).map((turn, i) => ({ source: `t${i}`, target: turn.id, kind: 'reads' }))
    const { nodes } = inLayers(turns, edges)
    expect(new Set([...nodes.values()].map(({ x, y }) => `${x} ${y}`)).size).toBe(400)
    for (const edge of edges) expect(nodes.get(edge.source)!.y).toBeLessThan(nodes.get(edge.target)!.y)
  })
  it('draws a line from the first point to the last', () => {
    expect(pathThrough([{ x: 0, y: 0 }, { x: 0, y: 50 }, { x: 80, y: 50 }])).toMatch(/^M0 0L0 36Q0 50 14 50L80 50$/)
  })
})

describe('figures', () => {
  it('are short and keep their sign', () => {
    expect([compact(950), compact(12_345), compact(2_500_000), compact(null)]).toEqual(['950', '12.3 k', '2.50 M', '–'])
    expect([duration(0.0123), duration(75), duration(7260)]).toEqual(['12 ms', '1 min 15 s', '2 h 01 min'])
    expect([points(0.031), points(-0.5)]).toEqual(['+3.1', '−50.0'])
  })
})

describe('an exported file', () => {
  it('answers what it holds, and says so where it does not', async () => {
    const { fromExport } = await import('../lib/source')
    const data = { runs: null, run: null, episodes: [], answers: { '/api/runs/a/grid': { total: 3 } } } as unknown as Exported
    expect(fromExport(data, api.grid('a', 0, 20))).toEqual({ total: 3 })
    expect(() => fromExport(data, api.training('a'))).toThrow('does not hold')
  })
})
