"""What the episode page is given; see experiments.viewer.records."""

from typing import Any, Literal

from pydantic import Field

from experiments.viewer.records import Change, Clipped, Fork, Problem, Record, Right, RunPage, RunsPage, Status, Turned


class TaskView(Record):
    id: str
    question: Clipped
    answers: list[str]
    details: list[tuple[str, str]]


class ToolCallView(Record):
    id: str
    name: str
    arguments: Clipped
    output: Clipped | None
    """What the tool gave back, where a later turn's messages hold it."""


class MindChange(Record):
    """The role's answer differs from its last one before."""

    since: str
    """Turn id."""
    before: str
    turned: Turned | None
    """None where both are right, both wrong or one unknown."""


class Mark(Record):
    """What a critic said of a step."""

    turn: str
    correct: bool | None
    """None where it could not be read."""


class Step(Record):
    start: int
    end: int
    """Characters of the reply, in UTF-16 units as JavaScript counts."""
    marks: list[Mark]


class TurnView(Record):
    id: str
    role: str
    move: str
    round: int
    after: int
    """How many turns had been taken when it was asked."""
    reads: list[str]
    follows: str | None
    previous: str | None
    """The role's own turn before, which a diff begins from."""
    retry: bool
    reply: Clipped
    opening: int
    """Characters at the reply's beginning that were given, not sampled; UTF-16 units."""
    tool_calls: list[ToolCallView]
    result: list[tuple[str, str]]
    """What the parser made of the reply, by field; `type` first."""
    failure: str | None
    """What the parser had expected."""
    answer: str | None
    right: Right | None
    """Of the answer; None without one."""
    group: int | None
    """Equal answers of the episode have the same number, from 0 in the order of their coming."""
    mind: MindChange | None
    steps: list[Step]
    """Where critics marked them."""
    policy: str
    version: str
    finish: str
    temperature: float
    top_p: float
    seed: str
    """As text: JavaScript's numbers end at 2 ** 53."""
    prompt_tokens: int
    completion_tokens: int
    tokens: int
    """Token ids that are stored; 0 where the engine gave none."""
    mean_logprob: float | None
    """Nats a token."""
    asked_s: float
    answered_s: float
    queue_s: float
    compute_s: float
    rewards: list[tuple[str, float]]
    """By term; empty where the credit is not known."""
    reward: float | None
    advantage: float | None
    contribution: float | None
    """What SelfOrg measured of this reply."""
    replayed: bool
    """In a fork: as recorded in the parent."""


class Edge(Record):
    source: str
    target: str
    """Turn ids; the target was shown the source's words, or goes on from it."""
    kind: Literal["reads", "follows"]
    weight: float | None
    """Where the topology wrote one down, as SelfOrg does."""


class RoundView(Record):
    round: int
    turns: list[str]
    contributions: list[tuple[str, float]]
    """Role -> contribution, as measured after this round."""
    links: list[tuple[str, str, float]]
    """Role that is read, role that reads, weight: the graph built after this round."""


class Sibling(Record):
    """Another sample of the task."""

    position: int
    sample: int
    status: Status


class EpisodePage(Record):
    """GET /api/runs/{run}/episodes/{position}"""

    run: str
    name: str
    topology: str
    env: str
    position: int
    previous: int | None
    next: int | None
    """Positions under the filter and sort that were asked for."""
    place: int | None
    """Among those, from 0; None where it is not of them."""
    total: int
    task: TaskView
    sample: int
    status: Status
    score: float | None
    reason: str
    answer: Clipped | None
    stop_reason: str
    failure: str | None
    seconds: float
    roles: list[str]
    """In the order in which they first spoke."""
    turns: list[TurnView]
    edges: list[Edge]
    rounds: list[RoundView]
    disagreements: list[str]
    """The first turn of each round in which answers differ, for going from one to the next."""
    notes: str
    """What else the topology wrote down, as indented JSON; empty without."""
    credit: str
    """How rewards were found, or why there are none; empty where nothing was trained."""
    siblings: list[Sibling]
    parent: Fork | None
    forks: list[Fork]
    problems: list[Problem]


class TextView(Record):
    """GET …/turns/{turn}/reply: the whole text."""

    turn: str
    text: str


class TokensView(Record):
    """GET …/turns/{turn}/tokens"""

    turn: str
    ids: list[int]
    pieces: list[str] | None
    """Text of each; None where the model's tokenizer is not at hand. Joined they are what was sampled."""
    logprobs: list[float]
    """Nats, of each; empty where the engine gave none."""
    certainty: list[float]
    choices: list[float]
    """Log-probabilities of the choices, where the reply was chosen and not sampled."""
    why_not: str | None
    """Why there are no ids or no pieces."""


class MessageView(Record):
    role: str
    content: Clipped
    tool_calls: list[ToolCallView]
    turn: str | None
    """The turn of this conversation that brought or gave it; its own new messages have its own id."""


class PromptView(Record):
    """GET …/turns/{turn}/prompt?whole=true"""

    turn: str
    messages: list[MessageView]
    text: Clipped | None
    """The prompt's token ids as text: exactly what the model saw. None where the tokenizer is not at hand."""
    tokens: int


class TurnPair(Record):
    """A turn of a branch beside the parent's of the same id."""

    id: str
    parent: Clipped | None
    branch: Clipped | None
    """Replies; None where there is no such turn."""
    same: bool
    """Replayed, or said the same again."""
    changed: list[str]
    """What else differs: answer, model, policy, messages, …"""


class DiffPage(Record):
    """GET /api/runs/{run}/episodes/{position}/diff: a branch against its parent."""

    fork: Fork
    """`run` is the parent."""
    branch: str
    parent_outcome: str
    branch_outcome: str
    """Stop reason, answer and verdict in words."""
    parent_status: Status
    branch_status: Status
    turns: list[TurnPair]
    problems: list[Problem]


class ForkChoices(Record):
    """GET …/episodes/{position}/fork: what a fork of this episode can change, and what it would ask."""

    possible: bool
    why_not: str | None
    roles: list[tuple[str, str]]
    """Role -> model that would be asked."""
    models: list[str]
    """Kinds of models that can be named."""
    seed: str


class ForkWish(Record):
    """POST /api/fork"""

    run: str
    position: int
    turn: str
    model: str | None = None
    """For the turn's role, from this turn on."""
    settings: dict[str, str] = Field(default_factory=dict)
    """ROLE.KEY -> value, as with --set."""
    seed: int | None = None
    message: str | None = None
    """In place of the turn's last message."""
    reply: str | None = None
    """In place of the turn's reply: nothing is sampled for it."""
    models: list[str]
    """The models that the page has said will be asked. The server asks no other: an endpoint is sent a key."""


class Forked(Record):
    """The branch."""

    run: str
    position: int
    turn: str
    changes: list[Change]


class StoredChange(Record):
    """A run in which something was stored."""

    run: str
    episodes: int
    state: str


class Changed(Record):
    """Data of the server-sent event `changed`: pages ask again for what they show of these runs."""

    runs: list[StoredChange]
    gone: list[str]


class Exported(Record):
    """What an exported file holds: pages, by the path under /api that the app would have asked for."""

    format: Literal[1] = 1
    made: str
    title: str
    runs: RunsPage | None
    run: RunPage | None
    episodes: list[EpisodePage]
    answers: dict[str, Any]
    """Path -> any other answer: compare, training, grid, tokens, prompts, replies."""
    left_out: list[str]
    """In words: what was left out, and why."""
