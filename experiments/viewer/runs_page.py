"""The runs page: a row for every run, training and sweep of a folder."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from experiments import stats
from experiments.runs import CONFIG, RESULT, SWEEP, TRAINING
from experiments.spending import PRICES, Price, price_of, read_prices
from experiments.training.training import METRICS, read_lines
from experiments.viewer.keys import Kind, NotThereError, at, below, int_at, kind_of, read_json, text_at
from experiments.viewer.library import Library, Outcomes
from experiments.viewer.records import Fork, Problem, RunRow, RunsPage, State
from experiments.viewer.training_page import lines_of

QUIET_S = 300.0
"""After so long without anything stored, an unfinished run is taken for cut short."""


def read_runs(library: Library, under: str | None = None) -> RunsPage:
    """The runs of the root, or of a training or sweep.

    Raises:
        NotThereError: `under` names neither.
    """
    folder, kind = (library.root, None) if under is None else library.find(under)
    if kind == "run":
        raise NotThereError(f"{folder.name} is a run: it has no runs of its own")
    rows = [read_row(library, path) for path in below(library.root, folder, kind)]
    problems = []
    if under is None and not folder.is_dir():
        problems.append(Problem(where=folder.name, what="there is no such folder yet; palaestra run makes it"))
    return RunsPage(under=under, runs=sorted(rows, key=lambda row: row.created or "", reverse=True), problems=problems)


def read_row(library: Library, path: Path) -> RunRow:
    """One run in figures. What cannot be read is said in its problems, and never raised."""
    kind, stamp = kind_of(path), library.stamp(path)
    made = {"training": _training_row, "sweep": _sweep_row}.get(kind or "", _run_row)
    priced = library.stamp_of(library.root / PRICES)
    row = library.keep(
        ("row", path), () if kind == "sweep" else stamp + priced, lambda: made(library, path, prices(library))
    )
    # How long nothing was stored is for the clock to say, not for the files.
    quiet = row.state in ("running", "starting") and time.time() - row.changed > QUIET_S
    return row.model_copy(update={"state": "cut short"}) if quiet else row


def model_names(config: Mapping[str, Any]) -> list[str]:
    cast = config.get("cast")
    seats = cast.values() if isinstance(cast, dict) else []
    return sorted({text_at(seat, "model") for seat in seats} - {""})


def fork_of(config: Mapping[str, Any]) -> Fork | None:
    """Where a run was forked from, as its configuration says."""
    found = config.get("fork")
    position = int_at(found, "position")
    if not isinstance(found, dict) or position is None:
        return None
    changes = [str(change) for change in found.get("changes") or []]
    return Fork(run=text_at(found, "run"), position=position, turn=text_at(found, "turn"), changes=changes)


def forks_of(library: Library, key: str) -> list[tuple[str, Fork]]:
    """(key of the branch, fork as the branch tells of it) of all runs in the root that were forked from a run."""
    found = []
    for path in below(library.root, library.root, None):
        try:
            fork = fork_of(library.config(path)) if (path / CONFIG).is_file() else None
        except ConfigError:
            continue
        if fork is not None and fork.run == key:
            found.append((library.key(path), fork))
    return found


def _run_row(library: Library, path: Path, known: dict[str, Price]) -> RunRow:
    problems: list[Problem] = []
    try:
        config = library.config(path)
    except ConfigError as error:
        config, problems = {}, [Problem(where=CONFIG, what=str(error))]
    outcomes = library.outcomes(path)
    models = model_names(config)
    seconds = None
    if (path / RESULT).is_file():
        try:
            taken = at(read_json(path / RESULT), "seconds")
            seconds = None if taken is None else float(taken)
        except (ConfigError, TypeError, ValueError):
            problems.append(Problem(where=RESULT, what="does not say how long the run took"))
    tasks, samples = int_at(config, "tasks"), int_at(config, "samples")
    state: State = "ended" if (path / RESULT).is_file() else "running" if outcomes.rows else "starting"
    return RunRow(
        **_named(library, path, "run"),
        topology=text_at(config, "topology", "name"),
        env=text_at(config, "env", "name"),
        model=", ".join(models),
        split=text_at(config, "env", "split"),
        seed=int_at(config, "seed"),
        planned=None if tasks is None or samples is None else tasks * samples,
        seconds=seconds,
        state=state,
        created=text_at(config, "created") or None,
        changed=_changed(library, path),
        fork=fork_of(config),
        problems=[*problems, *outcomes.problems],
        cost=_cost(models, outcomes, known),
        **figures(outcomes),
    )


def figures(outcomes: Outcomes) -> dict[str, Any]:
    """The fields of a row that are counted from episodes."""
    rows, n = outcomes.rows, len(outcomes.rows)
    status = Counter(row.status for row in rows)
    return {
        "episodes": n,
        "failed": status["failed"],
        "unscorable": status["unscorable"],
        "unparsed": status["unparsed"],
        "accuracy": stats.mean_score(outcomes.scores),
        "interval": stats.mean_interval(outcomes.scores),
        "calls": sum(row.calls for row in rows) / n if n else None,
        "tokens": sum(row.tokens for row in rows) / n if n else None,
    }


def _training_row(library: Library, path: Path, _: dict[str, Any]) -> RunRow:
    problems: list[Problem] = []
    try:
        config = library.config(path, TRAINING)
    except ConfigError as error:
        config, problems = {}, [Problem(where=TRAINING, what=str(error))]
    lines = lines_of(read_lines(path / METRICS))
    measured = [line for line in lines if line["kind"] in ("test", "validation") and line.get("name") != "first"]
    last = measured[-1] if measured else {}
    ended = [line for line in lines if line["kind"] == "end"]
    accuracy, bounds = last.get("accuracy"), last.get("ci95")
    models = ", ".join(model_names(config))
    return RunRow(
        **_named(library, path, "training"),
        topology=text_at(config, "topology", "name"),
        env=text_at(config, "env", "name"),
        model=f"{text_at(config, 'recipe')}, {models}".strip(", "),
        split="train",
        seed=int_at(config, "seed"),
        planned=int_at(config, "schedule", "iterations"),
        episodes=sum(line["kind"] == "update" for line in lines),
        failed=0,
        unscorable=0,
        unparsed=0,
        accuracy=accuracy if isinstance(accuracy, float) else None,
        interval=(bounds[0], bounds[1]) if isinstance(bounds, list) and len(bounds) == 2 else None,
        calls=None,
        tokens=None,
        cost=None,
        seconds=at(ended[0], "seconds", "all") if ended else None,
        state="ended" if ended else "running" if lines else "starting",
        created=text_at(config, "created") or None,
        changed=_changed(library, path),
        fork=None,
        problems=problems,
    )


def _sweep_row(library: Library, path: Path, _: dict[str, Any]) -> RunRow:
    runs = [read_row(library, child) for child in below(library.root, path, "sweep")]

    def shared(name: str) -> str:
        return ", ".join(sorted({getattr(run, name) for run in runs} - {""}))

    ended = (path / SWEEP).is_file()
    seconds = [run.seconds or 0.0 for run in runs]
    return RunRow(
        **_named(library, path, "sweep"),
        topology=shared("topology"),
        env=shared("env"),
        model=shared("model"),
        split=shared("split"),
        seed=None,
        planned=None,
        episodes=len(runs),
        failed=sum(run.failed for run in runs),
        unscorable=sum(run.unscorable for run in runs),
        unparsed=sum(run.unparsed for run in runs),
        accuracy=None,
        interval=None,
        calls=None,
        tokens=None,
        cost=None,
        seconds=sum(seconds) if ended else None,
        state="ended" if ended else "running",
        created=min((run.created for run in runs if run.created), default=None),
        changed=max((run.changed for run in runs), default=_changed(library, path)),
        fork=None,
        problems=[Problem(where=run.name, what=f"{len(run.problems)} problems") for run in runs if run.problems],
    )


def _named(library: Library, path: Path, kind: Kind) -> dict[str, Any]:
    parents = [library.root / parent for parent in path.relative_to(library.root).parents if parent.parts]
    under = next((library.key(parent) for parent in parents if kind_of(parent) in ("training", "sweep")), None)
    return {"key": library.key(path), "name": path.name, "kind": kind, "under": under}


def _changed(library: Library, path: Path) -> float:
    newest = max((time_ns for time_ns, _ in library.stamp(path)), default=0)
    return newest / 1e9


def prices(library: Library) -> dict[str, Price]:
    """Model -> its price, as far as the folder of runs tells."""

    def read() -> dict[str, Price]:
        try:
            return read_prices(library.root / PRICES)
        except ConfigError:
            return {}

    return library.keep("prices", library.stamp_of(library.root / PRICES), read)


def _cost(models: list[str], outcomes: Outcomes, known: dict[str, Price]) -> float | None:
    """Where one model plays every role; who said how much is for the turns to say, and takes longer."""
    if len(models) != 1:
        return None
    rows = outcomes.rows
    spent = sum(row.prompt_tokens for row in rows), sum(row.completion_tokens for row in rows)
    price = price_of(models[0], known)
    return price and price.of(*spent)
