"""SPC's game: the gate, who reads what, what is written down, what ends it; the solver's own errors; step judging."""

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from agents import Request
from envs import Arithmetic
from envs.arithmetic import check_step, reference
from envs.types import Task, Verdict
from experiments.training.spc import rewards
from graphs import Episode, spc
from graphs.spc import is_right, is_valid, spc_pairs
from graphs.stepwise import judge_steps
from tests.graphs.spc_helpers import (
    BAD,
    BEFORE,
    CORRECT,
    GOOD,
    INCORRECT,
    NO,
    SPOILED,
    STEP,
    YES,
    ended,
    game,
    sabotage,
)


def texts(episode: Episode, id: str) -> str:
    return "\n".join(message.content for message in episode.turn(id).messages)


@pytest.mark.parametrize(("right", "spoiled", "valid"), [(6, 0, True), (5, 0, False), (8, 1, False), (8, 0, True)])
def test_a_sabotage_is_valid_where_the_step_is_right_and_the_error_fatal(right: int, spoiled: int, valid: bool) -> None:
    assert is_valid(right, spoiled, 8) is valid


@hypothesis.given(st.integers(1, 64), st.data())
def test_three_in_four_are_counted_without_rounding(completions: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, completions))
    assert is_right(right, completions) is (right / completions >= 0.75)


class TestGame:
    def test_a_valid_sabotage_is_criticised_beside_the_step_as_it_was(self, play_scripted: Any) -> None:
        episode = game(play_scripted)
        assert episode.calls == 2 + 8 + 1 + 8 + 2
        assert episode.stop_reason == "0 of 1 critiques missed the error"
        assert episode.answer in ("yes", "no"), "the vote of the solutions"
        assert episode.notes == (
            {
                "game": {"before": BEFORE, "step": STEP, "right": 8, "completions": 8},
                "sabotages": [
                    {
                        "turn": "sneaky/0",
                        "kind": "digit",
                        "step": SPOILED,
                        "right": 0,
                        "valid": True,
                        "critiques": ["critic/0"],
                    }
                ],
                "untouched": ["critic/1"],
            },
        )

    def test_whose_words_stand_in_whose_prompt(self, play_scripted: Any) -> None:
        episode = game(play_scripted)
        assert episode.turn("sneaky/0").reads == ("solver/0",)
        assert STEP in texts(episode, "sneaky/0") and SPOILED not in texts(episode, "sneaky/0")
        assert [episode.turn(id).reads for id in ("critic/0", "critic/1")] == [("sneaky/0",), ("solver/0",)]
        assert SPOILED in texts(episode, "critic/0") and STEP not in texts(episode, "critic/0")
        assert STEP in texts(episode, "critic/1") and SPOILED not in texts(episode, "critic/1")
        for id in ("critic/0", "critic/1"):
            assert BEFORE.strip() in texts(episode, id) and "yes" not in texts(episode, id), "the answer is not told"

    def test_completions_go_on_from_behind_the_step_and_from_behind_its_sabotage(self, play_scripted: Any) -> None:
        episode = game(play_scripted)
        begun = [(turn.opening, turn.reads) for turn in episode.turns if turn.opening]
        as_it_was, spoiled = (f"{BEFORE}{STEP}\n", ("solver/0",)), (f"{BEFORE}{SPOILED}\n", ("sneaky/0",))
        assert begun == [as_it_was] * 8 + [spoiled] * 8
        assert all(turn.reply == f"{turn.opening}{YES}" for turn in episode.turns[2:10])

    @pytest.mark.parametrize(("right", "goes_on"), [(5, False), (6, True)])
    def test_a_step_that_is_not_right_ends_the_game_and_costs_nobody(
        self, play_scripted: Any, right: int, goes_on: bool
    ) -> None:
        if goes_on:
            assert game(play_scripted, right).calls == 21
            return
        episode = game(play_scripted, right, (), (), ())
        assert (episode.calls, episode.stop_reason) == (10, "no right step: 5 of 8 completions")
        assert episode.notes == () and rewards(episode) == {}

    def test_without_a_place_where_solutions_part_there_is_no_game(self, play_scripted: Any) -> None:
        for replies in ([GOOD, GOOD], [BAD, BAD], ["", ""]):
            episode = play_scripted(spc, {"solver": replies}, {"solutions": 2})
            assert (episode.calls, episode.stop_reason, episode.notes) == (2, "no step to play for", ())

    def test_with_one_solution_any_of_its_steps_may_be_drawn_and_a_seed_draws_the_same(
        self, play_scripted: Any
    ) -> None:
        def script(request: Request) -> str:
            says = {"sneaky": sabotage("0 = 1"), "critic": CORRECT}
            return says.get(request.key.split("/")[2]) or (YES if request.opening else GOOD)

        def drawn(seed: int) -> str:
            return play_scripted(spc, script, seed=seed).notes[0]["game"]["step"]

        steps = [drawn(seed) for seed in range(12)]
        assert set(steps) == {"2 + 3 = 5", STEP}, "the line of the answer is no step"
        assert steps == [drawn(seed) for seed in range(12)]

    @pytest.mark.parametrize("right", [1, 7, 8])
    def test_an_error_that_is_not_fatal_is_not_shown_to_the_critic(self, play_scripted: Any, right: int) -> None:
        episode = game(play_scripted, spoiled=(right,), critic=(CORRECT,))
        (note,) = episode.notes
        (found,) = note["sabotages"]
        assert (found["right"], found["valid"], found["critiques"]) == (right, False, [])
        assert note["untouched"] == ["critic/0"] and episode.stop_reason == "no valid sabotage"
        assert rewards(episode) == {"sneaky/0": {"attack": -1.0}, "critic/0": {"detection": 1.0}}

    @pytest.mark.parametrize("reply", ["hm", "Error: rounding\nStep: 1", sabotage(STEP), sabotage(f"  {STEP} ")])
    def test_what_is_no_sabotage_is_not_completed_and_costs_the_generator(self, play_scripted: Any, reply: str) -> None:
        episode = game(play_scripted, spoiled=(), sneaky=(reply,), critic=(CORRECT,))
        (found,) = episode.notes[0]["sabotages"]
        assert (found["right"], found["valid"]) == (None, False)
        assert (found["step"] is None) is (episode.turn("sneaky/0").failure is not None) is (STEP not in reply)
        assert rewards(episode)["sneaky/0"] == {"attack": -1.0}

    def test_equal_sabotages_are_completed_once_and_each_is_criticised(self, play_scripted: Any) -> None:
        said = (sabotage(), sabotage("5 + 4 = 6"), sabotage())
        critic = (INCORRECT, CORRECT, "?", CORRECT, CORRECT, INCORRECT)
        episode = game(play_scripted, spoiled=(0, 0), sneaky=said, critic=critic)
        (note,) = episode.notes
        assert sum(bool(turn.opening) for turn in episode.turns) == 8 + 2 * 8
        assert [found["critiques"] for found in note["sabotages"]] == [["critic/0"], ["critic/1"], ["critic/2"]]
        assert note["untouched"] == ["critic/3", "critic/4", "critic/5"], "as many of the step as it was"
        assert episode.turn("critic/2").reads == ("sneaky/2",)
        assert episode.stop_reason == "2 of 3 critiques missed the error", "a verdict that cannot be read misses it"

    def test_several_critiques_are_as_many_games_of_which_the_generator_gets_the_mean(self, play_scripted: Any) -> None:
        critic = (INCORRECT, CORRECT, CORRECT, "?", CORRECT, CORRECT, INCORRECT, "?")
        episode = game(play_scripted, critic=critic, critiques=4)
        found = {id: sum(terms.values()) for id, terms in rewards(episode).items()}
        assert [found.pop(f"critic/{i}") for i in range(8)] == [1, -1, -1, -1, 1, 1, -1, -1]
        assert found == {"sneaky/0": 0.5}

    def test_a_generator_that_goes_on_is_asked_as_the_solver_and_held_to_one_step(self, play_scripted: Any) -> None:
        replies = [SPOILED, STEP, YES, "no step at all"]
        episode = game(
            play_scripted, sneaky=replies, spoiled=(0, 0), critic=[INCORRECT] * 2 + [CORRECT] * 2, sneak="continue"
        )
        asked = episode.turn("sneaky/0")
        assert (
            asked.opening == BEFORE
            and asked.move == "solve"
            and texts(episode, "sneaky/0") == texts(episode, "solver/0")
        )
        tried = [(s["kind"], s["step"], s["right"]) for s in episode.notes[0]["sabotages"]]
        # The step itself is no sabotage, and an answer is no step.
        assert tried == [
            ("digit", SPOILED, 0),
            (None, STEP, None),
            (None, None, None),
            ("calculation", "no step at all", 0),
        ]

    def test_by_rule_no_generator_is_asked_and_the_env_spoils_the_step(self, play_scripted: Any) -> None:
        env = Arithmetic(level=3)
        task = env.tasks(1)[0]
        steps = [str(step) for step in reference(task.details["expression"])]
        right = f"\\boxed{{{task.answers[0]}}}"
        lines = "\n".join(steps)

        def script(request: Request) -> str:
            role = request.key.split("/")[2]
            if role == "critic":
                return CORRECT
            assert role == "solver"
            begun = request.opening.splitlines()
            return right if begun == steps[: len(begun)] and begun else NO if begun else f"{lines}\n{right}"

        episode = play_scripted(spc, script, {"opponent": "rule", "sabotages": 2}, env, task)
        (note,) = episode.notes
        assert {turn.role for turn in episode.turns} == {"solver", "critic"}
        at = steps.index(note["game"]["step"])
        for found in note["sabotages"]:
            assert (found["turn"], found["right"], found["valid"]) == (None, 0, True)
            assert check_step(task.details["expression"], steps[:at], found["step"]).status == "incorrect"
            assert episode.turn(found["critiques"][0]).reads == ("solver/0",)
        assert set(rewards(episode)) == {turn.id for turn in episode.turns if turn.role == "critic"}

    def test_an_env_that_makes_no_errors_fails_the_episode(self, play_scripted: Any) -> None:
        episode = game(play_scripted, spoiled=(), sneaky=(), critic=(), opponent="rule")
        assert episode.failure and "env words makes no errors by rule" in episode.failure

    def test_an_env_that_cannot_judge_fails_the_episode(self, play_scripted: Any, words: Any) -> None:
        class Unsure(type(words)):
            async def judge(self, task: Task, answer: str | None) -> Verdict:
                return Verdict.unscorable("the grader is away")

        episode = play_scripted(spc, {"solver": [GOOD, BAD]}, {"solutions": 2}, env=Unsure())
        assert episode.failure and "could not be judged" in episode.failure and "the grader is away" in episode.failure
        assert episode.notes == ()


REPLIES = st.sampled_from([CORRECT, INCORRECT, "hm"])


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=40)
@hypothesis.given(st.data())
def test_valid_sabotages_are_zero_sum_and_invalid_ones_cost_the_generator_alone(
    play_scripted: Any, data: st.DataObject
) -> None:
    each = data.draw(st.integers(1, 3))
    counts = data.draw(st.lists(st.sampled_from([0, 0, 1, 4]), min_size=1, max_size=4))
    said = [sabotage(f"5 + 4 = {i + 20}") for i in range(len(counts))]
    valid = sum(count == 0 for count in counts)
    asked = each * (valid + max(1, valid))
    critic = data.draw(st.lists(REPLIES, min_size=asked, max_size=asked))
    # The last sabotage is completed first.
    episode = game(play_scripted, 4, counts[::-1], said, critic, completions=4, critiques=each)
    given = {id: sum(terms.values()) for id, terms in rewards(episode).items()}
    (note,) = episode.notes
    for found, count in zip(note["sabotages"], counts, strict=True):
        assert found["valid"] is (count == 0)
        assert len(found["critiques"]) == (each if found["valid"] else 0)
        if found["valid"]:
            mean = sum(given[id] for id in found["critiques"]) / each
            assert given[found["turn"]] + mean == pytest.approx(0, abs=1e-12)
        else:
            assert given[found["turn"]] == -1
    of_critic = {id for id in given if id.startswith("critic")}
    named = [id for found in note["sabotages"] for id in found["critiques"]] + note["untouched"]
    assert of_critic == set(named) == {turn.id for turn in episode.turns if turn.role == "critic"}


@pytest.mark.parametrize(
    ("spoiled", "critic", "generator", "paid"),
    [
        (1, ("?",), -1, {"critic/0": -1}),
        (0, (INCORRECT, CORRECT), -1, {"critic/0": 1, "critic/1": 1}),
        (0, (CORRECT, CORRECT), 1, {"critic/0": -1, "critic/1": 1}),
        (0, (INCORRECT, INCORRECT), -1, {"critic/0": 1, "critic/1": -1}),
        (0, ("?", "?"), 1, {"critic/0": -1, "critic/1": -1}),
    ],
    ids=["invalid", "found", "missed", "false alarm", "unreadable"],
)
def test_who_is_paid_what(
    play_scripted: Any, spoiled: int, critic: tuple[str, ...], generator: int, paid: dict[str, int]
) -> None:
    given = {
        id: sum(terms.values()) for id, terms in rewards(game(play_scripted, 8, (spoiled,), critic=critic)).items()
    }
    assert given == {"sneaky/0": generator, **paid}


class TestPairs:
    def test_a_wrong_solution_parts_from_the_right_one_that_it_goes_along_with_longest(
        self, play_scripted: Any
    ) -> None:
        short, long = f"a\nb\n{YES}", f"a\nc\nd\n{YES}"
        wrong = f"a\nc\ne\n{NO}"
        replies = [short, long, wrong, *ended(4, 4), *ended(0, 4)]
        taught = "Error: calculation\nStep: e"
        script = {"solver": replies, "sneaky": [sabotage("f"), ""], "critic": [CORRECT, "?", INCORRECT, CORRECT]}
        settings = {"solutions": 3, "completions": 4, "critiques": 2}
        episode = play_scripted(spc_pairs, script, settings)
        assert episode.stop_reason == "1 of 1 pairs are valid"
        (note,) = episode.notes
        assert (note["pair"], note["counts"], note["completions"]) == (["d", "e"], [4, 0], 4)
        assert (note["right"], note["wrong"]) == (["critic/0", "critic/1"], ["critic/2", "critic/3"])
        assert (note["own"], note["taught"]) == ("sneaky/0", "sneaky/1")
        assert episode.turn("sneaky/1").opening == taught == episode.turn("sneaky/1").reply
        assert episode.turn("sneaky/0").messages == episode.turn("sneaky/1").messages
        assert [turn.opening for turn in episode.turns[3:]][:8] == ["a\nc\nd\n"] * 4 + ["a\nc\ne\n"] * 4

    @pytest.mark.parametrize(("right", "spoiled", "valid"), [(6, 0, 1), (5, 0, 0), (8, 1, 0)])
    def test_pairs_pass_the_same_gate(self, play_scripted: Any, right: int, spoiled: int, valid: int) -> None:
        script = {"solver": [GOOD, BAD, *ended(right), *ended(spoiled)]}
        script |= {"sneaky": [sabotage(), ""], "critic": [CORRECT, INCORRECT]} if valid else {}
        episode = play_scripted(spc_pairs, script, {"solutions": 2, "critiques": 1})
        assert len(episode.notes) == valid and episode.stop_reason == f"{valid} of 1 pairs are valid"

    def test_equal_pairs_are_one_and_a_task_gives_no_more_than_asked_for(self, play_scripted: Any) -> None:
        others = [f"{BEFORE}5 + 4 = {i}\n{NO}" for i in (1, 2, 3)]
        replies = [GOOD, BAD, BAD, *others, *ended(0, 16), *ended(0, 16)]
        episode = play_scripted(spc_pairs, {"solver": replies}, {"solutions": 6, "pairs": 2})
        assert episode.stop_reason == "0 of 2 pairs are valid" and episode.calls == 6 + 2 * 16

    @pytest.mark.parametrize("replies", [[GOOD, GOOD], [BAD, BAD], [GOOD, f"{BEFORE}{STEP}\n{NO}"], ["", "hm"]])
    def test_where_nothing_parts_nothing_is_completed(self, play_scripted: Any, replies: list[str]) -> None:
        episode = play_scripted(spc_pairs, {"solver": replies}, {"solutions": 2})
        assert (episode.calls, episode.stop_reason) == (2, "no two solutions part")


class TestJudgeSteps:
    TASK = Task(id="t", question="?", answers=("1",), details={"steps": ["a", "b", "c"], "judge": [0, 1, 2]})

    def judged(self, play_scripted: Any, critic: list[str], task: Task = TASK, **settings: Any) -> Episode:
        return play_scripted(judge_steps, {"critic": critic}, settings, task=task)

    @pytest.mark.parametrize(
        ("critic", "answer"),
        [
            ([CORRECT, INCORRECT, CORRECT], "1"),
            ([INCORRECT, CORRECT, INCORRECT], "0"),
            ([CORRECT, CORRECT, CORRECT], "none"),
        ],
    )
    def test_the_answer_is_the_first_step_found_wrong(self, play_scripted: Any, critic: list[str], answer: str) -> None:
        episode = self.judged(play_scripted, critic)
        assert (episode.answer, episode.stop_reason, episode.calls) == (answer, "judged", 3)
        assert episode.notes == tuple({"judged": f"critic/{i}", "step": i} for i in range(3))

    def test_each_step_is_judged_after_those_before_it_and_sees_none_behind_it(self, play_scripted: Any) -> None:
        def script(request: Request) -> str:
            shown = request.messages[-1].content
            steps = [step for step in "xyz" if f"\n{step}\n" in shown]
            assert steps == list("xyz")[: int(request.key[-1]) + 1]
            return CORRECT

        task = self.TASK.model_copy(update={"details": {"steps": list("xyz"), "judge": [0, 1, 2]}})
        assert play_scripted(judge_steps, script, task=task).answer == "none"

    def test_only_the_steps_that_are_asked_about_are_judged(self, play_scripted: Any) -> None:
        task = self.TASK.model_copy(update={"details": {"steps": ["a", "b", "c"], "judge": [2]}})
        episode = self.judged(play_scripted, [INCORRECT], task)
        assert (episode.answer, episode.notes) == ("2", ({"judged": "critic/0", "step": 2},))

    def test_a_verdict_that_cannot_be_read_leaves_no_answer(self, play_scripted: Any) -> None:
        episode = self.judged(play_scripted, [CORRECT, "hm", INCORRECT])
        assert (episode.answer, episode.stop_reason) == (None, "a verdict that cannot be read")
        assert [note["judged"] for note in episode.notes] == ["critic/0", "critic/1", "critic/2"]

    @pytest.mark.parametrize(("second", "answer"), [(INCORRECT, "1"), (CORRECT, "none"), ("hm", None)])
    def test_asked_again_the_last_attempt_counts(self, play_scripted: Any, second: str, answer: str | None) -> None:
        def script(request: Request) -> str:
            return {"1": "hm", "1.1": second}.get(request.key.rpartition("/")[2], CORRECT)

        episode = play_scripted(judge_steps, script, {"retries": 1}, task=self.TASK)
        assert episode.answer == answer and episode.calls == 4
        assert [note["judged"] for note in episode.notes] == ["critic/0", "critic/1.1", "critic/2"]
