"""Made-up problems: what counts as one, and the pool of those that are learned from."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import Arithmetic, ConfigError, GraderError, check_env, make_env
from envs.grading import Grader
from envs.types import Poses, Task


def judged(env: object, task: Task, answer: str | None) -> str:
    return asyncio.run(env.judge(task, answer)).status  # pyright: ignore[reportAttributeAccessIssue]


def test_proposals_keep_what_an_env_promises() -> None:
    check_env(make_env("proposals", levels="2,7"))
    check_env(make_env("proposals", levels="1", numbers="small"))


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ("What is 12 + 3 * 4?", "correct"),
        ("12 + 3 * 4", "correct"),
        ("What is 12 + 3 * 400?", "incorrect"),
        ("What is 12 + 3?", "incorrect"),
        ("What is 3 - 4 + 12?", "incorrect"),
        ("How much is 12 + 3 * 4?", "incorrect"),
        ("What is " + "9" * 5000 + "?", "incorrect"),
        (" ", "unparsed"),
    ],
)
def test_a_problem_has_the_asked_operations_and_all_values_in_range(question: str, status: str) -> None:
    env = make_env("proposals", levels="2")
    assert judged(env, env.tasks(1)[0], question) == status


@given(st.text(max_size=500))
def test_whatever_is_posed_is_read_or_not_and_never_raises(text: str) -> None:
    env = Arithmetic()
    assert isinstance(env, Poses)
    found = env.posed(text)
    assert found is None or judged(env, found, found.answers[0]) == "correct"


def test_tasks_are_found_again_by_their_questions() -> None:
    env = Arithmetic(8, "large")
    for task in env.tasks(20):
        assert Arithmetic(1).posed(task.question) == task


def test_unusable_levels_are_refused() -> None:
    for levels in ("0", "nine", "2,,3"):
        with pytest.raises(ConfigError, match="levels"):
            make_env("proposals", levels=levels)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROW = {"id": "proposals-train-3", "question": "What is 1 + 1?", "answer": "2", "details": {"agreement": "3/5"}}


def test_a_pool_is_judged_by_its_labels_under_the_equivalence_of_another_env(tmp_path: Path) -> None:
    env = make_env("pool", path=write(tmp_path / "pool.jsonl", ROW))
    (task,) = env.tasks(1, "train")
    assert task.details["agreement"] == "3/5" and task.answers == ("2",)
    assert [judged(env, task, answer) for answer in ("2", "2.0", "3", "two", None)] == [
        "correct",
        "correct",
        "incorrect",
        "incorrect",
        "unparsed",
    ]
    assert asyncio.run(env.group(["2", "3", "2.0"])) == [0, 1, 0]


def test_a_pool_is_no_measure(tmp_path: Path) -> None:
    env = make_env("pool", path=write(tmp_path / "pool.jsonl", ROW))
    with pytest.raises(ConfigError, match="votes, no truth"):
        env.tasks(1, "test")
    with pytest.raises(ConfigError, match="asked for 2 tasks"):
        env.tasks(2, "train")


@pytest.mark.parametrize("row", [{"id": "a", "question": "b"}, {**ROW, "details": 3}, {**ROW, "answer": None}])
def test_a_row_that_is_none_is_named(tmp_path: Path, row: object) -> None:
    with pytest.raises(ConfigError, match=r"pool\.jsonl, line 2"):
        make_env("pool", path=write(tmp_path / "pool.jsonl", ROW, row))


def test_a_label_that_cannot_be_compared_is_unscorable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"id": "a", "question": "?", "answer": "\\frac{1}{2}", "details": {"agreement": "1/2"}}
    (tmp_path / "pool.jsonl").write_text(json.dumps(row))
    env = make_env("pool", path=str(tmp_path / "pool.jsonl"), like="dataset")

    async def hangs(*_: object) -> bool:
        raise GraderError("no result within 1 s")

    monkeypatch.setattr(Grader, "call", hangs)
    assert judged(env, env.tasks()[0], "\\frac{2}{4}") == "unscorable"
