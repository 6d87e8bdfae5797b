// The graph of turns. Solid lines: was shown the other's words; dashed: goes on from its own earlier turn.
import { BaseEdge, Controls, EdgeLabelRenderer, Handle, MarkerType, MiniMap, Position, ReactFlow, ReactFlowProvider, useReactFlow, useStore, type Edge, type EdgeProps, type Node, type NodeProps } from '@xyflow/react'
import { createContext, memo, useContext, useEffect, useMemo, useState } from 'react'
import { number } from '../lib/format'
import { drawn, edgeId, MANY, NODE, pathThrough, place, type Placed, type Point } from '../lib/layout'
import { cameTo, verb } from '../lib/replies'
import { visible } from '../lib/text'
import type { EpisodePage, TurnView } from '../records'
import { Chars, markOf, Sign, WORDS } from './Basics'

type TurnNode = Node<{ turn: TurnView; share: number | null }, 'turn'>
type TurnEdge = Edge<{ points: Point[]; weight: number | null; kind: string }, 'turn'>
interface Shown { selected: string | null; unfolded: Set<string> | null; select: (id: string) => void; related: Set<string> }
const Now = createContext<Shown>({ selected: null, unfolded: null, select: () => undefined, related: new Set() })

export function TurnGraph(props: { episode: EpisodePage; selected: string | null; unfolded: Set<string> | null; select: (id: string) => void }) {
  return <ReactFlowProvider><Drawn {...props} /></ReactFlowProvider>
}

function Drawn({ episode, selected, unfolded, select }: { episode: EpisodePage; selected: string | null; unfolded: Set<string> | null; select: (id: string) => void }) {
  const { turns } = episode
  const placed = usePlaced(episode)
  const flow = useReactFlow()
  const [width, height] = [useStore((state) => state.width), useStore((state) => state.height)]
  const related = useMemo(() => new Set(drawn(episode).filter((edge) => edge.source === selected || edge.target === selected).map(edgeId)), [episode, selected])
  const now = useMemo(() => ({ selected, unfolded, select, related }), [selected, unfolded, select, related])
  const { nodes, edges } = useMemo(() => elements(episode, placed), [episode, placed])
  useEffect(() => {
    // As large as fits, but never too small to read: what is larger then begins at its top.
    if (placed === null || width === 0 || height === 0) return
    const zoom = Math.min(1.1, Math.max(0.45, 0.92 * Math.min(width / placed.width, height / placed.height)))
    const [x, y] = [(width - zoom * placed.width) / 2, (height - zoom * placed.height) / 2]
    void flow.setViewport({ x: Math.max(16, x), y: Math.max(16, y), zoom })
  }, [placed, flow, width, height])
  useEffect(() => {
    // A selected turn that is out of sight comes into it; the reader's own zoom stays.
    const at = selected === null ? undefined : placed?.nodes.get(selected)
    if (at === undefined || placed === null) return
    const { x, y, zoom } = flow.getViewport()
    const box = document.querySelector('.graph')?.getBoundingClientRect()
    if (!box) return
    const [left, top] = [at.x * zoom + x, at.y * zoom + y]
    if (left < 0 || top < 0 || left + NODE.width * zoom > box.width || top + NODE.height * zoom > box.height)
      void flow.setCenter(at.x + NODE.width / 2, at.y + NODE.height / 2, { zoom: Math.max(zoom, 0.5), duration: matchMedia('(prefers-reduced-motion: reduce)').matches ? 0 : 200 })
  }, [selected, placed, flow])
  if (placed === null) return <div className="graph waiting">Laying out {turns.length} turns…</div>
  return (
    <Now.Provider value={now}>
      <div className={`graph ${turns.length > MANY.turns ? 'crowded' : ''}`} role="group" aria-label={`Graph of ${turns.length} turns`}>
        <ReactFlow<TurnNode, TurnEdge>
          nodes={nodes} edges={edges} nodeTypes={NODES} edgeTypes={EDGES}
          minZoom={0.05} maxZoom={2} nodesDraggable={false} nodesConnectable={false} nodesFocusable={false} edgesFocusable={false} elementsSelectable={false} disableKeyboardA11y
          onlyRenderVisibleElements={turns.length > 120} zoomOnDoubleClick={false} deleteKeyCode={null} selectionKeyCode={null} multiSelectionKeyCode={null} panActivationKeyCode={null} zoomActivationKeyCode={null}
        >
          <Controls showInteractive={false} position="bottom-left" />
          {turns.length > 40 && <MiniMap pannable zoomable nodeColor={(node) => `var(--${colourOf((node as TurnNode).data.turn)})`} ariaLabel="Map of the graph" />}
        </ReactFlow>
      </div>
    </Now.Provider>
  )
}

const colourOf = (turn: TurnView) => (turn.failure !== null ? 'unparsed' : turn.right === 'correct' ? 'correct' : turn.right === 'incorrect' ? 'incorrect' : 'line')

/** The layout, made once for each set of turns and edges: news of an episode that changes neither moves nothing. */
function usePlaced(episode: EpisodePage): Placed | null {
  const shape = useMemo(() => JSON.stringify([episode.run, episode.position, episode.turns.map((turn) => turn.id), episode.edges.map(edgeId)]), [episode])
  const [made, setMade] = useState<{ shape: string; placed: Placed } | null>(null)
  useEffect(() => {
    let gone = false
    void place(episode).then((placed) => gone || setMade({ shape, placed }))
    return () => void (gone = true)
    // eslint-disable-next-line -- `shape` says all of the episode that the layout depends on.
  }, [shape])
  return made?.shape === shape ? made.placed : null
}

function elements(episode: EpisodePage, placed: Placed | null): { nodes: TurnNode[]; edges: TurnEdge[] } {
  if (placed === null) return { nodes: [], edges: [] }
  const most = Math.max(1e-9, ...episode.turns.map((turn) => Math.abs(turn.contribution ?? 0)))
  const nodes: TurnNode[] = episode.turns.map((turn) => ({
    id: turn.id, type: 'turn', position: placed.nodes.get(turn.id) ?? { x: 0, y: 0 }, ...NODE,
    data: { turn, share: turn.contribution === null ? null : Math.abs(turn.contribution) / most },
  }))
  const edges: TurnEdge[] = drawn(episode).map((edge) => ({
    id: edgeId(edge), source: edge.source, target: edge.target, type: 'turn', focusable: false,
    markerEnd: { type: MarkerType.ArrowClosed, width: 13, height: 13, color: 'var(--edge)' },
    data: { points: placed.edges.get(edgeId(edge)) ?? [], weight: edge.weight, kind: edge.kind },
  }))
  return { nodes, edges }
}

const TurnBox = memo(function TurnBox({ data }: NodeProps<TurnNode>) {
  const { selected, unfolded, select } = useContext(Now)
  const { turn, share } = data
  const mark = turn.failure !== null ? 'unparsed' : markOf(turn.right)
  const to = cameTo(turn)
  const folded = unfolded !== null && !unfolded.has(turn.id)
  return (
    <>
      <Handle type="target" position={Position.Top} isConnectable={false} />
      <button
        className={`turnbox ${mark} ${turn.id === selected ? 'selected' : ''} ${folded ? 'folded' : ''} ${turn.replayed ? 'replayed' : ''} nopan`} onClick={() => select(turn.id)}
        aria-pressed={turn.id === selected} title={visible(`${turn.id}: ${turn.role} ${verb(turn.move)}, round ${turn.round}`)} aria-label={visible(`${turn.id}, round ${turn.round}, ${to.slice(0, 80)}${turn.right ? `, ${WORDS[mark]}` : ''}`)}
      >
        <span className="who"><bdi><Chars text={turn.role} /></bdi>{turn.mind && <span className="mind" title="changed its mind">↻</span>}{turn.tool_calls.length > 0 && <span className="mind" title="calls a tool">⚒</span>}</span>
        <span className="what">{(turn.right !== null || turn.failure !== null) && <Sign mark={mark} />}<bdi><Chars text={folded ? '' : to.slice(0, 40) || verb(turn.move)} /></bdi></span>
        {share !== null && <span className="share" style={{ width: `${100 * share}%` }} title={`contribution ${number(turn.contribution!)}`} />}
      </button>
      <Handle type="source" position={Position.Bottom} isConnectable={false} />
    </>
  )
})

function TurnLine({ id, source, target, data, markerEnd }: EdgeProps<TurnEdge>) {
  const { related, unfolded, selected } = useContext(Now)
  const near = related.has(id)
  const folded = unfolded !== null && (!unfolded.has(target) || !unfolded.has(source))
  const points = data?.points ?? []
  const half = points[Math.floor((points.length - 1) / 2)]
  const next = points[Math.floor((points.length - 1) / 2) + 1]
  const kinds = `${data?.kind ?? ''} ${near ? 'near' : selected !== null ? 'far' : ''} ${folded ? 'folded' : ''}`
  return (
    <>
      <BaseEdge id={id} path={pathThrough(points)} markerEnd={markerEnd} className={`turnline ${kinds}`} style={data?.weight != null ? { strokeWidth: 1 + 2.5 * Math.min(1, Math.abs(data.weight)) } : undefined} />
      {data?.weight != null && half && next && !folded && (
        <EdgeLabelRenderer>
          <span className={`weight ${near ? 'near' : ''}`} style={{ transform: `translate(-50%, -50%) translate(${(half.x + next.x) / 2}px, ${(half.y + next.y) / 2}px)` }}>{data.weight.toFixed(2)}</span>
        </EdgeLabelRenderer>
      )}
    </>
  )
}

const NODES = { turn: TurnBox }
const EDGES = { turn: TurnLine }
