"""What topologies write down beside their turns: SelfOrg's graph of each round is read, the rest is shown as it is."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.viewer.episode_records import RoundView
from experiments.viewer.stored import StoredEpisode
from graphs.turns import Turn

MOST = 100_000
"""Characters of notes that are shown as they are."""


@dataclass(frozen=True)
class Notes:
    rounds: dict[int, RoundView] = field(default_factory=dict)
    """By round: the contributions measured after it, and the graph built from them."""
    contributions: dict[str, float] = field(default_factory=dict)
    """Turn id -> what was measured of its reply."""
    weights: dict[tuple[int, str, str], float] = field(default_factory=dict)
    """(round in which it is read along, role that is read, role that reads) -> weight."""
    rest: str = ""


def read_notes(episode: StoredEpisode) -> Notes:
    turns = [entry.turn for entry in episode.turns]
    roles = sorted({turn.role for turn in turns}, key=_natural)
    notes, rest = Notes(), []
    for note in episode.notes:
        shown = _round(note, roles)
        if shown is None:
            rest.append(note)
            continue
        notes.rounds[shown.round] = shown
        notes.weights.update({(shown.round + 1, read, reader): weight for read, reader, weight in shown.links})
        for role, value in shown.contributions:
            last = _last(turns, role, shown.round)
            if last is not None:
                notes.contributions[last.id] = value
    text = json.dumps(rest, indent=2, ensure_ascii=False) if rest else ""
    return Notes(notes.rounds, notes.contributions, notes.weights, text[:MOST])


def _round(note: dict[str, Any], roles: Sequence[str]) -> RoundView | None:
    """A round of SelfOrg, if that is what the note holds."""
    values, edges, round = note.get("contributions"), note.get("edges"), note.get("round")
    if not isinstance(values, list) or not isinstance(edges, list) or not isinstance(round, int):
        return None
    if len(values) != len(roles) or not all(isinstance(value, (int, float)) for value in values):
        return None
    links = [
        (edge[0], edge[1], float(edge[2]))
        for edge in edges
        if isinstance(edge, list) and len(edge) == 3 and isinstance(edge[0], str) and isinstance(edge[1], str)
    ]
    contributions = [(role, float(value)) for role, value in zip(roles, values, strict=True)]
    return RoundView(round=round, turns=[], contributions=contributions, links=links)


def _last(turns: Sequence[Turn], role: str, round: int) -> Turn | None:
    return next((turn for turn in reversed(turns) if turn.role == role and turn.round <= round), None)


def _natural(role: str) -> tuple[str, int]:
    """agent_2 before agent_10: the order in which the topology names them."""
    found = re.fullmatch(r"(.*?)(\d+)", role)
    return (found[1], int(found[2])) if found else (role, 0)
