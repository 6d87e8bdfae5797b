"""A branch beside its parent, turn by turn."""

import sqlite3
from typing import Any

from envs.errors import ConfigError
from experiments.viewer.episode_records import DiffPage, TurnPair
from experiments.viewer.keys import NotThereError, at
from experiments.viewer.library import Library
from experiments.viewer.records import Problem
from experiments.viewer.run_page import open_run
from experiments.viewer.runs_page import fork_of
from experiments.viewer.stored import PAGE, TEXT, StoredEpisode, clipped, read_stored
from graphs.turns import Turn

_COMPARED = ("move", "round", "reads", "follows", "answer", "policy", "version", "temperature", "seed", "messages")


def read_diff(library: Library, key: str, position: int) -> DiffPage:
    """The episode of a fork, against the one that it was forked from.

    Raises:
        NotThereError: the run is no fork, or its parent is not there any more.
    """
    path, _, _ = open_run(library, key)
    config = library.config(path)
    fork = fork_of(config)
    if fork is None:
        raise NotThereError(f"{path.name} was not forked from another run")
    branch = read_stored(path, position)
    try:
        parent = read_stored(open_run(library, fork.run)[0], fork.position)
    except (ConfigError, sqlite3.Error) as error:
        raise NotThereError(f"the parent of {path.name} cannot be read: {error}") from None
    replayed = at(config, "fork", "replayed") or []
    return DiffPage(
        fork=fork,
        branch=key,
        parent_outcome=_outcome(parent),
        branch_outcome=_outcome(branch),
        parent_status=parent.status,
        branch_status=branch.status,
        turns=_pairs(parent, branch, set(replayed)),
        problems=[*(_of("parent", one) for one in parent.problems), *(_of("branch", one) for one in branch.problems)],
    )


def _pairs(parent: StoredEpisode, branch: StoredEpisode, replayed: set[Any]) -> list[TurnPair]:
    """By id, in the branch's order; what the parent alone has comes last."""
    before = {entry.turn.id: entry.turn for entry in parent.turns}
    after = {entry.turn.id: entry.turn for entry in branch.turns}
    most = min(TEXT, PAGE // max(1, len(before) + len(after)))
    pairs = []
    for id in dict.fromkeys((*after, *before)):
        one, other = before.get(id), after.get(id)
        pairs.append(
            TurnPair(
                id=id,
                parent=one and clipped(one.reply, most),
                branch=other and clipped(other.reply, most),
                same=id in replayed or (one is not None and other is not None and one.reply == other.reply),
                changed=[] if one is None or other is None else _changed(one, other),
            )
        )
    return pairs


def _changed(one: Turn, other: Turn) -> list[str]:
    return [name for name in _COMPARED if getattr(one, name) != getattr(other, name)]


def _outcome(episode: StoredEpisode) -> str:
    if episode.failure is not None:
        return f"failed: {episode.failure}"
    answer = "no answer" if episode.answer is None else episode.answer[:200]
    return f"{episode.stop_reason} → {answer}, {episode.status}"


def _of(which: str, problem: Problem) -> Problem:
    return Problem(where=f"{which}, {problem.where}", what=problem.what)
