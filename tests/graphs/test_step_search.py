"""Step search: who is asked about what, what is kept, when a step is written anew, when the search ends."""

from collections.abc import Callable
from typing import Any

import pytest

from agents import Request
from graphs import step_search
from graphs.step_search import ROUNDS

BOX = "\\boxed{{{}}}".format
AS_PUBLISHED = {"lanes": 1, "attempts": 5, "judge": "all", "agree": 0}


def by_role(solver: Callable[[int, Request], str], wrong: Callable[[str], bool] = lambda step: False) -> Any:
    """A solver by the number of its turn, and a critic that finds some steps wrong."""

    def script(request: Request) -> str:
        role, number = request.key.split("/")[-2:]
        if role == "solver":
            return solver(int(number), request)
        return f"Verdict: {'incorrect' if wrong(asked(request)[1]) else 'correct'}"

    return script


def asked(request: Any) -> tuple[str, str]:
    """Of a critic: the steps before, and the step."""
    before, step = request.messages[-1].content.split("\n\nNext step:\n")
    return before.split("Steps so far:\n")[1], step.split("\n\n")[0]


class TestAsPublished:
    def test_what_is_kept_stays_to_the_letter_and_is_not_judged_again(self, play_scripted: Any) -> None:
        drafts = [f"2 + 3  =  5\n5 + 4 = 8\n8 + 1 = 9\n{BOX('no')}", f"5 + 4 = 9\n9 + 1 = 10\n{BOX('yes')}"]
        script = by_role(lambda number, _: drafts[number], lambda step: step == "5 + 4 = 8")
        episode = play_scripted(step_search, script, AS_PUBLISHED)
        again = episode.turn("solver/1")
        assert again.opening == "2 + 3  =  5\n" and again.reads == ("critic/1",)
        judged = [asked(turn) for turn in episode.turns if turn.role == "critic"]
        assert judged == [
            ("(none)", "2 + 3  =  5"),
            ("2 + 3  =  5", "5 + 4 = 8"),
            ("2 + 3  =  5", "5 + 4 = 9"),
            ("2 + 3  =  5\n5 + 4 = 9", "9 + 1 = 10"),
        ]
        assert (episode.answer, episode.stop_reason) == ("yes", "all steps kept")

    @pytest.mark.parametrize("attempts", [1, 2, 3])
    def test_the_last_attempt_is_kept_and_nobody_is_asked_about_it(self, play_scripted: Any, attempts: int) -> None:
        script = by_role(lambda number, _: f"bad {number}\n{BOX(number)}", lambda step: True)
        episode = play_scripted(step_search, script, {**AS_PUBLISHED, "attempts": attempts})
        assert episode.answer == str(attempts - 1)
        assert [turn.role for turn in episode.turns] == ["solver", *["critic", "solver"] * (attempts - 1)]

    def test_the_same_step_again_is_wrong_again_unasked(self, play_scripted: Any) -> None:
        script = by_role(lambda number, _: f"bad\n{BOX(number)}", lambda step: True)
        episode = play_scripted(step_search, script, {**AS_PUBLISHED, "attempts": 3})
        assert [turn.role for turn in episode.turns] == ["solver", "critic", "solver", "solver"]
        assert episode.turn("solver/2").reads == ("critic/0",) and episode.answer == "2"

    def test_attempts_are_counted_at_each_step(self, play_scripted: Any) -> None:
        drafts = ["a 0\nb 0", "a 1\nb 1", f"b 2\n{BOX('yes')}"]
        script = by_role(lambda number, _: drafts[number], lambda step: True)
        episode = play_scripted(step_search, script, {**AS_PUBLISHED, "attempts": 2})
        assert [turn.opening for turn in episode.turns if turn.role == "solver"] == ["", "", "a 1\n"]
        assert episode.answer == "yes" and episode.turn("solver/2").reply.startswith("a 1\nb 2\n")

    def test_a_verdict_that_cannot_be_read_lets_the_step_stand(self, play_scripted: Any) -> None:
        script = {"solver": [f"a\nb\n{BOX('yes')}"], "critic": ["?", ""]}
        assert play_scripted(step_search, script, AS_PUBLISHED).answer == "yes"

    def test_paragraphs_after_lines_leave_what_is_kept_alone(self, play_scripted: Any) -> None:
        drafts = ["a\nbad\n", f"b\n\nc\n\n{BOX('yes')}"]
        script = by_role(lambda number, _: drafts[number], lambda step: step == "bad")
        episode = play_scripted(step_search, script, AS_PUBLISHED)
        assert [asked(turn)[1] for turn in episode.turns if turn.role == "critic"] == ["a", "bad", "b", "c"]

    def test_a_solver_that_never_ends_is_stopped(self, play_scripted: Any) -> None:
        script = by_role(lambda number, _: "x\ny", lambda step: True)
        episode = play_scripted(step_search, script, {**AS_PUBLISHED, "attempts": 2})
        assert episode.failure is None and episode.answer is None
        assert episode.stop_reason == f"{ROUNDS} rounds"


class TestLanes:
    def test_only_what_lanes_dispute_is_judged_and_once(self, play_scripted: Any) -> None:
        ends = ["b\nd", "b\ne", "c\nd"]
        script = by_role(lambda number, _: f"a\n{ends[number]}\n{BOX(number)}")
        episode = play_scripted(step_search, script, {"lanes": 3, "agree": 0})
        critics = [turn for turn in episode.turns if turn.role == "critic"]
        assert [asked(turn) for turn in critics] == [("a", "b"), ("a", "c"), ("a\nb", "d"), ("a\nb", "e")]
        assert [turn.reads for turn in critics] == [("solver/0",), ("solver/2",), ("solver/0",), ("solver/1",)]
        assert episode.notes[0] == {"place": 1, "step": "b", "critique": "critic/0", "stands": True}

    def test_a_step_written_anew_as_another_lane_has_it_stands_by_that_verdict(self, play_scripted: Any) -> None:
        drafts = [f"a\n{BOX('yes')}", f"bad\n{BOX('no')}", f"a\n{BOX('yes')}"]
        script = by_role(lambda number, _: drafts[number], lambda step: step == "bad")
        episode = play_scripted(step_search, script, {"lanes": 2, "agree": 2})
        assert [turn.role for turn in episode.turns] == ["solver", "solver", "critic", "critic", "solver"]
        assert (episode.answer, episode.stop_reason) == ("yes", "2 agree")

    def test_as_published_every_step_is_judged_but_none_twice(self, play_scripted: Any) -> None:
        script = by_role(lambda number, _: f"a\nb\n{BOX('yes')}")
        episode = play_scripted(step_search, script, {**AS_PUBLISHED, "lanes": 3})
        assert [turn.role for turn in episode.turns] == ["solver"] * 3 + ["critic"] * 2

    def test_lanes_that_agree_end_the_search_before_anybody_is_asked(self, play_scripted: Any) -> None:
        episode = play_scripted(step_search, by_role(lambda number, _: f"{number}\n{BOX('yes')}"), {})
        assert (episode.calls, episode.answer, episode.stop_reason) == (3, "yes", "3 agree")

    def test_lanes_are_begun_until_enough_agree(self, play_scripted: Any) -> None:
        answers = ["1", "2", "?", "2", "2"]
        script = by_role(lambda number, _: "hm" if answers[number] == "?" else BOX(answers[number]))
        episode = play_scripted(step_search, script, {"attempts": 1})
        assert (episode.answer, episode.stop_reason) == ("2", "3 agree")
        assert [turn.round for turn in episode.turns] == [1, 1, 1, 2, 2], "two at least were wanting"

    def test_no_more_lanes_than_asked_for_then_they_vote(self, play_scripted: Any) -> None:
        answers = ["1", "2", "2", "3"]
        episode = play_scripted(step_search, by_role(lambda n, _: BOX(answers[n])), {"lanes": 4})
        assert (episode.calls, episode.answer, episode.stop_reason) == (4, "2", "all steps kept")


@pytest.mark.parametrize("judge", ["all", "disputed"])
@pytest.mark.parametrize("reply", ["", "no answer in it", "\n\n\n", "a\n\nb\nc"])
def test_empty_and_unreadable_replies_end_without_an_answer(play_scripted: Any, reply: str, judge: str) -> None:
    episode = play_scripted(step_search, lambda request: reply, {"judge": judge})
    assert episode.failure is None and episode.answer is None and episode.stop_reason == "all steps kept"
