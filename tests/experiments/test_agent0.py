"""Agent0: what proposers are paid, what becomes of a pool, and a training that is the same after it was stopped."""

import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.learning.samples import Sample
from envs import Arithmetic, ConfigError, make_env
from envs.sandbox import why_unavailable
from experiments import Run
from experiments.pseudo_labels import Filter, agreement_of, label_of, parse_band
from experiments.runner import in_event_loop
from experiments.store import StoreError, StoreWriter
from experiments.training import Training, resume, train
from experiments.training.agent0 import OTHERS, proposer_rewards, protocol_of
from experiments.training.asked import Asked
from experiments.training.pool import question_of, write_pool
from experiments.training.recipes import RECIPES
from experiments.training.schedule import make_schedule
from experiments.training.show import render_training
from experiments.training.teacher import LocalTeacher
from graphs import Episode, pose
from tests.conftest import PlayScripted
from tests.experiments.training_helpers import without_times

pytestmark = pytest.mark.skipif(bool(why_unavailable("monty")), reason=why_unavailable("monty"))
ENV = make_env("proposals", levels="1")


def posed(play: PlayScripted, question: str | None, own: str, *answers: str, place: int = 0) -> Episode:
    """An episode in which this was proposed, and these were the answers."""
    proposal = "I cannot." if question is None else f"<question>{question}</question>\n\\boxed{{{own}}}"
    script = {"proposer": [proposal], "solver": [f"\\boxed{{{answer}}}" if answer else "Hm." for answer in answers]}
    settings = {"answers": max(1, len(answers)), "tool": False}
    return play(pose, script, settings, env=ENV, task=ENV.tasks(place + 1, "train")[place])


def rewards_of(episodes: list[Episode], **settings: Any) -> list[dict[str, float]]:
    found = proposer_rewards(episodes, make_schedule(settings, {}))
    assert all(list(found[e.task.id, e.sample]) == ["proposer/0"] for e in episodes), "the proposer's turn alone"
    return [dict(found[e.task.id, e.sample]["proposer/0"]) for e in episodes]


def test_a_question_like_others_of_the_batch_is_worth_less(play_scripted: PlayScripted) -> None:
    batch = [
        posed(play_scripted, "What is 3 + 4 * 5 - 6 + 7?", "24", "24", "25", place=0),
        posed(play_scripted, "What is 3 + 4 * 5 - 6 + 8?", "25", "25", "25", place=1),
        posed(play_scripted, "Ninety birds sat on a roof; how many were left?", "3", "3", "4", place=2),
        posed(play_scripted, None, "", place=3),
    ]
    alike, sure, other, unread = rewards_of(batch)
    assert (alike["uncertainty"], alike["repetition"]) == (1.0, -0.5), "two of four are one cluster"
    assert (sure["uncertainty"], sure["repetition"], sure["floor"]) == (0.0, -0.5, 0.5)
    assert (other["uncertainty"], other["repetition"]) == (1.0, -0.25)
    assert sum(unread.values()) == 0
    free = rewards_of(batch, repetition=0.0)
    assert free[0]["repetition"] == 0.0 and free[0]["uncertainty"] == 1.0
    assert sum(rewards_of(batch, reward="released")[3].values()) == -1.25


def test_the_own_answer_gates_where_it_is_asked_to(play_scripted: PlayScripted) -> None:
    batch = [posed(play_scripted, "What is 1 + 1?", "3", "2", "2", "3", "4")]
    assert rewards_of(batch)[0]["uncertainty"] == 1.0
    assert rewards_of(batch, own_answer=True)[0]["uncertainty"] == 0.0
    assert rewards_of(batch, reward="released")[0]["uncertainty"] == 0.0
    assert rewards_of(batch, reward="released", own_answer=False)[0]["uncertainty"] == 0.5


def test_programs_that_were_run_pay_and_need_not(play_scripted: PlayScripted) -> None:
    program = "```python\nprint(1 + 1)\n```"
    script = {
        "proposer": ["<question>What is 1 + 1?</question>\n\\boxed{2}"],
        "tool_solver": [program, program, "\\boxed{2}", "\\boxed{3}"],
    }
    episode = play_scripted(pose, script, {"answers": 2, "turns": 2}, env=ENV, task=ENV.tasks(1)[0])
    found = question_of(episode)
    assert found is not None and found.calls == 1.0
    assert rewards_of([episode])[0]["tool"] == pytest.approx(0.05)
    assert rewards_of([episode], tool_reward=0.0)[0]["tool"] == 0.0


def written(tmp_path: Path, episodes: list[Episode], wanted: Filter, **options: Any) -> tuple[Any, list[Any]]:
    path = tmp_path / "pool.jsonl"
    census = in_event_loop(lambda: write_pool(episodes, path, wanted, ENV, **options))
    return census, [json.loads(line) for line in path.read_text().splitlines()]


def test_a_pool_keeps_the_frontier_once_with_its_votes_and_is_audited(
    play_scripted: PlayScripted, tmp_path: Path
) -> None:
    answers = ["2", "2", "2", "3", "4"]
    episodes = [
        posed(play_scripted, "What is 1 + 1?", "2", *answers, place=0),
        posed(play_scripted, "What is 1 + 1?", "2", *answers, place=1),
        posed(play_scripted, "What is 9 + 9?", "18", *["18"] * 5, place=2),
        posed(play_scripted, "What is 4 + 4?", "8", "9", "9", "8", "7", "", place=3),
        posed(play_scripted, "What is 5 + 5?", "10", "10", "10", "10", "7", "7", place=4),
        posed(play_scripted, "Who is 1?", "2", "2", "2", "3", "3", "3", place=5),
        posed(play_scripted, None, "", place=6),
    ]
    held_out = {"What is 5 + 5?"}
    census, rows = written(
        tmp_path, episodes, Filter(parse_band("released")), held_out=held_out, source={"iteration": 1}
    )
    assert [row["question"] for row in rows] == ["What is 1 + 1?", "What is 4 + 4?", "Who is 1?"]
    assert dict(census.left_out) == {
        "it was posed before": 1,
        "agreement outside 3/10..4/5": 1,
        "it is measured on": 1,
        "nothing was posed": 1,
    }
    figures = census.figures()
    assert (figures["questions"], figures["kept"], figures["posed"]) == (6, 3, pytest.approx(6 / 7))
    # At 3/5 the label of 1 + 1 is true, at 2/5 that of 4 + 4 is not; "Who is 1?" has no truth.
    assert figures["true_labels_at"] == {"2/5": [0, 1], "3/5": [1, 1]}
    assert figures["true_labels"] == 0.5 and figures["no_problem"] == pytest.approx(1 / 3)
    env = make_env("pool", path=tmp_path / "pool.jsonl")
    task = env.tasks(2, "train")[1]
    assert agreement_of(task) == Fraction(2, 5) and label_of(task).votes == (("9", 2), ("8", 1), ("7", 1))
    assert (task.answers, task.details["iteration"]) == (("9",), 1)


def test_a_pool_can_ask_that_the_proposer_knows_the_answer(play_scripted: PlayScripted, tmp_path: Path) -> None:
    episodes = [
        posed(play_scripted, "What is 1 + 1?", "3", "2", "2", "3", place=0),
        posed(play_scripted, "What is 2 + 2?", "4", "4", "4", "3", place=1),
    ]
    census, rows = written(tmp_path, episodes, Filter(own_answer=True))
    assert [row["question"] for row in rows] == ["What is 2 + 2?"]
    assert dict(census.left_out) == {"its own answer is not the label": 1}


TINY: dict[str, Any] = {
    "iterations": 2,
    "env.levels": 2,
    "questions": 5,
    "answers": 3,
    "turns": 4,
    # The embedded model agrees with itself on problems that are quick to play.
    "band": "0..1",
    "policy.rank": 4,
    "test_tasks": 3,
    "test_samples": 1,
    "greedy": False,
    "exam.env.level": 2,
    "curriculum.iterations": 1,
    "curriculum.tasks": 2,
    "curriculum.samples": 2,
    "executor.iterations": 1,
    "executor.tasks": 2,
    "executor.samples": 2,
    "curriculum.advantage": "raw",
    "executor.advantage": "raw",
}


def play(root: Path, name: str, recipe: str = "agent0", **settings: Any) -> Training:
    return train(recipe, seed=1, backend="local", root=root, name=name, settings={**TINY, **settings})


def stopping(original: Any, call: int) -> Any:
    """The same, but that one of its calls fails."""
    left = [call]

    def stops(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise StoreError("stopped")
        return original(*args, **options)

    return stops


@pytest.fixture(scope="module")
def lessons() -> list[list[Sample]]:
    """What the trainers were given, in order."""
    return []


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, lessons: list[list[Sample]]) -> Iterator[Training]:
    with pytest.MonkeyPatch.context() as patch:
        update = LocalTeacher.update

        async def updated(self: LocalTeacher, items: Any, *rest: Any) -> Any:
            lessons.append(list(items))
            return await update(self, items, *rest)

        patch.setattr(LocalTeacher, "update", updated)
        yield play(tmp_path_factory.mktemp("runs"), "played")


def asked(**settings: Any) -> Asked:
    return Asked("agent0", None, None, None, 0, settings, "local", None)


def test_a_policy_that_is_called_as_a_stage_can_be_set() -> None:
    given = asked(**{"policies.executor.learning_rate": 0.0, "policies.proposer.rank": 4})
    stage = given.stage("executor", RECIPES["agent0"].stages["executor"], {"env": Arithmetic()}, OTHERS["executor"])
    assert [learner.settings.learning_rate for learner in stage.plan().learners] == [0.0]


def test_the_solver_has_one_protocol_in_all_stages_and_the_exam() -> None:
    given = asked(turns=5, seconds=9.0, workers=1, **{"exam.workers": 3})
    plan, stages = given.plan(), RECIPES["agent0"].stages
    wanted = {"turns": 5, "seconds": 9.0, "workers": 1}
    for name, changes in (("curriculum", {}), ("executor", {"env": Arithmetic()}), ("student", {"env": Arithmetic()})):
        played = given.stage(name, stages[name], changes, OTHERS.get(name, OTHERS["executor"])).plan().plan.topology
        assert wanted.items() <= dict(played.settings or {}).items(), name
    examined = protocol_of(given, plan)
    assert examined | {"workers": 1} == {**examined, **wanted} and examined["workers"] == 3


@pytest.mark.model
class TestTraining:
    def test_the_two_learn_by_turns_each_from_its_own_words_alone(
        self, played: Training, lessons: list[list[Sample]]
    ) -> None:
        assert [{(s.policy, s.role) for s in items} for items in lessons] == [
            {("proposer", "proposer")},
            {("executor", "tool_solver")},
        ] * 2
        assert all(s.scale == 1.0 and s.clip_high is None for s in lessons[0])
        assert all(s.clip_high is not None and 0.2 <= s.clip_high <= 0.3 for s in lessons[1])

    def test_each_goes_on_from_its_own_weights_while_the_other_is_frozen(self, played: Training) -> None:
        stages = {
            name: [Training(played.path / name / f"000{i}") for i in (1, 2)] for name in ("curriculum", "executor")
        }
        made = {
            name: [one.path / next(iter(one.lines("end")[0]["weights"].values())) for one in found]
            for name, found in stages.items()
        }
        for name, policy in (("curriculum", "proposer"), ("executor", "executor")):
            starts = [one.config["policies"][policy]["start"] for one in stages[name]]
            assert starts == ["", str(made[name][0].absolute())]
        seats = [Run(one.path / "rollouts" / "0000").config["cast"]["tool_solver"] for one in stages["curriculum"]]
        assert [seat["adapter"] for seat in seats] == [None, str(made["executor"][0].absolute())]
        pool = Run(played.path / "pool" / "0002").config["cast"]
        assert pool["proposer"]["adapter"] == str(made["curriculum"][1].absolute())
        assert pool["tool_solver"]["adapter"] == seats[1]["adapter"], "labels are those of the solver that will learn"
        fixed = [Run(played.path / "fixed" / f"000{i}").config["cast"]["tool_solver"]["adapter"] for i in (1, 2)]
        assert fixed == [str(made["executor"][0].absolute())] * 2

    def test_questions_differ_from_iteration_to_iteration(self, played: Training) -> None:
        files = ((played.path / "pool" / f"000{i}.jsonl").read_text().splitlines() for i in (1, 2))
        first, second = ({json.loads(line)["question"] for line in lines} for lines in files)
        assert first and second and first != second

    def test_its_lines_say_what_came_of_every_iteration(self, played: Training) -> None:
        assert [(line["kind"], line["updates"]) for line in played.lines()] == [
            ("test", 0), ("test", 1), ("update", 1), ("test", 2), ("update", 2), ("end", 2),
        ]  # fmt: skip
        assert [line["name"] for line in played.lines("test")] == ["first", "0001", "last"]
        for line in played.lines("update"):
            assert line["pool"]["questions"] <= 5 and 0 < line["items"] == line["pool"]["kept"]
            assert {"accuracy", "calls"} <= set(line["fixed"]) and {"proposer", "executor"} == set(line["policies"])
        assert all((played.path / path).is_dir() for path in played.lines("end")[0]["weights"].values())
        console = Console(width=160, record=True, file=io.StringIO())
        console.print(render_training(played))
        shown = console.export_text()
        assert "true labels" in shown and f"{played.lines('update')[0]['pool']['kept']} of " in shown

    @pytest.mark.slow
    def test_a_run_that_stopped_again_and_again_ends_as_if_it_never_had(
        self, played: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        points = (
            (StoreWriter, "append", 10),  # in the midst of a pool
            (LocalTeacher, "update", 1),  # the pool there, nothing learned from it
            (Training, "mark", 2),  # all lines of an iteration written, the mark that it is whole not
            (StoreWriter, "append", 11),  # in the midst of what the second iteration's solver plays
        )
        for number, (owner, method, call) in enumerate(points):
            with monkeypatch.context() as patch, pytest.raises(Exception, match="stopped"):
                patch.setattr(owner, method, stopping(getattr(owner, method), call))
                resume("stopped", tmp_path) if number else play(tmp_path, "stopped")
        found = resume("stopped", tmp_path)
        assert without_times(found) == without_times(played)
        for number in (1, 2):
            rows, again = ((one.path / "pool" / f"000{number}.jsonl").read_text() for one in (found, played))
            assert rows == again
            pools = [Run(one.path / "pool" / f"000{number}").summary().digest for one in (found, played)]
            assert pools[0] == pools[1]

    @pytest.mark.slow
    def test_proposals_can_be_worth_what_students_gain_by_them(self, tmp_path: Path) -> None:
        few = {"student.iterations": 1, "student.samples": 2, "validation_tasks": 3, "validation_samples": 1}
        # A student that learns this much forgets what it could.
        found = play(tmp_path, "grounded", iterations=1, reward="grounded", **{**few, "student.advantage": "raw"})
        students = found.path / "students" / "0001"
        before = Run(students / "before").summary().accuracy or 0.0
        gains = sorted((Run(path).summary().accuracy or 0.0) - before for path in students.glob("*/after"))
        assert len(gains) == 2, "one data set a brief"
        (line,) = Training(found.path / "curriculum" / "0001").lines("update")
        episodes = list(Training(found.path / "curriculum" / "0001").rollouts(0).episodes())
        assert all(question_of(episode) for episode in episodes)
        assert line["rewards"]["proposer"] == {"progress": pytest.approx(sum(gains) / 2)}

    def test_without_the_tool_it_is_r_zero(self, tmp_path: Path) -> None:
        found = play(tmp_path, "plain", "r_zero", iterations=1)
        executor = Training(found.path / "executor" / "0001")
        assert executor.rollouts(0).config["topology"]["name"] == "solo"
        assert found.lines("update")[0]["pool"]["calls"] == 0 and set(found.lines("end")[0]["weights"]) == {
            "proposer",
            "executor",
        }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"executor.tasks": 0}, "tasks"),
        ({"executor.nonsense": 1}, "nonsense"),
        ({"curriculum.loss.preset": "adop"}, "adpo"),
        ({"band": "wide"}, "band"),
        ({"reward": "code"}, "reward"),
        ({"policies.nobody.rank": 2}, "nobody"),
        ({"tasks": 4}, "curriculum.tasks or executor.tasks"),
        ({"trainer.learning_rate": 1e-3}, "executor.trainer.learning_rate"),
    ],
)
def test_what_a_stage_could_not_use_is_said_before_anything_is_played(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        play(tmp_path, "wrong", **settings)
    assert not (tmp_path / "wrong").exists()
