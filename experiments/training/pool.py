"""The pool of an iteration of Agent0: of the questions that were posed those at the frontier, with labels and votes.

Rows are JSON lines for env `pool`. Episodes are read one after another, so that memory does not grow with them. What
the labels are worth is audited where the env knows better (envs.types.Poses): nothing of that is learned from.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Any

from envs.types import Env, Poses, Task
from experiments.clusters import shares
from experiments.pseudo_labels import Filter, PseudoLabel, counted
from graphs.turns import Episode

MOST_CLUSTERED = 2048
"""Questions whose cluster shares are taken, the first: their distances take memory by the square."""


@dataclass(frozen=True)
class Question:
    """What was posed in an episode, and what the answers to it came to."""

    text: str
    label: PseudoLabel
    calls: float
    """Programs that were run, mean over the attempts."""


@dataclass
class Census:
    """What came of a pool's episodes."""

    episodes: int = 0
    failed: int = 0
    texts: list[str] = field(default_factory=list)
    """Of all questions."""
    agreements: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    problems: int = 0
    """Of the questions, those that are problems such as the env asked for."""
    left_out: Counter[str] = field(default_factory=Counter)
    truths: dict[str, list[bool]] = field(default_factory=dict)
    """Agreement -> whether the labels of kept questions are true. What is no problem of the env has no truth."""
    kept: int = 0
    untrue: int = 0
    """Kept questions that are no problem of the env."""

    def figures(self) -> dict[str, Any]:
        """For a line of metrics."""
        known = [truth for found in self.truths.values() for truth in found]
        ordered = sorted(self.truths.items(), key=lambda item: Fraction(item[0]))
        return {
            "questions": len(self.texts),
            "posed": len(self.texts) / max(1, self.episodes),
            "problems": self.problems / max(1, len(self.texts)),
            "kept": self.kept,
            "agreement": fmean(self.agreements) if self.agreements else None,
            "calls": fmean(self.calls) if self.calls else None,
            "cluster_share": fmean(shares(self.texts[:MOST_CLUSTERED])) if self.texts else None,
            "true_labels": sum(known) / len(known) if known else None,
            "no_problem": self.untrue / max(1, self.kept),
            "true_labels_at": {agreement: [sum(found), len(found)] for agreement, found in ordered},
        }


def question_of(episode: Episode) -> Question | None:
    """What an episode of `pose` posed; None where nothing was, or it failed."""
    note = next((note for note in episode.notes if "problem" in note), None)
    if note is None or episode.failure is not None:
        return None
    label = counted(note["answers"], note["groups"], note["own_group"])
    return Question(note["problem"], label, fmean(note["calls"]))


async def write_pool(
    posed: Iterable[Episode],
    path: Path,
    wanted: Filter,
    env: Env,
    held_out: Collection[str] = (),
    source: Mapping[str, Any] | None = None,
) -> Census:
    """Write the questions of episodes of `pose` that are worth learning from.

    Args:
        posed: the episodes.
        path: the file; what was there is replaced.
        wanted: which are kept.
        env: that they were posed for; it knows their truth where it is Poses.
        held_out: questions that must not be learned from: those that are measured on.
        source: stored with each row: whose they are.
    """
    census = Census()
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        async for row in _rows(posed, wanted, env, held_out, census):
            file.write(json.dumps({**row, "details": {**row["details"], **(source or {})}}, ensure_ascii=False) + "\n")
    part.replace(path)
    return census


async def _rows(
    episodes: Iterable[Episode], wanted: Filter, env: Env, held_out: Collection[str], census: Census
) -> AsyncIterator[dict[str, Any]]:
    seen: set[str] = set()
    for episode in episodes:
        census.episodes += 1
        census.failed += episode.failure is not None
        found = question_of(episode)
        if found is None:
            census.left_out["nothing was posed"] += 1
            continue
        census.texts.append(found.text)
        census.agreements.append(float(found.label.agreement))
        census.calls.append(found.calls)
        census.problems += episode.verdict is not None and episode.verdict.status == "correct"
        task = env.posed(found.text) if isinstance(env, Poses) else None
        # However the proposer spelled it.
        question = task.question if task else found.text
        reason = wanted.why_not(found.text, found.label)
        if reason is None and question in held_out:
            reason = "it is measured on"
        if reason is None and question in seen:
            reason = "it was posed before"
        if reason is not None:
            census.left_out[reason] += 1
            continue
        seen.add(question)
        census.kept += 1
        await _audit(found, task, env, census)
        yield {
            "id": f"{episode.task.id}-{episode.sample}",
            "question": found.text,
            "answer": found.label.answer,
            "details": {**found.label.details(), "calls": found.calls},
        }


async def _audit(found: Question, task: Task | None, env: Env, census: Census) -> None:
    if task is None:
        census.untrue += 1
        return
    verdict = await env.group([task.answers[0], str(found.label.answer)])
    census.truths.setdefault(str(found.label.agreement), []).append(verdict[1] == 0)
