// Generated from the records of experiments/viewer by records.mjs.

/**
 * Data of the server-sent event `changed`: pages ask again for what they show of these runs.
 */
export interface Changed {
gone: string[]
runs: StoredChange[]
}
/**
 * A run in which something was stored.
 */
export interface StoredChange {
episodes: number
run: string
state: string
}
/**
 * A text, or its beginning.
 */
export interface Clipped {
length: number
text: string
}
/**
 * GET /api/compare?runs=A&runs=B
 */
export interface ComparePage {
costs: CostPoint[]
differences: Difference[]
differing: TaskScores[]
problems: Problem[]
runs: RunRow[]
total_differing: number
}
export interface CostPoint {
accuracy: (number | null)
calls: number
cost: (number | null)
interval: ([number, number] | null)
key: string
name: string
seconds: (number | null)
tokens: number
topology: string
}
/**
 * A run less the baseline, paired by task.
 */
export interface Difference {
difference: number
holm: number
interval: ([number, number] | null)
key: string
losses: number
name: string
p: number
tasks: number
test: string
wins: number
}
/**
 * A task on which runs differ.
 */
export interface TaskScores {
positions: (number | null)[]
scores: (number | null)[]
task: string
}
/**
 * Something that could not be read, and what is shown nevertheless.
 */
export interface Problem {
what: string
where: string
}
/**
 * A run, a training or a sweep in one row.
 */
export interface RunRow {
accuracy: (number | null)
calls: (number | null)
changed: number
cost: (number | null)
created: (string | null)
env: string
episodes: number
failed: number
fork: (Fork | null)
interval: ([number, number] | null)
key: string
kind: ("run" | "training" | "sweep")
model: string
name: string
planned: (number | null)
problems: Problem[]
seconds: (number | null)
seed: (number | null)
split: string
state: ("starting" | "running" | "ended" | "cut short")
tokens: (number | null)
topology: string
under: (string | null)
unparsed: number
unscorable: number
}
/**
 * Where a run was forked from, or what was forked from it.
 */
export interface Fork {
changes: string[]
position: number
run: string
turn: string
}
export interface Count {
label: string
n: number
}
/**
 * GET /api/runs/{run}/episodes/{position}/diff: a branch against its parent.
 */
export interface DiffPage {
branch: string
branch_outcome: string
branch_status: ("correct" | "incorrect" | "unparsed" | "unscorable" | "failed")
fork: Fork
parent_outcome: string
parent_status: ("correct" | "incorrect" | "unparsed" | "unscorable" | "failed")
problems: Problem[]
turns: TurnPair[]
}
/**
 * A turn of a branch beside the parent's of the same id.
 */
export interface TurnPair {
branch: (Clipped | null)
changed: string[]
id: string
parent: (Clipped | null)
same: boolean
}
export interface Edge {
kind: ("reads" | "follows")
source: string
target: string
weight: (number | null)
}
/**
 * GET /api/runs/{run}/episodes/{position}
 */
export interface EpisodePage {
answer: (Clipped | null)
credit: string
disagreements: string[]
edges: Edge[]
env: string
failure: (string | null)
forks: Fork[]
name: string
next: (number | null)
notes: string
parent: (Fork | null)
place: (number | null)
position: number
previous: (number | null)
problems: Problem[]
reason: string
roles: string[]
rounds: RoundView[]
run: string
sample: number
score: (number | null)
seconds: number
siblings: Sibling[]
status: ("correct" | "incorrect" | "unparsed" | "unscorable" | "failed")
stop_reason: string
task: TaskView
topology: string
total: number
turns: TurnView[]
}
export interface RoundView {
contributions: [string, number][]
links: [string, string, number][]
round: number
turns: string[]
}
/**
 * Another sample of the task.
 */
export interface Sibling {
position: number
sample: number
status: ("correct" | "incorrect" | "unparsed" | "unscorable" | "failed")
}
export interface TaskView {
answers: string[]
details: [string, string][]
id: string
question: Clipped
}
export interface TurnView {
advantage: (number | null)
after: number
answer: (string | null)
answered_s: number
asked_s: number
completion_tokens: number
compute_s: number
contribution: (number | null)
failure: (string | null)
finish: string
follows: (string | null)
group: (number | null)
id: string
mean_logprob: (number | null)
mind: (MindChange | null)
move: string
opening: number
policy: string
previous: (string | null)
prompt_tokens: number
queue_s: number
reads: string[]
replayed: boolean
reply: Clipped
result: [string, string][]
retry: boolean
reward: (number | null)
rewards: [string, number][]
right: (("correct" | "incorrect" | "unknown") | null)
role: string
round: number
seed: string
steps: Step[]
temperature: number
tokens: number
tool_calls: ToolCallView[]
top_p: number
version: string
}
/**
 * The role's answer differs from its last one before.
 */
export interface MindChange {
before: string
since: string
turned: (("to right" | "to wrong") | null)
}
export interface Step {
end: number
marks: Mark[]
start: number
}
/**
 * What a critic said of a step.
 */
export interface Mark {
correct: (boolean | null)
turn: string
}
export interface ToolCallView {
arguments: Clipped
id: string
name: string
output: (Clipped | null)
}
export interface EpisodeRow {
answer: (Clipped | null)
calls: number
disagreement: (boolean | null)
failure: (string | null)
opening: (string | null)
position: number
question: Clipped
sample: number
score: (number | null)
seconds: number
status: ("correct" | "incorrect" | "unparsed" | "unscorable" | "failed")
stop_reason: string
task: string
tokens: number
turned: (("to right" | "to wrong") | null)
unread: number
}
/**
 * GET /api/runs/{run}/episodes
 */
export interface EpisodesPage {
episodes: number
looked: number
offset: number
rows: EpisodeRow[]
total: number
}
/**
 * What an exported file holds: pages, by the path under /api that the app would have asked for.
 */
export interface Exported {
answers: {
[k: string]: unknown
}
episodes: EpisodePage[]
format?: 1
left_out: string[]
made: string
run: (RunPage | null)
runs: (RunsPage | null)
title: string
}
/**
 * GET /api/runs/{run}
 */
export interface RunPage {
calls: (Histogram | null)
completion_tokens: number
config: string
digest: (string | null)
filters: FilterCount[]
forks: Fork[]
last_votes: VoteCount[]
looked: number
opening_votes: VoteCount[]
problems: Problem[]
prompt_tokens: number
rewards: Histogram[]
run: RunRow
samples: number
scores: (Histogram | null)
seats: SeatRow[]
seconds: (Histogram | null)
settings: [string, string][]
statuses: Count[]
stop_reasons: Count[]
tasks: number
tokens: (Histogram | null)
unread: number
versions: [string, string][]
}
export interface Histogram {
counts: number[]
edges: number[]
label: string
}
export interface FilterCount {
filter: ("all" | "right" | "wrong" | "failed" | "unscorable" | "unparsed" | "disagreement" | "flipped to right" | "flipped to wrong")
n: number
}
/**
 * Episodes in which `agreeing` of `of` answers were the same.
 */
export interface VoteCount {
agreeing: number
episodes: number
of: number
right: number
}
/**
 * Who plays a role.
 */
export interface SeatRow {
model: string
role: string
settings: [string, string][]
}
/**
 * GET /api/runs
 */
export interface RunsPage {
problems: Problem[]
runs: RunRow[]
under: (string | null)
}
/**
 * GET …/episodes/{position}/fork: what a fork of this episode can change, and what it would ask.
 */
export interface ForkChoices {
models: string[]
possible: boolean
roles: [string, string][]
seed: string
why_not: (string | null)
}
/**
 * POST /api/fork
 */
export interface ForkWish {
message?: (string | null)
model?: (string | null)
models: string[]
position: number
reply?: (string | null)
run: string
seed?: (number | null)
settings?: {
[k: string]: string
}
turn: string
}
/**
 * The branch.
 */
export interface Forked {
changes: ("model" | "settings" | "seed" | "message" | "reply")[]
position: number
run: string
turn: string
}
export interface Gained {
after: number
before: number
difference: number
interval: ([number, number] | null)
p: number
}
/**
 * GET /api/runs/{run}/grid
 */
export interface GridPage {
offset: number
rows: GridRow[]
samples: number
total: number
}
/**
 * A task.
 */
export interface GridRow {
cells: string
positions: number[]
task: string
}
export interface HTTPValidationError {
detail?: ValidationError[]
}
export interface ValidationError {
ctx?: {

}
input?: unknown
loc: (string | number)[]
msg: string
type: string
}
export interface League {
cells: LeagueCell[]
players: Player[]
}
export interface LeagueCell {
games: number
one: number
other: number
score: number
}
export interface Player {
games: number
mu: (number | null)
name: string
sigma: (number | null)
}
export interface MessageView {
content: Clipped
role: string
tool_calls: ToolCallView[]
turn: (string | null)
}
/**
 * GET …/turns/{turn}/prompt?whole=true
 */
export interface PromptView {
messages: MessageView[]
text: (Clipped | null)
tokens: number
turn: string
}
/**
 * One line of a chart.
 */
export interface Series {
high: ((number | null)[] | null)
low: ((number | null)[] | null)
name: string
panel: string
unit: string
x: number[]
y: (number | null)[]
}
/**
 * GET …/turns/{turn}/reply: the whole text.
 */
export interface TextView {
text: string
turn: string
}
/**
 * GET …/turns/{turn}/tokens
 */
export interface TokensView {
certainty: number[]
choices: number[]
ids: number[]
logprobs: number[]
pieces: (string[] | null)
turn: string
why_not: (string | null)
}
/**
 * GET /api/runs/{run}/training
 */
export interface TrainingPage {
best: (number | null)
config: string
ended: (string | null)
gained: (Gained | null)
league: (League | null)
left_out: Count[]
panels: string[]
policies: [string, string][]
problems: Problem[]
recipe: string
roles: [string, string][]
run: RunRow
runs: RunRow[]
series: Series[]
settings: [string, string][]
}
