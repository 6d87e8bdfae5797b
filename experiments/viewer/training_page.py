"""The training page: curves by role and policy, the league, what was gained, and the runs that were played."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from experiments.runs import TRAINING
from experiments.training.league import FILE as LEAGUE
from experiments.training.training import METRICS, Line, Training, read_lines
from experiments.viewer.keys import NotThereError, at, below, text_at
from experiments.viewer.library import Library
from experiments.viewer.records import (
    Count,
    Gained,
    Interval,
    League,
    LeagueCell,
    Player,
    Problem,
    Series,
    TrainingPage,
)

MOST_PLAYERS = 60
MOST_SERIES = 400
_PANELS = (
    ("accuracy", "accuracy"),
    ("reward", "reward"),
    ("attack", "attack and detection"),
    ("detection", "attack and detection"),
    ("detected", "attack and detection"),
    ("gained", "gained"),
    ("pool", "pool"),
    ("fixed", "pool"),
    ("difficulty", "difficulty"),
    ("level", "difficulty"),
    ("solve_rate", "difficulty"),
    ("kl", "KL"),
    ("staleness", "staleness"),
    ("entropy", "entropy"),
    ("loss", "loss"),
    ("clipped", "clipped"),
    ("grad_norm", "gradient"),
    ("gap", "engine and trainer"),
    ("items", "learned from"),
    ("samples", "learned from"),
    ("pairs", "learned from"),
    ("tokens", "learned from"),
    ("left_out", "learned from"),
    ("seconds", "time"),
)
"""What the name of a metric begins with (or a folder of its path is) -> its panel, in the order of showing."""
_UNITS = {"time": "s", "KL": "nats", "engine and trainer": "nats", "entropy": "nats"}
_NOT_SHOWN = ("kind", "updates", "name", "versions", "version", "ci95", "greedy_ci95", "best")


def lines_of(lines: Sequence[Any]) -> list[Line]:
    """The lines that can be shown: objects that say of what kind they are and after how many updates."""
    return [
        line
        for line in lines
        if isinstance(line, dict) and isinstance(line.get("kind"), str) and type(line.get("updates")) is int
    ]


def read_training(library: Library, key: str) -> TrainingPage:
    """Raises NotThereError: there is no such training."""
    from experiments.viewer.runs_page import read_row

    path, kind = library.find(key)
    if kind != "training":
        raise NotThereError(f"{path.name} is a {kind}, no training")
    problems: list[Problem] = []
    try:
        config = library.config(path, TRAINING)
    except ConfigError as error:
        config, problems = {}, [Problem(where=TRAINING, what=str(error))]
    stamp = library.stamp(path)
    lines = library.keep(("lines", path), stamp, lambda: lines_of(read_lines(path / METRICS)))
    if (skipped := _written(path) - len(lines)) > 0:
        problems.append(Problem(where=METRICS, what=f"{skipped} lines cannot be read"))
    series = list(_series(lines))
    ends = [line for line in lines if line["kind"] == "end"]
    left_out = Counter[str]()
    for line in lines:
        found = line.get("left_out")
        left_out.update({k: v for k, v in found.items() if isinstance(v, int)} if isinstance(found, dict) else {})
    known = list(dict.fromkeys(panel for _, panel in _PANELS))
    panels = [panel for panel in [*known, "other"] if any(one.panel == panel for one in series)]
    league, trouble = library.keep(("league", path), stamp, lambda: _league(path))
    return TrainingPage(
        run=read_row(library, path),
        recipe=text_at(config, "recipe"),
        policies=[(name, text_at(value, "model")) for name, value in (at(config, "policies") or {}).items()],
        roles=[(role, str(policy)) for role, policy in (at(config, "roles") or {}).items()],
        settings=[(name, str(value)) for name, value in (at(config, "settings") or {}).items()],
        panels=panels,
        series=series[:MOST_SERIES],
        league=league,
        gained=library.keep(("gained", path), stamp, lambda: _gained(path, bool(ends))),
        ended=text_at(ends[0], "reason") if ends else None,
        best=at(ends[0], "best") if ends else None,
        left_out=[Count(label=label, n=n) for label, n in left_out.most_common(20)],
        runs=sorted(
            (read_row(library, child) for child in below(library.root, path, "training")),
            key=lambda row: row.created or "",
            reverse=True,
        ),
        config=json.dumps(config, indent=2, ensure_ascii=False),
        problems=[*problems, *trouble],
    )


def _written(path: Path) -> int:
    try:
        with (path / METRICS).open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return 0


def _series(lines: Sequence[Line]) -> Iterator[Series]:
    """Every number of the metrics as a line over updates; those of measurements with their intervals."""
    points: dict[tuple[str, str], list[tuple[int, float | None, Interval | None]]] = {}
    for line in lines:
        if line["kind"] == "end":
            continue
        bounds = {"accuracy": _bounds(line.get("ci95")), "greedy": _bounds(line.get("greedy_ci95"))}
        for names, value in _numbers({k: v for k, v in line.items() if k not in _NOT_SHOWN}, ()):
            where = _placed(line, names)
            points.setdefault(where, []).append((line["updates"], value, bounds.get(names[0])))
    order = {panel: i for i, (_, panel) in reversed(list(enumerate(_PANELS)))}
    for (panel, name), found in sorted(points.items(), key=lambda item: order.get(item[0][0], 99)):
        found.sort(key=lambda point: point[0])
        known = any(bounds for *_, bounds in found)
        yield Series(
            panel=panel,
            name=name,
            unit=_UNITS.get(panel, ""),
            x=[x for x, _, _ in found],
            y=[y for _, y, _ in found],
            low=[bounds[0] if bounds else None for *_, bounds in found] if known else None,
            high=[bounds[1] if bounds else None for *_, bounds in found] if known else None,
        )


def _placed(line: Line, names: Sequence[str]) -> tuple[str, str]:
    """Panel and name of a number: rewards by role, metrics of a policy by its name, measurements by their kind."""
    if names[0] == "rewards":
        return "reward", " · ".join(names[1:])
    if line["kind"] in ("validation", "test") and names[0] in ("accuracy", "greedy"):
        return "accuracy", line["kind"] + (" at temperature 0" if names[0] == "greedy" else "")
    if list(names) == ["accuracy"]:
        return "accuracy", "rollouts"
    owner, rest = (names[1:2], names[2:]) if names[0] == "policies" and len(names) > 2 else ((), names)
    if names[0] in ("seconds", "left_out"):
        kind = () if line["kind"] == "update" else (line["kind"],)
        return ("time" if names[0] == "seconds" else "learned from"), " · ".join((*kind, *names[1:]))
    panel = next((panel for begin, panel in _PANELS if any(part.startswith(begin) for part in rest)), "other")
    return panel, " · ".join((*owner, *rest))


def _numbers(value: Any, names: tuple[str, ...]) -> Iterator[tuple[Sequence[str], float | None]]:
    if isinstance(value, Mapping) and len(names) < 6:
        for name, inner in value.items():
            if names or name not in _NOT_SHOWN:
                yield from _numbers(inner, (*names, str(name)))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield names, float(value) if abs(value) < 1e300 and math.isfinite(value) else None


def _bounds(value: Any) -> Interval | None:
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(bound, (int, float)) for bound in value):
        return float(value[0]), float(value[1])
    return None


def _league(path: Path) -> tuple[League | None, list[Problem]]:
    """Who has won how much against whom."""
    from experiments.training.league import League as Stored

    if not (path / LEAGUE).is_file():
        return None, []
    try:
        stored = Stored.open(path)
        ratings = stored.ratings()
    except (ConfigError, ValueError, TypeError) as error:
        return None, [Problem(where=LEAGUE, what=str(error))]
    games = Counter(name for game in stored.games for name in (game.one, game.other))
    names = list(ratings)[:MOST_PLAYERS]
    place = {name: i for i, name in enumerate(names)}
    scores: dict[tuple[int, int], list[float]] = {}
    for game in stored.games:
        if game.one in place and game.other in place:
            scores.setdefault((place[game.one], place[game.other]), []).append(game.score)
            scores.setdefault((place[game.other], place[game.one]), []).append(1 - game.score)
    players = [Player(name=n, mu=ratings[n].mu, sigma=ratings[n].sigma, games=games[n]) for n in names]
    cells = [
        LeagueCell(one=one, other=other, score=sum(found) / len(found), games=len(found))
        for (one, other), found in sorted(scores.items())
    ]
    return League(players=players, cells=cells), []


def _gained(path: Path, ended: bool) -> Gained | None:
    from experiments.training.report import gain

    if not ended:
        return None
    try:
        found = gain(Training(path))
    except Exception:  # noqa: BLE001 - a damaged measurement costs this figure, not the page
        return None
    if found is None:
        return None
    versus = found.gained
    return Gained(
        before=found.before, after=found.after, difference=versus.difference, interval=versus.interval, p=versus.p
    )
