"""What was noted of an episode, in plain words."""

from typing import Any

import pytest

from experiments.narrate import narrate
from graphs.refine import actor_critic
from graphs.spc import spc_pairs
from tests.graphs.spc_helpers import BAD, CORRECT, GOOD, INCORRECT, NO, STEP, YES, ended, game, sabotage

MADE = "The generator makes it 5 + 4 = 8 (digit)"
AS_IT_WAS = "Beside it the step as it was. The critic: correct, +1 critic."


def test_a_game_is_told_from_its_step_to_who_is_paid(play_scripted: Any) -> None:
    assert narrate(game(play_scripted)) == [
        "Step 2 is played for: 5 + 4 = 9",
        "8 of 8 completions from behind it are right.",
        f"{MADE}: 0 of 8 completions from behind it are right, so that the sabotage is valid.",
        "The critic: incorrect: it is found, +1 critic, −1 generator.",
        AS_IT_WAS,
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"critic": (CORRECT, INCORRECT)}, "The critic: correct: it is missed, −1 critic, +1 generator."),
        ({"critic": ("?", CORRECT)}, "The critic: nothing readable: it is missed, −1 critic, +1 generator."),
        (
            {"critic": (INCORRECT, CORRECT, CORRECT, CORRECT, CORRECT, CORRECT, CORRECT, CORRECT), "critiques": 4},
            "The critic: incorrect, correct, correct, correct: it is found by 1 of 4, −0.5 critic, +0.5 generator.",
        ),
        (
            {"spoiled": (3,), "critic": (CORRECT,)},
            f"{MADE}: 3 of 8 completions from behind it are right, so that the error is not fatal and the sabotage not "
            "valid, −1 generator.",
        ),
        (
            {"spoiled": (), "sneaky": ("hm",), "critic": (CORRECT,)},
            "What is made of it cannot be read: there is no sabotage, −1 generator.",
        ),
        (
            {"spoiled": (), "sneaky": (sabotage(STEP),), "critic": (CORRECT,)},
            "The generator makes it 5 + 4 = 9 (digit): the step itself again is no sabotage, −1 generator.",
        ),
    ],
)
def test_every_way_that_it_may_end_is_told(play_scripted: Any, changes: dict[str, Any], told: str) -> None:
    assert told in narrate(game(play_scripted, **changes))


def test_an_error_made_by_rule_is_nobodys(play_scripted: Any) -> None:
    episode = game(play_scripted)
    note = episode.notes[0]
    by_rule = {**note, "sabotages": [{**note["sabotages"][0], "turn": None}]}
    lines = narrate(episode.model_copy(update={"notes": (by_rule,)}))
    assert lines[2].startswith("By rule it becomes 5 + 4 = 8 (digit): 0 of 8")
    assert lines[3] == "The critic: incorrect: it is found, +1 critic."


def test_where_solutions_part_is_told(play_scripted: Any) -> None:
    script = {
        "solver": [GOOD, BAD, *ended(7), *ended(0)],
        "sneaky": ["", ""],
        "critic": [CORRECT, "?", CORRECT, CORRECT],
    }
    assert narrate(play_scripted(spc_pairs, script, {"solutions": 2, "critiques": 2})) == [
        "Two solutions part: 5 + 4 = 9 in one, 5 + 4 = 7 in another.",
        "7 of 8 completions from behind the former are right, 0 from behind the latter.",
        "The critic finds the former correct in 1 of 2 verdicts, and the latter incorrect in 0 of 2.",
    ]


def test_solutions_that_were_judged_are_told_and_other_notes_pass(play_scripted: Any) -> None:
    script = {"solver": [NO, YES], "reviewer": [INCORRECT]}
    episode = play_scripted(actor_critic, script, {"lanes": 1, "judged": True})
    assert narrate(episode) == ["solver/0 is incorrect.", "solver/1 is correct."]
    assert (
        narrate(episode.model_copy(update={"notes": ({"weather": "fair"}, {"game": 1}, {"verdicts": [1]}, {})})) == []
    )


def test_a_model_cannot_break_the_lines(play_scripted: Any) -> None:
    said = (sabotage("5 + 4 = 8\tor \x1b[31m8"),)
    lines = narrate(game(play_scripted, sneaky=said))
    assert len(lines) == 5 and all("\n" not in line for line in lines)
