"""Actor and critic: feedback, refinement, where each stops, and whose words stand in whose prompt."""

from typing import Any

import pytest

from agents import Request
from envs.types import Task, split_steps
from graphs import actor_critic, friction, self_debug, self_refine, stepwise, verify_refine

BOX = "\\boxed{{{}}}".format
WRONG, RIGHT = "4 + 4 = 9; 8, incorrect\nVerdict: incorrect", "Verdict: correct"


def ids(episode: Any) -> list[str]:
    return [turn.id for turn in episode.turns]


class TestSelfRefine:
    def test_it_mends_until_its_own_review_is_content(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("no"), WRONG, BOX("yes"), RIGHT]}
        episode = play_scripted(self_refine, script, {"rounds": 3})
        assert (episode.answer, episode.stop_reason, episode.calls) == ("yes", "nothing to mend", 4)
        mended = episode.turn("solver/2")
        assert mended.follows == "solver/0" and mended.reads == ("solver/1",)
        assert WRONG in mended.messages[-1].content

    def test_rounds_bound_it(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("a"), WRONG, BOX("b"), WRONG, BOX("c")]}
        episode = play_scripted(self_refine, script, {"rounds": 2})
        assert (episode.answer, episode.stop_reason) == ("c", "2 rounds")

    def test_a_review_that_cannot_be_read_mends_nothing(self, play_scripted: Any) -> None:
        episode = play_scripted(self_refine, {"solver": [BOX("yes"), "hm"]})
        assert episode.answer == "yes" and episode.calls == 2

    def test_no_rounds_is_one_solution(self, play_scripted: Any) -> None:
        assert play_scripted(self_refine, {"solver": [BOX("yes")]}, {"rounds": 0}).calls == 1


def test_actor_critic_refines_the_lanes_that_need_it_and_votes(play_scripted: Any) -> None:
    script = {
        "solver_1": [BOX("yes")],
        "solver_2": [BOX("no"), BOX("maybe")],
        "solver_3": [BOX("no"), BOX("yes")],
        "reviewer_1": [RIGHT],
        "reviewer_2": [WRONG],
        "reviewer_3": [WRONG],
    }
    episode = play_scripted(actor_critic, script, {"lanes": 3})
    assert episode.answer == "yes" and episode.calls == 8
    assert episode.turn("reviewer_2/0").reads == ("solver_2/0",)


class Checking:
    """An env that finds fault with every answer but `yes`."""

    name = "checking"

    def __init__(self, words: Any):
        self.tasks, self.judge, self.group = words.tasks, words.judge, words.group

    async def check(self, task: Task, reply: str) -> str | None:
        return None if "yes" in reply else f"Running it shows no {task.answers[0]}."


def test_self_debug_hears_what_running_shows(play_scripted: Any, words: Any) -> None:
    episode = play_scripted(self_debug, {"solver": [BOX("no"), BOX("yes")]}, env=Checking(words))
    assert episode.answer == "yes" and episode.calls == 2
    assert "Running it shows no yes." in episode.turns[1].messages[-1].content


def test_self_debug_needs_an_env_that_can_run_solutions(play_scripted: Any) -> None:
    episode = play_scripted(self_debug, {"solver": [BOX("no")]})
    assert episode.failure and "env words cannot run solutions" in episode.failure


class TestFriction:
    def test_it_stops_when_right(self, play_scripted: Any) -> None:
        episode = play_scripted(friction, {"solver": [BOX("no"), BOX("maybe"), BOX("yes")]})
        assert episode.answer == "yes" and episode.calls == 3

    def test_the_feedback_never_shows_the_answer(self, play_scripted: Any) -> None:
        episode = play_scripted(friction, {"solver": [BOX("no")] * 3}, {"rounds": 2})
        assert episode.answer == "no"
        assert all("yes" not in message.content for turn in episode.turns for message in turn.messages)


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


class TestVerifyRefine:
    def test_a_solution_that_all_find_correct_ends_it(self, play_scripted: Any) -> None:
        script = {"solver_1": [BOX("no")], "solver_2": [BOX("yes")]}
        script |= {"reviewer": [WRONG, RIGHT, RIGHT, RIGHT], "meta_reviewer": [RIGHT]}
        episode = play_scripted(verify_refine, script)
        assert episode.answer == "yes" and episode.stop_reason == "score 1.00"
        assert episode.turn("meta_reviewer/0").reads == ("solver_1/0", "reviewer/0")

    def test_a_review_that_is_not_confirmed_does_not_count(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("yes")], "reviewer": [WRONG, RIGHT], "meta_reviewer": ["Verdict: incorrect"]}
        episode = play_scripted(verify_refine, script, {"pool": 1})
        assert (episode.answer, episode.stop_reason) == ("yes", "score 1.00")

    def test_the_best_is_refined_by_a_confirmed_review(self, play_scripted: Any) -> None:
        script = {
            "solver": [BOX("no"), BOX("yes")],
            "reviewer": [WRONG, RIGHT, RIGHT, RIGHT],
            "meta_reviewer": [RIGHT],
        }
        episode = play_scripted(verify_refine, script, {"pool": 1})
        assert episode.answer == "yes"
        assert episode.turn("solver/1").follows == "solver/0" and episode.turn("solver/1").reads == ("reviewer/0",)

    def test_doubts_that_nobody_confirms_leave_nothing_to_refine(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("yes")], "reviewer": [WRONG], "meta_reviewer": ["Verdict: incorrect"]}
        episode = play_scripted(verify_refine, script, {"pool": 1, "reviews": 1})
        assert (episode.answer, episode.stop_reason) == ("yes", "nothing to refine")


@pytest.mark.parametrize("topology", [self_refine, actor_critic, friction, stepwise, verify_refine])
@pytest.mark.parametrize("reply", ["", "no answer in it", "\n\n\n"])
def test_empty_and_unreadable_replies_end_without_an_answer(play_scripted: Any, topology: Any, reply: str) -> None:
    episode = play_scripted(topology, lambda request: reply)
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
