"""What topologies write down beside their turns, in plain words: a pure function from an episode to lines of text.

Used by transcripts. The lines quote models: whoever prints them makes control characters visible first. A note that
nothing is known of here has no lines.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from envs.types import split_steps
from experiments.training import spc
from graphs.spc import detects
from graphs.turns import Episode

Note = Mapping[str, Any]


def narrate(episode: Episode) -> list[str]:
    """The lines of all notes, in their order."""
    told = ((note, tell) for note in episode.notes for keys, tell in NARRATORS.items() if note.keys() >= set(keys))
    return [line for note, tell in told for line in tell(episode, note)]


def _game(episode: Episode, note: Note) -> list[str]:
    """SPC: the step, what the generator makes of it, what the critic says, who is paid."""
    game = note["game"]
    number = len(split_steps(game["before"])) + 1 if game["before"] else 1
    counted = _counted(game["right"], game["completions"])
    lines = [f"Step {number} is played for: {_line(game['step'])}", f"{counted} from behind it are right."]
    for sabotage in note["sabotages"]:
        lines += _sabotage(episode, sabotage, game["completions"])
    if note["untouched"]:
        ids = note["untouched"]
        lines += [f"Beside it the step as it was. {_said(episode, ids)}, {_paid(episode, ids, 'critic')}."]
    return lines


def _sabotage(episode: Episode, sabotage: Note, completions: int) -> list[str]:
    who = "By rule it becomes" if sabotage["turn"] is None else "The generator makes it"
    paid = "" if sabotage["turn"] is None else f", {_paid(episode, [sabotage['turn']], 'generator')}"
    if sabotage["step"] is None:
        return [f"What is made of it cannot be read: there is no sabotage{paid}."]
    made = f"{who} {_line(sabotage['step'])}" + (f" ({sabotage['kind']})" if sabotage["kind"] else "")
    if sabotage["right"] is None:
        return [f"{made}: the step itself again is no sabotage{paid}."]
    counted = f"{made}: {_counted(sabotage['right'], completions)} from behind it are right"
    if not sabotage["valid"]:
        return [f"{counted}, so that the error is not fatal and the sabotage not valid{paid}."]
    ids = sabotage["critiques"]
    found = sum(detects(episode.turn(id)) for id in ids)
    which = "it is found" if found == len(ids) else f"it is found by {found} of {len(ids)}" if found else "it is missed"
    said = f"{_said(episode, ids)}: {which}, {_paid(episode, ids, 'critic')}{paid}."
    return [f"{counted}, so that the sabotage is valid.", said]


def _said(episode: Episode, ids: Sequence[str]) -> str:
    words = {True: "correct", False: "incorrect", None: "nothing readable"}
    return f"The critic: {', '.join(words[getattr(episode.turn(id).result, 'correct', None)] for id in ids)}"


def _paid(episode: Episode, ids: Sequence[str], who: str) -> str:
    """The reward of turns, the mean of several."""
    rewards = spc.rewards(episode)
    mean = fmean(sum(rewards[id].values()) for id in ids)
    return f"{'+' if mean > 0 else '−' if mean < 0 else ''}{abs(mean):g} {who}"


def _pair(episode: Episode, note: Note) -> list[str]:
    """Where two of the solver's own solutions part."""
    (right, wrong), (good, bad) = map(_line, note["pair"]), note["counts"]
    taken = sum(getattr(episode.turn(id).result, "correct", None) is True for id in note["right"])
    found = sum(detects(episode.turn(id)) for id in note["wrong"])
    return [
        f"Two solutions part: {right} in one, {wrong} in another.",
        f"{_counted(good, note['completions'])} from behind the former are right, {bad} from behind the latter.",
        f"The critic finds the former correct in {taken} of {len(note['right'])} verdicts, and the latter incorrect in "
        f"{found} of {len(note['wrong'])}.",
    ]


def _solutions(episode: Episode, note: Note) -> list[str]:
    """What the env says of each, in a training with a reviewer."""
    found = note["verdicts"]
    return [f"{id} is {status}." for id, status in found.items()] if isinstance(found, dict) else []


NARRATORS: Mapping[tuple[str, ...], Callable[[Episode, Note], list[str]]] = {
    ("game", "sabotages", "untouched"): _game,
    ("pair", "counts", "completions", "right", "wrong"): _pair,
    ("verdicts",): _solutions,
}
"""By the keys that tell a note."""


def _counted(right: int, completions: int) -> str:
    return f"{right} of {completions} completions"


def _line(text: str) -> str:
    return " ".join(text.split())
