"""What the viewer's pages are given: the one contract between server, pages and exported files.

TypeScript's types are generated from these models (experiments.viewer.schema). Text of models, tasks and users is data:
it is shown as text, whatever it holds. A run is named by its `key`: the folders from the root down to it, with `~`
between them (`first~rollouts~0003`); a `~` within a folder's name is written `~.`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Interval = tuple[float, float]
"""95 %: from, to."""
Status = Literal["correct", "incorrect", "unparsed", "unscorable", "failed"]
Right = Literal["correct", "incorrect", "unknown"]
"""Of an answer on the way: the verdict where the env gave one for it, else a comparison with the task's answers."""
State = Literal["starting", "running", "ended", "cut short"]
"""starting: nothing is stored yet; cut short: unfinished, and for some minutes nothing was added."""
Turned = Literal["to right", "to wrong"]
Filter = Literal[
    "all", "right", "wrong", "failed", "unscorable", "unparsed", "disagreement", "flipped to right", "flipped to wrong"
]
"""wrong: judged, and not correct; disagreement: two answers of one round differ; flipped: what most answered in the
opening round and the final answer, one of them right and the other wrong."""
Sort = Literal["position", "longest", "slowest", "tokens"]
"""position: as in the run; the others: the largest first."""
Change = Literal["model", "settings", "seed", "message", "reply"]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Clipped(Record):
    """A text, or its beginning."""

    text: str
    length: int
    """Characters of the whole. The whole of a longer one is to be had on demand."""


class Problem(Record):
    """Something that could not be read, and what is shown nevertheless."""

    where: str
    what: str


class Fork(Record):
    """Where a run was forked from, or what was forked from it."""

    run: str
    """Key of the other run: the parent, or the branch."""
    position: int
    turn: str
    """Turn that was changed; its id in the parent."""
    changes: list[str]
    """In words: "model of judge: hf:/models/a"."""


class RunRow(Record):
    """A run, a training or a sweep in one row."""

    key: str
    name: str
    kind: Literal["run", "training", "sweep"]
    under: str | None
    """Key of the training or sweep that it is part of."""
    topology: str
    env: str
    model: str
    """All models of the cast, with commas between. A recipe's name comes before, where it is a training."""
    split: str
    seed: int | None
    planned: int | None
    """Episodes that were asked for; of a training its iterations, of a sweep its runs."""
    episodes: int
    """Stored; of a training the updates done, of a sweep the runs there are."""
    failed: int
    unscorable: int
    unparsed: int
    accuracy: float | None
    """0 to 1, over tasks; of a training the last measurement."""
    interval: Interval | None
    calls: float | None
    """An episode, mean."""
    tokens: float | None
    """Prompt and completion, an episode, mean."""
    cost: float | None
    """US dollars in all, where prices are known."""
    seconds: float | None
    """Of the whole run; None while it is going on, and when it was cut short."""
    state: State
    created: str | None
    """ISO 8601."""
    changed: float
    """Seconds since 1970: when something was last stored."""
    fork: Fork | None
    problems: list[Problem]


class RunsPage(Record):
    """GET /api/runs"""

    under: str | None
    runs: list[RunRow]
    """Newest first."""
    problems: list[Problem]


class Count(Record):
    label: str
    n: int


class Histogram(Record):
    label: str
    edges: list[float]
    """One more than counts."""
    counts: list[int]


class VoteCount(Record):
    """Episodes in which `agreeing` of `of` answers were the same."""

    agreeing: int
    of: int
    episodes: int
    right: int
    """Of these, episodes whose final answer is correct."""


class SeatRow(Record):
    """Who plays a role."""

    role: str
    model: str
    settings: list[tuple[str, str]]
    """Those that are not the default: temperature, instructions, …"""


class FilterCount(Record):
    filter: Filter
    n: int


class RunPage(Record):
    """GET /api/runs/{run}"""

    run: RunRow
    samples: int
    tasks: int
    """That have at least one episode."""
    seats: list[SeatRow]
    settings: list[tuple[str, str]]
    """Of topology, env, engine and pool, by their path."""
    versions: list[tuple[str, str]]
    statuses: list[Count]
    stop_reasons: list[Count]
    filters: list[FilterCount]
    scores: Histogram | None
    rewards: list[Histogram]
    """By role; of a training's rollouts."""
    calls: Histogram | None
    tokens: Histogram | None
    seconds: Histogram | None
    opening_votes: list[VoteCount]
    """How many answers of the opening round agreed."""
    last_votes: list[VoteCount]
    """The same of the last round in which several answered."""
    prompt_tokens: int
    completion_tokens: int
    unread: int
    """Replies that could not be parsed."""
    looked: int
    """Episodes whose turns have been looked through: what needs them (disagreement, flips, votes) counts these alone.
    Grows while the server looks; the page asks again."""
    forks: list[Fork]
    digest: str | None
    config: str
    """config.json, indented."""
    problems: list[Problem]


class GridRow(Record):
    """A task."""

    task: str
    cells: str
    """A letter a sample: c correct, i incorrect, p unparsed, s unscorable, f failed, `.` not there."""
    positions: list[int]
    """Of the episodes; -1 where there is none."""


class GridPage(Record):
    """GET /api/runs/{run}/grid"""

    total: int
    """Tasks."""
    offset: int
    samples: int
    rows: list[GridRow]


class EpisodeRow(Record):
    position: int
    """In the run, from 0. People are shown it from 1, as `palaestra show` counts."""
    task: str
    sample: int
    status: Status
    score: float | None
    answer: Clipped | None
    question: Clipped
    stop_reason: str
    failure: str | None
    calls: int
    tokens: int
    unread: int
    seconds: float
    opening: str | None
    """What most answered in the opening round. None too as long as the turns have not been looked through."""
    disagreement: bool | None
    turned: Turned | None


class EpisodesPage(Record):
    """GET /api/runs/{run}/episodes"""

    total: int
    """Under the filter."""
    offset: int
    rows: list[EpisodeRow]
    looked: int
    """See RunPage."""
    episodes: int


class CostPoint(Record):
    key: str
    name: str
    topology: str
    accuracy: float | None
    interval: Interval | None
    calls: float
    tokens: float
    """An episode, mean."""
    cost: float | None
    seconds: float | None


class Difference(Record):
    """A run less the baseline, paired by task."""

    key: str
    name: str
    tasks: int
    difference: float
    interval: Interval | None
    wins: int
    losses: int
    p: float
    holm: float
    """p corrected for the number of runs compared."""
    test: str


class TaskScores(Record):
    """A task on which runs differ."""

    task: str
    scores: list[float | None]
    """Mean over its samples, in the order of the runs."""
    positions: list[int | None]
    """Of the first episode on it in each run."""


class ComparePage(Record):
    """GET /api/compare?runs=A&runs=B"""

    runs: list[RunRow]
    """The first is the baseline."""
    differences: list[Difference]
    costs: list[CostPoint]
    differing: list[TaskScores]
    """Those on which they differ most, at most 200."""
    total_differing: int
    problems: list[Problem]


class Series(Record):
    """One line of a chart."""

    panel: str
    """Charts that belong together: accuracy, reward, attack and detection, difficulty, kl, entropy, staleness, …"""
    name: str
    """A role, a policy, or what is measured."""
    unit: str
    x: list[int]
    """Updates done."""
    y: list[float | None]
    low: list[float | None] | None
    high: list[float | None] | None


class Player(Record):
    name: str
    mu: float | None
    sigma: float | None
    games: int


class LeagueCell(Record):
    one: int
    other: int
    """Indices of players."""
    score: float
    """Of one against other: mean, 0 to 1."""
    games: int


class League(Record):
    players: list[Player]
    """The strongest first."""
    cells: list[LeagueCell]
    """Of pairs that have played, each both ways."""


class Gained(Record):
    before: float
    after: float
    difference: float
    interval: Interval | None
    p: float


class TrainingPage(Record):
    """GET /api/runs/{run}/training"""

    run: RunRow
    recipe: str
    policies: list[tuple[str, str]]
    """Policy -> model."""
    roles: list[tuple[str, str]]
    """Role -> policy; an empty role stands for all others."""
    settings: list[tuple[str, str]]
    panels: list[str]
    """In the order in which they are to be shown."""
    series: list[Series]
    league: League | None
    gained: Gained | None
    ended: str | None
    """Why it ended."""
    best: int | None
    """After how many updates."""
    left_out: list[Count]
    """What trained nothing, over all updates."""
    runs: list[RunRow]
    """Its rollouts and measurements, newest first."""
    config: str
    problems: list[Problem]
