"""Pose: who is asked what, what the note says of the answers, and each way to end."""

import pytest

from agents.moves import PROPOSE
from envs import ConfigError, make_env
from envs.sandbox import why_unavailable
from graphs import build, pose
from graphs.turns import Episode
from tests.conftest import PlayScripted
from tests.graphs.test_tool_use import code

POSED = "<question>What is 6 * 7 + 1?</question>\n6 * 7 = 42\n42 + 1 = 43\n\\boxed{43}"
needs_sandbox = pytest.mark.skipif(bool(why_unavailable("monty")), reason=why_unavailable("monty"))


def boxed(*answers: str) -> list[str]:
    return [f"\\boxed{{{answer}}}" for answer in answers]


def note_of(episode: Episode) -> dict[str, object]:
    (note,) = episode.notes
    return note


@needs_sandbox
def test_each_attempt_runs_its_own_programs_and_knows_of_no_other(play_scripted: PlayScripted) -> None:
    script = {
        "proposer": [POSED],
        # Three attempts are begun at once; the second answers at once, the others go on.
        "tool_solver": [code("print(6 * 7)"), *boxed("44"), code("print(1)"), code("print(42 + 1)"), *boxed("1", "43")],
    }
    episode = play_scripted(pose, script, {"answers": 3}, env=make_env("proposals", levels="2"))
    assert (episode.answer, episode.stop_reason) == ("What is 6 * 7 + 1?", "1 of 3 agree")
    assert episode.verdict is not None and episode.verdict.status == "correct", "it is such a problem as was asked for"
    assert note_of(episode) == {
        "problem": "What is 6 * 7 + 1?",
        "own": "43",
        "answers": ["43", "44", "1"],
        "groups": [0, 1, 2],
        "own_group": 0,
        "calls": [2, 0, 1],
    }
    solving = [turn for turn in episode.turns if turn.role == "tool_solver"]
    assert [turn.follows for turn in solving] == [None] * 3 + ["tool_solver/0", "tool_solver/2", "tool_solver/3"]
    assert [turn.round for turn in solving] == [2, 2, 2, 3, 3, 4]
    assert solving[3].messages[-1].content == "Output:\n42" and solving[5].messages[-1].content == "Output:\n43"
    assert all("What is 6 * 7 + 1?" in turn.messages[-1].content for turn in solving[:3])
    assert all("43" not in message.content for turn in solving[:5] for message in turn.messages), "nobody is told"


def test_the_proposer_is_given_the_brief_alone(play_scripted: PlayScripted) -> None:
    env = make_env("proposals", levels="3,8")
    episode = play_scripted(
        pose,
        {"proposer": [POSED], "solver": boxed("43")},
        {"answers": 1, "tool": False},
        env=env,
        task=env.tasks(2)[1],
    )
    asked = episode.turns[0]
    brief = "an arithmetic problem with 8 operations on whole numbers up to 999"
    assert asked.move == PROPOSE.name and asked.messages[-1].content == PROPOSE.render(brief=brief)
    assert episode.verdict is not None and episode.verdict.status == "incorrect", "eight operations were asked for"


def test_answers_are_grouped_as_the_env_has_it_and_who_says_nothing_abstains(play_scripted: PlayScripted) -> None:
    solutions = [*boxed("1,043"), "I do not know.", *boxed("1043", "7")]
    episode = play_scripted(
        pose,
        {"proposer": [POSED.replace("boxed{43}", "boxed{0}")], "solver": solutions},
        {"answers": 4, "tool": False},
        env=make_env("proposals"),
    )
    note = note_of(episode)
    assert note["answers"] == ["1,043", None, "1043", "7"] and note["groups"] == [0, None, 0, 3]
    assert note["own_group"] == -1 and note["calls"] == [0, 0, 0, 0]
    assert episode.stop_reason == "2 of 4 agree"
    assert [turn.move for turn in episode.turns] == ["propose", *["solve"] * 4]


def test_a_proposal_that_cannot_be_read_ends_the_game(play_scripted: PlayScripted) -> None:
    episode = play_scripted(pose, {"proposer": ["What is 6 * 7?"]}, {"tool": False}, env=make_env("proposals"))
    assert (episode.calls, episode.answer, episode.notes) == (1, None, ())
    assert episode.stop_reason == "no problem was posed" and episode.turns[0].failure is not None
    assert episode.verdict is not None and episode.verdict.status == "unparsed"


def test_where_no_attempt_answers_the_note_says_so(play_scripted: PlayScripted) -> None:
    script = {"proposer": [POSED], "solver": ["Hm.", "Hm."]}
    episode = play_scripted(pose, script, {"answers": 2, "tool": False}, env=make_env("proposals"))
    assert episode.stop_reason == "no answer" and note_of(episode)["groups"] == [None, None]


@needs_sandbox
def test_it_says_beforehand_whom_it_asks_and_how_often() -> None:
    with_tool, without = build(pose, {"answers": 3, "turns": 5}), build(pose, {"answers": 3, "tool": False})
    assert (with_tool.roles, with_tool.calls) == (("proposer", "tool_solver"), 16)
    assert (without.roles, without.calls) == (("proposer", "solver"), 4)
    with pytest.raises(ConfigError, match="answers"):
        build(pose, {"answers": 0})
