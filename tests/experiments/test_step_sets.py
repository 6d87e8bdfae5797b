"""A set made of a run: which solutions are in it, what their first wrong step is, and that the env reads it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents import Cast, ScriptedEngine
from envs import Arithmetic, ConfigError, Steps, Task
from envs.arithmetic import reference
from envs.judged import Judged, read_judged
from experiments import Run, run
from experiments.step_sets import PER_PROBLEM, main, make_set, write_set
from tests.conftest import WordEnv


def solved(task: Task, slips: dict[int, int] | None = None, answer: str | None = None) -> str:
    steps = reference(task.details["expression"], slips)
    boxed = steps[-1].result if answer is None else answer
    return "\n".join([*map(str, steps), f"\\boxed{{{boxed}}}"])


def play(root: Path, replies: Sequence[str], tasks: int, samples: int = 1, name: str = "played") -> Run:
    """Solo, with the replies in the order of tasks and samples."""
    env = Arithmetic(level=3)
    keys = [f"{task.id}/{sample}/solver/0" for task in env.tasks(tasks) for sample in range(samples)]
    by_key = dict(zip(keys, replies, strict=True))
    cast = Cast.all(ScriptedEngine(lambda request: by_key[request.key]))
    return run("solo", env, cast, tasks=tasks, samples=samples, name=name, backend="local", root=root, progress=False)


@pytest.fixture
def tasks() -> list[Task]:
    return Arithmetic(level=3).tasks(8)


@pytest.fixture
def played(tmp_path: Path, tasks: list[Task]) -> Run:
    """Two wrong, three right, one of each kind that is left out."""
    first = reference(tasks[7].details["expression"])
    replies = [
        solved(tasks[0]),
        solved(tasks[1], {1: 5}),
        solved(tasks[2]),
        solved(tasks[3], {0: 5}, tasks[3].answers[0]),
        solved(tasks[4]),
        f"I think so.\n{solved(tasks[5])}",
        solved(tasks[6], answer="5"),
        f"{first[0]}",
    ]
    return play(tmp_path, replies, 8)


def test_which_solutions_are_kept(played: Run, tasks: list[Task]) -> None:
    made = make_set(played)
    by_question = {record.question: record for record in made.records}
    errors = {q: r.first_wrong for q, r in by_question.items() if r.first_wrong is not None}
    assert errors == {tasks[1].question: 1, tasks[3].question: 0}
    assert len(made.records) == 4 and set(by_question) - set(errors) < {tasks[i].question for i in (0, 2, 4)}
    mended = by_question[tasks[3].question]
    assert mended.final_answer_correct and not by_question[tasks[1].question].final_answer_correct
    assert mended.steps == tuple(map(str, reference(tasks[3].details["expression"], {0: 5})))
    assert mended.source == "scripted@1" and mended.id == f"{tasks[3].id}-0-solver-0"
    assert made.left_out == {
        "whose first wrong step is not of the form a + b = c": 1,
        "of right steps and a wrong answer": 1,
        "without an answer": 1,
    }


def test_a_set_is_drawn_by_its_seed(played: Run) -> None:
    drawn = [make_set(played, most=2, seed=seed).records for seed in range(8)]
    assert drawn[0] == make_set(played, most=2).records
    assert all(sum(r.first_wrong is None for r in records) == 1 == len(records) - 1 for records in drawn)
    assert len({records[0].id for records in drawn}) > 1
    assert make_set(played, most=3).figures == {"solutions": 2, "with an error": 1, "problems": 2}


def test_equal_solutions_count_once_and_problems_a_few_times(tmp_path: Path, tasks: list[Task]) -> None:
    right, other = solved(tasks[0]), solved(tasks[1])
    wrong = [solved(tasks[0], {2: 900 + i}) for i in range(4)]
    replies = [right, right, *wrong, *[other] * 6]
    made = make_set(play(tmp_path, replies, 2, samples=6))
    kinds = Counter((r.question, r.first_wrong) for r in made.records)
    assert PER_PROBLEM == 2
    assert kinds == {(tasks[0].question, None): 1, (tasks[1].question, None): 1, (tasks[0].question, 2): 2}


def test_runs_of_which_no_set_can_be_made(tmp_path: Path, tasks: list[Task]) -> None:
    sound = play(tmp_path, [solved(tasks[0]), "hm"], 2, name="sound")
    with pytest.raises(ConfigError, match="found 0 with and 1 without; left out: 1 whose first wrong step is not of"):
        make_set(sound)
    engine = ScriptedEngine({"solver": ["\\boxed{yes}"]})
    words = run("solo", WordEnv(), Cast.all(engine), tasks=1, backend="local", root=tmp_path, progress=False)
    with pytest.raises(ConfigError, match="expected a run on env arithmetic, whose steps can be checked, found words"):
        make_set(words)


def test_the_command_writes_what_the_env_reads(played: Run, tmp_path: Path) -> None:
    file = tmp_path / "sets" / "steps.jsonl"
    done = CliRunner().invoke(main, [str(played.path), str(file)])
    assert done.exit_code == 0, done.output
    assert f"{file}: 4 solutions to 4 problems, 2 with an error, 2 without" in done.output
    assert "left out: 1 without an answer" in done.output
    records: list[Judged] = list(read_judged("steps", file))
    assert records == make_set(played).records
    assert len(Steps(file).tasks()) == 4 and Steps(file, ask="step").tasks()
    again = CliRunner().invoke(main, [str(played.path), str(file)])
    assert again.exit_code == 2 and "is there already" in again.output
    assert list(read_judged("steps", file)) == records
    other = CliRunner().invoke(main, [str(played.path), str(tmp_path / "b.jsonl"), "--most", "2", "--json"])
    assert json.loads(other.output)["solutions"] == 2
    with pytest.raises(ConfigError, match=r"expected a \.jsonl file"):
        write_set(played, tmp_path / "steps.csv")
    missing = CliRunner().invoke(main, ["nowhere", str(tmp_path / "c.jsonl")])
    assert missing.exit_code == 2 and "no run 'nowhere'" in missing.output
