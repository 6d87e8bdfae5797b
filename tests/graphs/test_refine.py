"""Actor and critic: feedback, refinement, where each stops, and whose words stand in whose prompt."""

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from agents import Request
from envs import Arithmetic
from envs.types import Task, Verdict, split_steps
from graphs import actor_critic, build, friction, self_debug, self_refine, stepwise, verify_refine

BOX = "\\boxed{{{}}}".format
WRONG, RIGHT = "4 + 4 = 9; 8, incorrect\nVerdict: incorrect", "Verdict: correct"


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


def prompts(episode: Any, id: str) -> str:
    return "\n".join(message.content for message in episode.turn(id).messages)


def test_a_solver_reviews_its_words_and_not_its_conversation(play_scripted: Any) -> None:
    script = {"solver": [f"mine {BOX('no')}", WRONG, BOX("yes"), RIGHT]}
    episode = play_scripted(self_refine, script)
    review = episode.turn("solver/1")
    assert review.follows is None and review.reads == ("solver/0",) and review.move == "review"
    assert f"mine {BOX('no')}" in prompts(episode, "solver/1")
    assert episode.turn("solver/3").reads == ("solver/2",) and WRONG not in prompts(episode, "solver/3")


class TestActorCritic:
    def test_each_reviewer_reads_its_own_lane_alone(self, play_scripted: Any) -> None:
        script = {f"solver_{i}": [f"lane {i} {BOX('no')}", f"mended {i} {BOX('yes')}"] for i in (1, 2)}
        script |= {f"reviewer_{i}": [f"fault {i}, incorrect\nVerdict: incorrect"] for i in (1, 2)}
        episode = play_scripted(actor_critic, script)
        for own, other in ((1, 2), (2, 1)):
            assert f"lane {own}" in prompts(episode, f"reviewer_{own}/0")
            assert f"lane {other}" not in prompts(episode, f"reviewer_{own}/0")
            mended = episode.turn(f"solver_{own}/1")
            assert mended.reads == (f"reviewer_{own}/0",) and mended.follows == f"solver_{own}/0"
            assert f"fault {own}" in prompts(episode, mended.id) and f"fault {other}" not in prompts(episode, mended.id)
        assert (episode.answer, episode.stop_reason, episode.calls) == ("yes", "1 rounds", 6)

    def test_a_lane_that_is_done_is_left_alone(self, play_scripted: Any) -> None:
        script = {"solver_1": [BOX("yes")], "reviewer_1": [RIGHT]}
        script |= {"solver_2": [BOX("a"), BOX("b"), BOX("c")], "reviewer_2": [WRONG, WRONG, RIGHT]}
        episode = play_scripted(actor_critic, script, {"rounds": 3})
        assert (episode.answer, episode.stop_reason) == ("yes", "nothing to mend"), "a tie goes to the first lane"
        assert [turn.round for turn in episode.turns if turn.role == "solver_2"] == [1, 2, 3]

    def test_one_lane_has_plain_roles(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("no"), BOX("yes")], "reviewer": [WRONG]}
        assert play_scripted(actor_critic, script, {"lanes": 1}).answer == "yes"

    def test_reviews_that_cannot_be_read_mend_nothing(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("yes")], "reviewer": ["It is incorrect."]}
        episode = play_scripted(actor_critic, script, {"lanes": 1, "rounds": 2})
        assert (episode.answer, episode.stop_reason, episode.calls) == ("yes", "nothing to mend", 2)


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
    assert episode.stop_reason == "nothing to mend" and episode.turn("solver/1").follows == "solver/0"


def test_self_debug_ends_after_its_rounds(play_scripted: Any, words: Any) -> None:
    episode = play_scripted(self_debug, {"solver": [BOX("a"), BOX("b"), BOX("c")]}, {"rounds": 2}, env=Checking(words))
    assert (episode.answer, episode.stop_reason) == ("c", "2 rounds")


def test_arithmetic_runs_what_the_solver_wrote(play_scripted: Any) -> None:
    env = Arithmetic(1)
    task = Task(id="one", question="What is 7 * 2?", answers=("14",))
    script = {"solver": [f"7 * 2 = 15\n{BOX(15)}", f"7 * 2 = 14\n{BOX(14)}"]}
    episode = play_scripted(self_debug, script, env=env, task=task)
    assert "Running it shows an error in line 1: 7 * 2 = 14, not 15." in prompts(episode, "solver/1")
    assert (episode.verdict.status, episode.calls) == ("correct", 2)


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
        assert episode.stop_reason == "2 rounds"

    def test_a_reply_without_an_answer_is_wrong(self, play_scripted: Any) -> None:
        episode = play_scripted(friction, {"solver": ["I cannot say", BOX("yes")]})
        assert (episode.answer, episode.stop_reason) == ("yes", "nothing to mend")
        assert "Your answer is wrong." in prompts(episode, "solver/1")

    def test_an_answer_that_cannot_be_judged_is_not_called_wrong(self, play_scripted: Any, words: Any) -> None:
        async def unable(task: Task, answer: str | None) -> Verdict:
            return Verdict.unscorable("the grader is down")

        words.judge = unable
        episode = play_scripted(friction, {"solver": [BOX("no")]}, env=words)
        assert (episode.answer, episode.calls, episode.verdict.status) == ("no", 1, "unscorable")


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

    def test_who_reads_what(self, play_scripted: Any) -> None:
        fault = "fault in line 1, incorrect\nVerdict: incorrect"
        script = {"solver_1": [f"alpha {BOX('no')}", BOX("yes")], "solver_2": [f"beta {BOX('no')}"]}
        script |= {"reviewer": [fault, WRONG, RIGHT], "meta_reviewer": [f"real enough\n{RIGHT}", RIGHT]}
        episode = play_scripted(verify_refine, script, {"reviews": 1})
        assert "alpha" in prompts(episode, "reviewer/0") and "beta" in prompts(episode, "reviewer/1")
        assert "alpha" not in prompts(episode, "reviewer/1") and fault not in prompts(episode, "reviewer/1")
        check = prompts(episode, "meta_reviewer/0")
        assert "alpha" in check and fault in check and "beta" not in check and WRONG not in check
        assert fault in prompts(episode, "solver_1/1") and "real enough" not in prompts(episode, "solver_1/1")
        assert episode.turn("reviewer/2").reads == ("solver_1/1",), "what was reviewed is not reviewed again"
        assert (episode.answer, episode.stop_reason, episode.calls) == ("yes", "score 1.00", 8)

    def test_rounds_bound_it_and_the_best_score_wins(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("a"), BOX("b"), BOX("c")]}
        script |= {"reviewer": [WRONG, WRONG, RIGHT, WRONG, WRONG, WRONG], "meta_reviewer": [RIGHT] * 5}
        episode = play_scripted(verify_refine, script, {"pool": 1, "rounds": 2})
        assert (episode.answer, episode.stop_reason) == ("b", "score 0.50")
        assert episode.turn("solver/2").follows == "solver/1" and episode.turn("solver/2").reads == ("reviewer/3",)

    def test_an_earlier_solution_stands_among_equals(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("a"), BOX("b")], "reviewer": [WRONG, WRONG], "meta_reviewer": [RIGHT, RIGHT]}
        episode = play_scripted(verify_refine, script, {"pool": 1, "reviews": 1})
        assert (episode.answer, episode.stop_reason) == ("a", "score 0.00")

    def test_several_are_refined_in_a_round(self, play_scripted: Any) -> None:
        script = {f"solver_{i}": [BOX("no"), BOX("yes" if i == 2 else "no")] for i in (1, 2)}
        script |= {"reviewer": [WRONG, WRONG, WRONG, RIGHT], "meta_reviewer": [RIGHT] * 3}
        episode = play_scripted(verify_refine, script, {"reviews": 1, "best": 2})
        assert (episode.answer, episode.stop_reason) == ("yes", "score 1.00")
        assert {episode.turn(f"solver_{i}/1").follows for i in (1, 2)} == {"solver_1/0", "solver_2/0"}

    def test_no_rounds_choose_from_the_pool(self, play_scripted: Any) -> None:
        script = {"solver_1": [BOX("no")], "solver_2": [BOX("yes")]}
        script |= {"reviewer": [WRONG, WRONG, WRONG, RIGHT], "meta_reviewer": [RIGHT] * 3}
        episode = play_scripted(verify_refine, script, {"rounds": 0})
        assert (episode.answer, episode.stop_reason) == ("yes", "score 0.50")

    def test_reviews_that_cannot_be_read_do_not_count(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("yes")], "reviewer": ["hm", "It is incorrect."]}
        episode = play_scripted(verify_refine, script, {"pool": 1})
        assert (episode.answer, episode.stop_reason, episode.calls) == ("yes", "nothing to refine", 3)

    def test_a_check_that_cannot_be_read_confirms_nothing(self, play_scripted: Any) -> None:
        script = {"solver": [BOX("yes")], "reviewer": [WRONG, RIGHT], "meta_reviewer": ["hm"]}
        assert play_scripted(verify_refine, script, {"pool": 1}).stop_reason == "score 1.00"

    def test_praise_for_a_solution_without_an_answer_ends_nothing(self, play_scripted: Any) -> None:
        script = {"solver_1": ["so be it"], "solver_2": [BOX("yes")]}
        script |= {"reviewer": [RIGHT, WRONG], "meta_reviewer": ["Verdict: incorrect"]}
        episode = play_scripted(verify_refine, script, {"reviews": 1})
        assert (episode.answer, episode.stop_reason) == ("yes", "nothing to refine")


SMALL = st.integers(1, 3)
ROUNDS = st.integers(0, 3)
SETTINGS = {
    self_refine: st.fixed_dictionaries({"rounds": ROUNDS}),
    actor_critic: st.fixed_dictionaries({"lanes": SMALL, "rounds": ROUNDS}),
    self_debug: st.fixed_dictionaries({"rounds": ROUNDS}),
    friction: st.fixed_dictionaries({"rounds": ROUNDS}),
    verify_refine: st.fixed_dictionaries({"pool": SMALL, "reviews": SMALL, "best": SMALL, "rounds": ROUNDS}),
}


@pytest.mark.parametrize("topology", SETTINGS)
@hypothesis.settings(max_examples=15, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(data=st.data())
def test_calls_are_never_more_than_the_topology_states(
    play_scripted: Any, words: Any, topology: Any, data: st.DataObject
) -> None:
    settings, seed = data.draw(SETTINGS[topology]), data.draw(st.integers(0, 10**6))
    said = [BOX("yes"), BOX("no"), f"{BOX('no')}\n{RIGHT}", f"{BOX('maybe')}\n{WRONG}", WRONG, "hm"]

    def script(request: Request) -> str:
        return said[request.seed % len(said)]

    built = build(topology, settings)
    episode = play_scripted(built, script, env=Checking(words), seed=seed)
    assert built.calls is not None and episode.failure is None and episode.calls <= built.calls
    assert {turn.role for turn in episode.turns} <= set(built.roles)


@pytest.mark.parametrize(
    ("topology", "settings"),
    [
        (self_refine, {"rounds": 3}),
        (actor_critic, {"lanes": 3, "rounds": 2}),
        (friction, {}),
        (self_debug, {}),
        (verify_refine, {"pool": 3, "reviews": 2, "best": 2, "rounds": 2}),
    ],
)
def test_what_is_never_right_takes_all_the_calls_that_are_stated(
    play_scripted: Any, words: Any, topology: Any, settings: Any
) -> None:
    def script(request: Request) -> str:
        return RIGHT if "/meta_reviewer/" in request.key else f"{BOX('no')}\n{WRONG}"

    built = build(topology, settings)
    assert play_scripted(built, script, env=Checking(words)).calls == built.calls


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
