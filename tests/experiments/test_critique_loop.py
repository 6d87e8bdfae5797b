"""The critique loop: what is kept of solutions and critiques, how much of a task, what is said where there is none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.learning import Sample
from experiments import Run
from experiments.training import train
from experiments.training.critique_loop import mending, rewards
from experiments.training.recipe import Lesson, NothingToLearnError
from experiments.training.recipes import RECIPES
from experiments.training.schedule import Schedule
from experiments.training.setup import make_training_plan
from graphs import Episode
from graphs.refine import actor_critic

WRONG, FINE = "5 is wrong\nVerdict: incorrect", "all is well\nVerdict: correct"


def said(answer: str, how: object = "") -> str:
    return f"So I say {how}.\n\\boxed{{{answer}}}"


def episode(play_scripted: Any, solver: Sequence[str], reviewer: Sequence[str], **options: Any) -> Episode:
    script = {"solver": list(solver), "reviewer": list(reviewer)}
    settings = {"lanes": 1, "judged": True, **options.pop("settings", {})}
    return play_scripted(actor_critic, script, settings, **options)


def five(play_scripted: Any) -> list[Episode]:
    """One of five is right at first, and two of four are mended."""
    ends = ["yes", "yes", "no", "no"]
    mended = [
        episode(play_scripted, [said("no", i), said(end, f"{i} mended")], [WRONG + " " * i], sample=i)
        for i, end in enumerate(ends, 1)
    ]
    return [episode(play_scripted, [said("yes", 0)], [FINE]), *mended]


def taught(episodes: list[Episode], seed: int = 0, **schedule: Any) -> tuple[Lesson, list[Sample]]:
    lesson = mending(episodes, rewards, Schedule(**schedule), seed)
    return lesson, [item for item in lesson.items if isinstance(item, Sample)]


def keys(samples: Sequence[Sample], role: str) -> list[str]:
    return [sample.key.partition("/")[2] for sample in samples if sample.role == role]


def test_of_five_samples_one_right_and_two_mended_three_solutions_can_be_used(play_scripted: Any) -> None:
    episodes = five(play_scripted)
    lesson, samples = taught(episodes)
    question = episodes[0].turn("solver/0").prompt_ids
    alone = [sample for sample in samples if sample.prompt_ids == question]
    assert keys(alone, "solver") == ["0/solver/0", "1/solver/1", "2/solver/1"]
    assert [bytes(sample.token_ids).decode() for sample in alone[1:]] == [said("yes", f"{i} mended") for i in (1, 2)]
    others = [sample for sample in samples if sample not in alone]
    assert keys(others, "solver") == ["1/solver/1", "2/solver/1"]
    assert [sample.prompt_ids for sample in others if sample.role == "solver"] == [
        one.turn("solver/1").prompt_ids for one in episodes[1:3]
    ]
    assert keys(others, "reviewer") == ["0/reviewer/0", "1/reviewer/0", "2/reviewer/0"]
    assert all(sample.supervised and sample.weight == 1 and not sample.advantage for sample in samples)
    assert lesson.rewards == {"solver": {"right": 3 / 9}, "reviewer": {"stands": 1.0, "mends": 0.5}}


def test_a_lane_gives_its_first_right_solution_and_no_later_one(play_scripted: Any) -> None:
    played = episode(play_scripted, [said("yes"), said("yes", "again")], [WRONG])
    assert rewards(played) == {
        "solver/0": {"right": 1.0},
        "reviewer/0": {"stands": 0.0},
        "solver/1": {"right": 0.0},
    }
    lanes = {"solver_1": [said("yes")], "solver_2": [said("no"), said("yes")]}
    lanes |= {"reviewer_1": [FINE], "reviewer_2": [WRONG]}
    given = rewards(play_scripted(actor_critic, lanes, {"judged": True}))
    assert {id for id, terms in given.items() if sum(terms.values())} == {
        "solver_1/0", "reviewer_1/0", "solver_2/1", "reviewer_2/0",
    }  # fmt: skip


def test_only_the_critique_that_the_right_solution_read_has_mended_it(play_scripted: Any) -> None:
    solver = [said("no"), said("no", 1), said("yes", 2)]
    given = rewards(episode(play_scripted, solver, [WRONG, WRONG], settings={"rounds": 2}))
    assert [given[f"reviewer/{i}"] for i in (0, 1)] == [{"mends": 0.0}, {"mends": 1.0}]


@pytest.mark.parametrize("review", [WRONG, FINE, "hm"])
def test_a_critique_that_mends_nothing_is_not_learned(play_scripted: Any, review: str) -> None:
    script = [said("no"), *([said("no", "again")] if review == WRONG else [])]
    given = rewards(episode(play_scripted, script, [review]))
    assert given["reviewer/0"] == {"mends": 0.0}


def test_equal_solutions_of_a_task_count_once_and_of_different_ones_a_few_are_drawn(play_scripted: Any) -> None:
    same = [episode(play_scripted, [said("yes")], [FINE], sample=i) for i in range(6)]
    different = [episode(play_scripted, [said("yes", i)], [FINE], sample=i) for i in range(6, 12)]
    lesson, samples = taught([*same, *different], task_most=4)
    assert len(samples) == 4 and lesson.left_out["solutions that are equal or beyond 4 a task"] == 8
    assert samples == taught([*same, *different], task_most=4)[1] != taught([*same, *different], 1, task_most=4)[1]
    assert sum(key.partition("/")[0] in "012345" for key in keys(taught(same)[1], "solver")) == 1


def test_hard_tasks_do_not_drown(play_scripted: Any, words: Any) -> None:
    easy, hard = words.tasks(2)
    many = [episode(play_scripted, [said("yes", i)], [FINE], sample=i, task=easy) for i in range(8)]
    once = [episode(play_scripted, [said("no"), said("yes")], [WRONG], task=hard)]
    _, samples = taught([*many, *once])
    of = {task.id: sum(sample.key.startswith(f"{task.id}/") for sample in samples) for task in (easy, hard)}
    # The other task's three solutions beside one: from the question, from the conversation, and its critique.
    assert of[hard.id] == 3 and of[easy.id] == 3 + 1


def test_the_reviewer_learns_to_let_stand_as_often_as_to_mend(play_scripted: Any) -> None:
    right = [episode(play_scripted, [said("yes", i)], [FINE], sample=i) for i in range(9)]
    lesson, samples = taught(right)
    assert keys(samples, "reviewer") == []
    assert lesson.left_out["critiques beyond as many of the other side"] == 9
    mended = [episode(play_scripted, [said("no"), said("yes")], [WRONG], sample=i) for i in (9, 10)]
    _, samples = taught([*right, *mended])
    assert len(keys(samples, "reviewer")) == 4 and {"9/reviewer/0", "10/reviewer/0"} < set(keys(samples, "reviewer"))


def test_roles_that_do_not_learn_give_nothing(play_scripted: Any) -> None:
    assert {sample.role for sample in taught(five(play_scripted), roles="solver")[1]} == {"solver"}
    assert {sample.role for sample in taught(five(play_scripted), roles="reviewer")[1]} == {"reviewer"}


def test_what_episodes_lack_is_said(play_scripted: Any) -> None:
    wrong = episode(play_scripted, [said("no"), said("no", 1)], [WRONG])
    with pytest.raises(NothingToLearnError, match="expected right solutions, found none in 1 episodes, mended ones in"):
        taught([wrong])
    unjudged = episode(play_scripted, [said("yes")], [FINE], settings={"judged": False})
    with pytest.raises(NothingToLearnError, match=r"found none in 1 episodes; play actor_critic with judged=true"):
        taught([unjudged])


def test_the_solver_alone_is_measured_on_the_env_that_is_trained_on() -> None:
    settings = {"env.level": 3, "tasks": 5, "test_split": "train", "test_tasks": 40, "iterations": 2}
    plan = make_training_plan("critique_loop", None, None, None, 0, settings, "local", None)
    assert plan.exam.topology.name == "solo" and plan.exam.env is plan.plan.env
    assert plan.exam.config["env"]["settings"] == {"level": "3"} and plan.exam.config["env"]["split"] == "train"
    assert {learner.name for learner in plan.learners} == {"solver", "reviewer"}
    held = {task.id for task in plan.curriculum.test}
    assert not held & {task.id for i in range(2) for task in plan.curriculum.iteration(i)}
    other = make_training_plan("critique_loop", None, None, None, 0, {"exam.env.level": 4}, "local", None)
    assert other.exam.env is not other.plan.env and other.exam.config["env"]["settings"] == {"level": "4"}


@pytest.mark.model
@pytest.mark.slow
def test_both_policies_learn(tmp_path: Path) -> None:
    settings = {"iterations": 1, "tasks": 20, "epochs": 1, "evaluate_every": 0, "test_tasks": 4, "test_samples": 1}
    settings |= {"env.level": 5}
    training = train("critique_loop", settings=settings, seed=1, backend="local", root=tmp_path)
    (line,) = training.lines("update")
    assert line["items"] > 10 and {"solver", "reviewer"} == set(line["policies"])
    assert all(found["loss"] > 0 for found in line["policies"].values())
    assert {turn.role for one in Run(training.path / "test" / "last").episodes() for turn in one.turns} == {"solver"}
    again = mending(
        training.rollouts(0).episodes(), RECIPES["critique_loop"].credit, Schedule(roles="solver,reviewer"), 0
    )
    assert len(again.items) == line["items"]
