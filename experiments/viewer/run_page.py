"""The run page: what a run was, its outcomes as figures and as a grid, and its episodes by filter."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from agents.cast import Seat
from envs.errors import ConfigError
from experiments.spending import price_of
from experiments.store import StoreReader
from experiments.viewer.keys import NotThereError, at, int_at, text_at
from experiments.viewer.library import Library, Looks, Outcome, Outcomes
from experiments.viewer.looking import Look, Vote
from experiments.viewer.records import (
    Clipped,
    Count,
    EpisodeRow,
    EpisodesPage,
    Filter,
    FilterCount,
    GridPage,
    GridRow,
    Histogram,
    RunPage,
    SeatRow,
    Sort,
    VoteCount,
)
from experiments.viewer.rewards import reward_histograms
from experiments.viewer.runs_page import forks_of, prices, read_row

BARS = 20
MOST_VALUE = 1e15
"""Values beyond it, and those that are no numbers, are in no histogram."""
LETTERS = {"correct": "c", "incorrect": "i", "unparsed": "p", "unscorable": "s", "failed": "f"}
QUESTION = 200
"""Characters of a question in a list of episodes."""


def open_run(library: Library, key: str) -> tuple[Path, Outcomes, Looks]:
    """A run's folder, its rows, and what is known of its turns.

    Raises:
        NotThereError: there is no such run, or it is a training or a sweep.
    """
    path, kind = library.find(key)
    if kind != "run":
        raise NotThereError(f"{path.name} is a {kind}: it has runs, and no episodes of its own")
    outcomes = library.outcomes(path)
    return path, outcomes, library.looks(path, outcomes)


def read_run(library: Library, key: str) -> RunPage:
    """Raises NotThereError."""
    path, outcomes, looks = open_run(library, key)
    row, rows = read_row(library, path), outcomes.rows
    try:
        config = library.config(path)
    except ConfigError:
        config = {}
    known = [looks.by_position[row.position] for row in rows if row.position in looks.by_position]
    right = [row.status == "correct" for row in rows if row.position in looks.by_position]
    if row.cost is None and len(known) == len(rows):
        row = row.model_copy(update={"cost": _cost(library, config.get("cast"), looks)})
    return RunPage(
        run=row,
        samples=int_at(config, "samples") or max((row.sample + 1 for row in rows), default=1),
        tasks=len(outcomes.by_task),
        seats=_seats(config.get("cast")),
        settings=_settings(config),
        versions=sorted((name, str(value)) for name, value in (at(config, "versions") or {}).items()),
        statuses=_counted(row.status for row in rows),
        stop_reasons=_counted(row.stop_reason for row in rows if row.stop_reason)[:50],
        filters=[FilterCount(filter=name, n=_matching(outcomes, looks, name)) for name in get_args(Filter)],
        scores=histogram("score", [row.score for row in rows if row.score is not None], (0.0, 1.0)),
        rewards=reward_histograms(library, path, len(rows)),
        calls=histogram("calls", [row.calls for row in rows]),
        tokens=histogram("tokens", [row.tokens for row in rows]),
        seconds=histogram("seconds", [row.seconds for row in rows]),
        opening_votes=_votes([look.opening_vote for look in known], right),
        last_votes=_votes([look.last_vote for look in known], right),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        unread=sum(row.unread for row in rows),
        looked=len(known),
        forks=[fork.model_copy(update={"run": branch}) for branch, fork in forks_of(library, key)],
        digest=library.keep(("digest", path), library.stamp(path), lambda: _digest(path)),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        problems=[*row.problems, *looks.problems[:20]],
    )


def read_grid(library: Library, key: str, offset: int, limit: int) -> GridPage:
    """Tasks in the order of the run, each with its samples."""
    _, outcomes, _ = open_run(library, key)
    tasks = list(outcomes.by_task.items())
    wide = max((row.sample + 1 for row in outcomes.rows), default=0)
    rows = []
    for task, places in tasks[offset : offset + limit]:
        by_sample = {outcomes.rows[place].sample: outcomes.rows[place] for place in places}
        cells = [by_sample.get(sample) for sample in range(min(wide, 1000))]
        letters = "".join("." if cell is None else LETTERS.get(cell.status, "s") for cell in cells)
        rows.append(
            GridRow(task=task, cells=letters, positions=[-1 if cell is None else cell.position for cell in cells])
        )
    return GridPage(total=len(tasks), offset=offset, samples=wide, rows=rows)


def read_episodes(
    library: Library, key: str, filter: Filter, sort: Sort, task: str, offset: int, limit: int
) -> EpisodesPage:
    """One page of the episodes that a filter keeps."""
    path, outcomes, looks = open_run(library, key)
    chosen = select(outcomes, looks, filter, sort, task)
    page = [outcomes.rows[place] for place in chosen[offset : offset + limit]]
    questions = _questions(path, [row.position for row in page])
    return EpisodesPage(
        total=len(chosen),
        offset=offset,
        rows=[_row(row, looks.by_position.get(row.position), questions.get(row.position)) for row in page],
        looked=len(looks.by_position),
        episodes=len(outcomes.rows),
    )


def select(outcomes: Outcomes, looks: Looks, filter: Filter, sort: Sort, task: str = "") -> list[int]:
    """Indices of the rows that a filter keeps, in the order of a sort."""
    rows = outcomes.rows
    kept = [i for i, row in enumerate(rows) if _keeps(filter, row, looks.by_position.get(row.position))]
    if task:
        kept = [i for i in kept if task.casefold() in rows[i].task.casefold()]
    if sort == "position":
        return kept
    size = {"longest": lambda i: (rows[i].calls, rows[i].tokens), "slowest": lambda i: rows[i].seconds}
    return sorted(kept, key=size.get(sort, lambda i: rows[i].tokens), reverse=True)


def histogram(label: str, values: Sequence[float], bounds: tuple[float, float] | None = None) -> Histogram | None:
    """Bars of equal width; of whole numbers that lie close together, one each. None without values."""
    finite = np.array([value for value in values if abs(value) < MOST_VALUE], float)
    if not len(finite):
        return None
    low, high = bounds or (float(finite.min()), float(finite.max()))
    if not bounds and (finite == finite.round()).all() and high - low < BARS:
        low, high = low - 0.5, high + 0.5
        bars = int(high - low)
    else:
        bars = BARS
    counts, edges = np.histogram(finite, bars, (low, high if high > low else low + 1.0))
    return Histogram(label=label, edges=edges.tolist(), counts=counts.tolist())


def _keeps(filter: Filter, row: Outcome, look: Look | None) -> bool:
    match filter:
        case "all":
            return True
        case "right":
            return row.status == "correct"
        case "wrong":
            return row.status in ("incorrect", "unparsed")
        case "failed" | "unscorable" | "unparsed":
            return row.status == filter
        case "disagreement":
            return look is not None and look.disagreement
        case "flipped to right" | "flipped to wrong":
            return look is not None and look.turned == filter.removeprefix("flipped ")


def _matching(outcomes: Outcomes, looks: Looks, filter: Filter) -> int:
    return sum(_keeps(filter, row, looks.by_position.get(row.position)) for row in outcomes.rows)


def _row(row: Outcome, look: Look | None, question: Clipped | None) -> EpisodeRow:
    answer = None if row.answer is None else Clipped(text=row.answer, length=row.answer_length or len(row.answer))
    return EpisodeRow(
        position=row.position,
        task=row.task,
        sample=row.sample,
        status=row.status if row.status in LETTERS else "unscorable",  # pyright: ignore[reportArgumentType]
        score=row.score,
        answer=answer,
        question=question or Clipped(text="", length=0),
        stop_reason=row.stop_reason,
        failure=row.failure,
        calls=row.calls,
        tokens=row.tokens,
        unread=row.unread,
        seconds=row.seconds,
        opening=look and look.opening,
        disagreement=look and look.disagreement,
        turned=look and look.turned,
    )


def _questions(path: Path, positions: Sequence[int]) -> dict[int, Clipped]:
    """Only those that are shown are read: their texts lie in the episodes' bodies."""
    if not positions:
        return {}
    question = "CASE WHEN json_valid(body) THEN json_extract(body, '$.task.question') END"
    query = (
        f"SELECT position, substr({question}, 1, {QUESTION}), length({question}) FROM episodes WHERE position IN "
        f"({', '.join('?' * len(positions))})"
    )
    try:
        found = StoreReader(path).rows(query, *positions)
    except (sqlite3.Error, ConfigError):
        return {}
    return {position: Clipped(text=text or "", length=length or 0) for position, text, length in found}


def _votes(votes: Sequence[Vote | None], right: Sequence[bool]) -> list[VoteCount]:
    pairs = [(vote, ok) for vote, ok in zip(votes, right, strict=True) if vote is not None]
    episodes, correct = Counter(vote for vote, _ in pairs), Counter(vote for vote, ok in pairs if ok)
    return [
        VoteCount(agreeing=agreeing, of=of, episodes=n, right=correct[agreeing, of])
        for (agreeing, of), n in sorted(episodes.items(), key=lambda item: (item[0][1], item[0][0]))
    ]


def _counted(labels: Iterable[str]) -> list[Count]:
    return [Count(label=label, n=n) for label, n in Counter(labels).most_common()]


def _seats(cast: Any) -> list[SeatRow]:
    defaults = Seat().model_dump(mode="json")
    rows = []
    for role, seat in cast.items() if isinstance(cast, dict) else ():
        given = seat.items() if isinstance(seat, dict) else ()
        other = [(name, value) for name, value in given if name != "model" and value != defaults.get(name)]
        settings = [
            (name, value if isinstance(value, str) else json.dumps(value)) for name, value in other if value != []
        ]
        rows.append(SeatRow(role=role, model=text_at(seat, "model"), settings=settings))
    return rows


def _cost(library: Library, cast: Any, looks: Looks) -> float | None:
    """Of all roles, each by the price of its model."""
    total = 0.0
    for role in {role for role, _ in looks.tokens}:
        price = price_of(text_at(cast, role, "model") or text_at(cast, "*", "model"), prices(library))
        if price is None:
            return None
        total += price.of(looks.tokens[role, "prompt"], looks.tokens[role, "completion"])
    return total if looks.tokens else None


def _settings(config: dict[str, Any]) -> list[tuple[str, str]]:
    """Of topology and env, and how the run was made."""
    found = [(name, str(value)) for name, value in (at(config, "topology", "settings") or {}).items()]
    found += [(f"env.{name}", str(value)) for name, value in (at(config, "env", "settings") or {}).items()]
    return [*found, *((name, text_at(config, name)) for name in ("concurrency", "backend") if text_at(config, name))]


def _digest(path: Path) -> str | None:
    try:
        return StoreReader(path).digest()
    except (sqlite3.Error, ConfigError):
        return None
