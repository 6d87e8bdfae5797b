// What is shown of replies: their steps with critics' marks, and what changed between two of them.
import { diffLines, diffWordsWithSpace } from 'diff'
import type { Step, TurnView } from '../records'

export interface Segment {
  text: string
  /** Given, not sampled. */
  opening: boolean
  step: Step | null
}

/** A reply cut where its opening ends and its steps begin and end. Steps that lie outside or overlap are passed over. */
export function segments(text: string, opening: number, steps: Step[]): Segment[] {
  const kept: Step[] = []
  for (const step of [...steps].sort((a, b) => a.start - b.start))
    if (step.start >= (kept.at(-1)?.end ?? 0) && step.end > step.start && step.start < text.length) kept.push(step)
  const cuts = [...new Set([0, Math.min(opening, text.length), text.length, ...kept.flatMap((step) => [step.start, Math.min(step.end, text.length)])])]
  cuts.sort((a, b) => a - b)
  return cuts.slice(1).map((end, i) => {
    const start = cuts[i]!
    return { text: text.slice(start, end), opening: end <= opening, step: kept.find((step) => step.start <= start && end <= step.end) ?? null }
  }).filter((segment) => segment.text !== '')
}

export interface Piece {
  text: string
  kind: 'same' | 'added' | 'removed'
}

/** By words; long texts by lines; null where they differ in too much to be worth showing. */
export function changes(before: string, after: string): Piece[] | null {
  const found = before.length + after.length > 30_000
    ? diffLines(before, after, { timeout: 400 })
    : diffWordsWithSpace(before, after, { timeout: 400 })
  return found?.map((part) => ({ text: part.value, kind: part.added ? 'added' : part.removed ? 'removed' : 'same' })) ?? null
}

const VERBS: Record<string, string> = {
  solve: 'solves', revise: 'revises', oppose: 'opposes', rebut: 'answers back', restate: 'restates', moderate: 'moderates',
  list_candidates: 'lists the candidates', conclude: 'decides', critique: 'checks a step', judge: 'judges', chat: '',
  sabotage: 'sabotages a step', propose: 'proposes a problem', review: 'reviews', choose: 'chooses',
}

export const verb = (move: string) => VERBS[move] ?? move

/** In a few words what the reply came to, where it is no answer. */
export function cameTo(turn: Pick<TurnView, 'failure' | 'answer' | 'result' | 'tool_calls'>): string {
  if (turn.failure !== null) return 'not readable'
  if (turn.answer !== null) return turn.answer
  if (turn.tool_calls.length) return `calls ${turn.tool_calls.map((call) => call.name).join(', ')}`
  const fields = new Map(turn.result)
  const type = fields.get('type')
  if (type === 'Critique' || type === 'Review') return /true/i.test(fields.get('correct') ?? '') ? 'says correct' : 'says incorrect'
  if (type === 'Judgement') return `chooses ${fields.get('choice') ?? ''}`
  if (type === 'Choice') return `chooses ${fields.get('number') ?? ''}`
  if (type === 'Moderation') return 'no preference yet'
  if (type === 'Sabotage') return fields.get('kind') ?? ''
  return ''
}
