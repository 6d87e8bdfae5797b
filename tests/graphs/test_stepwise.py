"""Stepwise critique: what is kept, what is written anew, when it ends."""

from typing import Any

import pytest

from agents import Request
from envs.types import split_steps
from graphs import stepwise

BOX = "\\boxed{{{}}}".format


class TestStepwise:
    STEPS = "2 + 3 = 5\n5 + 4 = 8\n8 + 1 = 9\n\\boxed{9}"

    def test_what_stands_before_the_first_wrong_step_is_kept(self, play_scripted: Any) -> None:
        asked: list[Request] = []

        def script(request: Request) -> str:
            if "/critic/" in request.key:
                wrong = "Next step:\n5 + 4 = 8" in request.messages[-1].content
                return f"Verdict: {'incorrect' if wrong else 'correct'}"
            asked.append(request)
            return "5 + 4 = 9\n\\boxed{yes}" if request.opening else self.STEPS

        episode = play_scripted(stepwise, script, {"rounds": 2})
        assert [request.opening for request in asked] == ["", "2 + 3 = 5\n"]
        assert episode.answer == "yes" and episode.stop_reason == "no step found wrong"
        again = episode.turn("solver/1")
        assert again.reply == "2 + 3 = 5\n5 + 4 = 9\n\\boxed{yes}" and again.reads == ("critic/1",)
        assert len(episode.turns) == 1 + 3 + 1 + 2, "the line of the answer is no step"

    def test_verdicts_that_cannot_be_read_let_steps_stand(self, play_scripted: Any) -> None:
        script = {"solver": [self.STEPS], "critic": ["?", "?", "?"]}
        assert play_scripted(stepwise, script).answer == "9"

    def test_lanes_vote(self, play_scripted: Any) -> None:
        script = {f"solver_{i}": [f"a\n{BOX(a)}"] for i, a in ((1, "no"), (2, "yes"), (3, "yes"))}
        script |= {f"critic_{i}": ["Verdict: correct"] for i in (1, 2, 3)}
        assert play_scripted(stepwise, script, {"lanes": 3}).answer == "yes"


@pytest.mark.parametrize("reply", ["", "no answer in it", "\n\n\n"])
def test_empty_and_unreadable_replies_end_without_an_answer(play_scripted: Any, reply: str) -> None:
    episode = play_scripted(stepwise, lambda request: reply)
    assert episode.failure is None and episode.answer is None


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\nb\nc", ["a\n", "b\n", "c"]),
        ("one\ntwo\n\nthree\n\n\nfour\n", ["one\ntwo\n\n", "three\n\n\n", "four\n"]),
        ("\n\na\nb", ["\n\na\n", "b"]),
        ("", [""]),
    ],
)
def test_steps_are_paragraphs_or_lines(text: str, steps: list[str]) -> None:
    assert split_steps(text) == steps and "".join(steps) == text
