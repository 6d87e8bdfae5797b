// Where turns stand in the graph: ELK's layered layout, from those that were read to those that read them.
import type { ELK, ElkNode } from 'elkjs/lib/elk-api'
import type { EpisodePage } from '../records'

export const NODE = { width: 148, height: 46 }
export interface Point { x: number; y: number }
export interface Placed { nodes: Map<string, Point>; edges: Map<string, Point[]>; width: number; height: number }
type Graph = Pick<EpisodePage, 'edges'> & { turns: { id: string; round: number }[] }

const OPTIONS = {
  'elk.algorithm': 'layered',
  // A round's turns stand below all of the round before.
  'elk.partitioning.activate': 'true',
  'elk.edgeRouting': 'POLYLINE',
  'elk.layered.spacing.nodeNodeBetweenLayers': '44',
  'elk.spacing.nodeNode': '22',
  'elk.spacing.componentComponent': '26',
  'elk.layered.considerModelOrder.strategy': 'NODES_AND_EDGES',
  'elk.layered.nodePlacement.strategy': 'BRANDES_KOEPF',
  'elk.aspectRatio': '1.2',
}

/** Beyond these ELK's passes take seconds: the same layers, without its search for the fewest crossings. */
export const MANY = { turns: 250, edges: 900 }

let engine: Promise<ELK> | null = null

/** Loaded when a graph is first drawn: it is the largest part of the pages. */
async function elk(): Promise<ELK> {
  engine ??= import('elkjs/lib/elk.bundled.js').then((module) => new module.default())
  return engine
}

/** Begin to load it while the turns themselves are still on their way. */
export const warm = () => void elk().catch(() => undefined)

export const edgeId = (edge: { source: string; target: string; kind: string }) => `${edge.kind} ${edge.source} ${edge.target}`

/** Edges between turns that there are, each once; a role that goes on from a turn it was also shown only reads it. */
export function drawn(graph: Graph): EpisodePage['edges'] {
  const known = new Set(graph.turns.map((turn) => turn.id))
  const reads = new Set(graph.edges.filter((edge) => edge.kind === 'reads').map((edge) => `${edge.source} ${edge.target}`))
  const seen = new Set<string>()
  return graph.edges.filter((edge) => {
    const id = edgeId(edge)
    if (!known.has(edge.source) || !known.has(edge.target) || edge.source === edge.target || seen.has(id)) return false
    seen.add(id)
    return edge.kind === 'reads' || !reads.has(`${edge.source} ${edge.target}`)
  })
}

export async function place(graph: Graph): Promise<Placed> {
  const edges = drawn(graph)
  if (graph.turns.length > MANY.turns || edges.length > MANY.edges) return inLayers(graph.turns, edges)
  const laid = async (direction: string) => read(await (await elk()).layout({
    id: 'root',
    layoutOptions: { ...OPTIONS, 'elk.direction': direction },
    children: graph.turns.map((turn) => ({ id: turn.id, ...NODE, layoutOptions: { 'elk.partitioning.partition': String(turn.round) } })),
    edges: edges.map((edge) => ({ id: edgeId(edge), sources: [edge.source], targets: [edge.target] })),
  }))
  const down = await laid('DOWN')
  if (graph.turns.length > 80 || fit(down) > 0.75) return down
  const right = await laid('RIGHT')
  return fit(right) > 1.15 * fit(down) ? right : down
}

/** How large a layout is shown in a pane of the usual shape. */
const fit = (placed: Placed) => Math.min(1, 570 / placed.width, 470 / placed.height)

function read(found: ElkNode): Placed {
  const nodes = new Map((found.children ?? []).map((node) => [node.id, { x: node.x ?? 0, y: node.y ?? 0 }]))
  const edges = new Map(
    (found.edges ?? []).map((edge) => {
      const section = edge.sections?.[0]
      return [edge.id, section ? [section.startPoint, ...(section.bendPoints ?? []), section.endPoint] : []]
    }),
  )
  return { nodes, edges, width: found.width ?? 0, height: found.height ?? 0 }
}

/** Each turn one layer below the lowest that it builds on; wide layers wrap. */
export function inLayers(turns: { id: string }[], edges: { source: string; target: string; kind: string }[]): Placed {
  const into = new Map<string, string[]>()
  for (const edge of edges) into.set(edge.target, [...(into.get(edge.target) ?? []), edge.source])
  const depth = new Map<string, number>()
  // Turns come in the order they were asked, so what one builds on has its depth already.
  for (const turn of turns) depth.set(turn.id, Math.max(-1, ...(into.get(turn.id) ?? []).map((id) => depth.get(id) ?? -1)) + 1)
  const layers: string[][] = []
  for (const turn of turns) (layers[depth.get(turn.id)!] ??= []).push(turn.id)
  const across = Math.max(6, Math.ceil(Math.sqrt(turns.length)))
  const [stepX, stepY] = [NODE.width + 22, NODE.height + 44]
  const nodes = new Map<string, Point>()
  let row = 0
  for (const layer of layers) {
    layer.forEach((id, i) => nodes.set(id, { x: (i % across) * stepX, y: (row + Math.floor(i / across)) * stepY }))
    row += Math.ceil(layer.length / across)
  }
  const middle = (id: string, y: number) => ({ x: nodes.get(id)!.x + NODE.width / 2, y: nodes.get(id)!.y + y })
  const lines = new Map(edges.map((edge) => [edgeId(edge), [middle(edge.source, NODE.height), middle(edge.target, 0)]]))
  return { nodes, edges: lines, width: across * stepX, height: row * stepY }
}

/** A line through points, its corners rounded. */
export function pathThrough(points: Point[]): string {
  const [first, ...rest] = points
  if (first === undefined) return ''
  let path = `M${first.x} ${first.y}`
  rest.forEach((point, i) => {
    const before = i === 0 ? first : rest[i - 1]!
    const next = rest[i + 1]
    if (next === undefined) {
      path += `L${point.x} ${point.y}`
      return
    }
    const towards = (to: Point, distance: number) => {
      const length = Math.hypot(to.x - point.x, to.y - point.y) || 1
      const share = Math.min(0.5, distance / length)
      return `${point.x + (to.x - point.x) * share} ${point.y + (to.y - point.y) * share}`
    }
    path += `L${towards(before, 14)}Q${point.x} ${point.y} ${towards(next, 14)}`
  })
  return path
}
