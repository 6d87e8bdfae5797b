"""Solutions with a known first error: the published forms, splits, balanced steps, and what is wrong with a file."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given as draw
from hypothesis import strategies as st

from envs import ConfigError, Steps, Task, check_env, make_env
from envs.judged import Form
from envs.steps import Judged, given, read_judged, split_of, write_processbench

BENCH = [
    {
        "id": f"gsm8k-{i}",
        "generator": "Qwen2-7B-Instruct",
        "problem": f"What is {i} + 1?",
        "steps": ["First.", "Then.", "So it is."],
        "final_answer_correct": label == -1,
        "label": label,
    }
    for i, label in enumerate([-1, 0, 2, -1, 1, -1])
]
ABC, ABX = ["a", "b", "c"], ["a", "b", "x"]


def save(path: Path, rows: Sequence[Any]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows))
    return path


def read(tmp_path: Path, row: Any, form: Form = "auto") -> list[Judged]:
    return list(read_judged("steps", save(tmp_path / "rows.jsonl", [row]), form))


def step(*rated: tuple[str, int | None], chosen: int | None = 0, by_hand: Any = None) -> dict[str, Any]:
    completions = [{"text": text, "rating": rating, "flagged": None} for text, rating in rated]
    return {"completions": completions, "human_completion": by_hand, "chosen_completion": chosen}


def labelled(*steps: dict[str, Any], finish: str = "found_error", written: Any = None) -> dict[str, Any]:
    return {
        "labeler": "x",
        "generation": None,
        "question": {"problem": "p?", "pre_generated_steps": written},
        "label": {"steps": list(steps), "finish_reason": finish},
    }


def sections(numbers: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "d1", "origin": "Omni-MATH", "question": "p?", "reason_error_section_numbers": numbers, **fields}


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.parquet"])
def test_processbench(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, BENCH)
    records = list(read_judged("steps", path))
    assert records[2] == Judged(
        id="gsm8k-2",
        question="What is 2 + 1?",
        steps=("First.", "Then.", "So it is."),
        first_wrong=2,
        source="Qwen2-7B-Instruct",
        final_answer_correct=False,
    )
    assert [r.first_wrong for r in records] == [None, 0, 2, None, 1, None]
    env = make_env("steps", path=path)
    tasks = {task.id: task for task in env.tasks()}
    assert len(tasks) == 6 and tasks["steps-gsm8k-0"].answers == ("none",)
    task = tasks["steps-gsm8k-2"]
    assert (task.question, task.answers) == ("What is 2 + 1?", ("2",))
    assert task.details == {
        "steps": ["First.", "Then.", "So it is."],
        "judge": [0, 1, 2],
        "first_wrong": 2,
        "source": "Qwen2-7B-Instruct",
    }
    check_env(env, n=6)
    check_env(make_env("steps", path=path, ask="step"), n=6)


def first_wrong(tmp_path: Path, row: Any) -> tuple[tuple[str, ...], int | None]:
    (record,) = read(tmp_path, row)
    return record.steps, record.first_wrong


def test_prm800k_follows_the_path_that_was_chosen(tmp_path: Path) -> None:
    good, other = step(("a", 1), ("no", -1)), step(("no", -1), ("b", 0), chosen=1)
    assert first_wrong(tmp_path, labelled(good, other, finish="solution")) == (("a", "b"), None)
    by_hand = step(("no", -1), ("nor this", -1), chosen=None, by_hand={"text": "b", "rating": None})
    assert first_wrong(tmp_path, labelled(good, by_hand)) == (("a", "b"), None)
    by_hand["human_completion"] = "b"
    assert first_wrong(tmp_path, labelled(good, by_hand)) == (("a", "b"), None)
    assert first_wrong(tmp_path, labelled(good, step(("x", -1)), step(("c", 1)))) == (("a", "x"), 1)


def test_prm800k_where_labelling_stopped(tmp_path: Path) -> None:
    stopped = step(("x", -1), ("better", 0), ("y", -1), chosen=None)
    assert first_wrong(tmp_path, labelled(step(("a", 1)), stopped)) == (("a", "x"), 1)
    rest = ["a", "x", "c", "d"]
    assert first_wrong(tmp_path, labelled(step(("a", 1)), stopped, written=rest)) == (("a", "x", "c", "d"), 1)
    assert first_wrong(tmp_path, labelled(step(("a", 1)), stopped, written=["z", "x", "c"])) == (("a", "x"), 1)
    unrated = step(("b", None), chosen=None)
    assert first_wrong(tmp_path, labelled(step(("a", 1)), unrated, finish="give_up", written=rest)) == (("a",), None)
    assert read(tmp_path, labelled(unrated)) == [] == read(tmp_path, labelled(step(("a", 1)), finish="bad_problem"))


@pytest.mark.parametrize("numbers", [[3, 2], "[3, 2]"])
@pytest.mark.parametrize(
    "fields",
    [
        {"sections": [{"content": "a"}, {"section": "b"}, {"content": "c"}]},
        {"sections_content": "section1: a\n\n\nsection2: b\n\n\nsection3: c"},
    ],
)
def test_deltabench(tmp_path: Path, numbers: Any, fields: dict[str, Any]) -> None:
    (record,) = read(tmp_path, sections(numbers, final_correct=0, **fields))
    assert (record.id, record.question, record.source, record.final_answer_correct) == ("d1", "p?", "Omni-MATH", False)
    assert (record.steps, record.first_wrong) == (("a", "b", "c"), 1)
    (right,) = read(tmp_path, sections([], **fields))
    assert right.first_wrong is None and right.final_answer_correct is None


def test_a_section_is_not_split_at_a_number_out_of_turn(tmp_path: Path) -> None:
    text = "section1: see\nsection 9: above\n\nsection2: b"
    (record,) = read(tmp_path, sections([2], sections_content=text))
    assert record.steps == ("see\nsection 9: above", "b")


BAD = {
    "no form": ({"q": 1}, r"line 1: expected the fields problem, steps and label \(processbench\).*found 'q'; name"),
    "label": ({**BENCH[0], "label": 3}, "line 1: expected a label from -1 to 2, found 3"),
    "label yes": ({**BENCH[0], "label": True}, "line 1: expected a label from -1 to 2, found True"),
    "no steps": ({**BENCH[0], "steps": []}, r"line 1: expected a list of steps, each a text, found \[\]"),
    "steps": ({**BENCH[0], "steps": "First."}, "line 1: expected steps as a list, found 'First.'"),
    "a step": ({**BENCH[0], "steps": [1, "b"]}, r"line 1: expected a list of steps, each a text, found \[1, 'b'\]"),
    "problem": ({**BENCH[0], "problem": " "}, "line 1: expected a problem as text, found ' '"),
    "final": ({**BENCH[0], "final_answer_correct": "yes"}, "expected final_answer_correct true or false, found 'yes'"),
    "surrogate": ({**BENCH[0], "problem": "\ud83d"}, "line 1: half of a surrogate pair"),
    "question": ({"question": "p", "label": {}}, "line 1: expected question as an object, found 'p'"),
    "rows": (labelled({"completions": [{"rating": 1}]}), "line 1: expected steps with completions of text and rating"),
    "rating": (labelled(step(("a", 2))), r"line 1: expected ratings -1, 0 or 1, found \[2\]"),
    "chosen": (labelled(step(("a", 1), chosen=1)), "line 1: expected a chosen completion among 1, from 0; found 1"),
    "sections": (sections([4], sections=ABC), r"expected numbers of wrong sections from 1 to 3, found \[4\]"),
    "numbers": (sections("4;", sections=ABC), "expected numbers of wrong sections from 1 to 3, found '4;'"),
    "unlabelled": ({"question": "p?", "sections": ABC}, "expected a field reason_error_section_numbers or error_sec"),
    "no object": ([1], r"line 1: expected an object, found \[1\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named_with_its_place(tmp_path: Path, case: str) -> None:
    row, message = BAD[case]
    with pytest.raises(ConfigError, match=message) as error:
        make_env("steps", path=save(tmp_path / "rows.jsonl", [row]))
    assert "rows.jsonl" in str(error.value) and "\n" not in str(error.value)


def test_a_form_that_is_given_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1: expected a field steps, found 'id, labeler"):
        read(tmp_path, labelled(step(("a", 1))), "processbench")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env steps needs a file .*--set env\.path=FILE"):
        make_env("steps")
    with pytest.raises(ConfigError, match=r"env steps: .*empty\.jsonl holds no rows"):
        make_env("steps", path=save(tmp_path / "empty.jsonl", []))
    with pytest.raises(ConfigError, match="line 2: the id 'gsm8k-0' occurs twice"):
        make_env("steps", path=save(tmp_path / "twice.jsonl", [BENCH[0], BENCH[0]]))
    with pytest.raises(ConfigError, match="expected validation from 0 to below 1, found 1"):
        Steps(save(tmp_path / "rows.jsonl", BENCH), validation=1)


def test_splits_are_of_problems_and_the_same_under_every_seed(tmp_path: Path) -> None:
    rows = [{**BENCH[0], "id": f"{i}/{k}", "problem": f"What is {i}?"} for i in range(200) for k in range(2)]
    path = save(tmp_path / "rows.jsonl", rows)
    env = Steps(path, validation=0.25)
    held, rest = ({t.question for t in env.tasks(split=split)} for split in ("validation", "test"))
    assert not held & rest and len(held | rest) == 200 and 30 <= len(held) <= 70
    assert len(env.tasks(split="validation")) == 2 * len(held)
    assert {t.question for t in Steps(path, seed=1, validation=0.25).tasks(split="validation")} == held
    assert {split_of(question, 0.25) for question in held} == {"validation"}
    assert len(Steps(path).tasks()) == 400
    with pytest.raises(
        ConfigError, match=r"one file and thus one split, test; asked for validation: .*env\.validation="
    ):
        Steps(path).tasks(split="validation")
    with pytest.raises(ConfigError, match="no train split"):
        env.tasks(split="train")
    with pytest.raises(ConfigError, match=r"asked for 401 tasks, .* has 400 in its test split, ask=solution"):
        Steps(path).tasks(401)
    none = Steps(save(tmp_path / "one.jsonl", BENCH[:1]), validation=1e-9)
    with pytest.raises(ConfigError, match="has no solution in its validation split"):
        none.tasks(split="validation")


def test_the_seed_orders_the_tasks(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", [{**BENCH[i % 6], "id": i} for i in range(30)])
    orders = [[t.id for t in Steps(path, seed=seed).tasks()] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("2", "correct"),
        (" 2 ", "correct"),
        ("1", "incorrect"),
        ("none", "incorrect"),
        ("-1", "unparsed"),
        ("None", "unparsed"),
        ("step 2", "unparsed"),
        ("2.0", "unparsed"),
        ("²", "unparsed"),
        ("", "unparsed"),
        (None, "unparsed"),
    ],
)
def test_verdicts(tmp_path: Path, answer: str | None, status: str) -> None:
    env = Steps(save(tmp_path / "rows.jsonl", [BENCH[2]]))
    assert asyncio.run(env.judge(env.tasks()[0], answer)).status == status


def test_answers_are_grouped_by_text(tmp_path: Path) -> None:
    env = Steps(save(tmp_path / "rows.jsonl", BENCH))
    assert asyncio.run(env.group(["2", "none", "2", "1", "none"])) == [0, 1, 0, 3, 1]


def solutions(shapes: Sequence[tuple[int, int | None]]) -> list[dict[str, Any]]:
    """Rows of so many steps, the first wrong one there."""
    return [
        {
            "id": i,
            "problem": f"p{i // 2}",
            "steps": [f"{i}.{at}" for at in range(n)],
            "label": -1 if wrong is None else wrong,
        }
        for i, (n, wrong) in enumerate(shapes)
    ]


SHAPES = st.lists(
    st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.none() | st.integers(0, n - 1))),
    min_size=1,
    max_size=25,
)


def judged_steps_of(tasks: Sequence[Task]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(problem and text, place) of the wrong and of the correct ones."""
    wrong, correct = [], []
    for task in tasks:
        steps, (at,) = given(task)
        (wrong if task.answers == (str(at),) else correct).append((steps[at], at))
    return wrong, correct


@draw(shapes=SHAPES, seed=st.integers(0, 5))
def test_as_many_steps_are_wrong_as_correct(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int | None]], seed: int
) -> None:
    path = save(tmp_path_factory.mktemp("steps") / "rows.jsonl", solutions(shapes))
    env = Steps(path, ask="step", seed=seed)
    errors = [(f"{i}.{wrong}", wrong) for i, (_, wrong) in enumerate(shapes) if wrong is not None]
    sound = {(f"{i}.{at}", at) for i, (n, wrong) in enumerate(shapes) for at in range(n if wrong is None else wrong)}
    expected = min(len(errors), len(sound))
    if not expected:
        with pytest.raises(ConfigError, match="no wrong step with a correct one to put beside it in its test split"):
            env.tasks()
        return
    tasks = env.tasks()
    wrong, correct = judged_steps_of(tasks)
    assert len(wrong) == len(correct) == expected
    assert set(wrong) <= set(errors) and set(correct) <= sound
    assert len({task.id for task in tasks}) == len(tasks) == len({*wrong, *correct})
    if len(sound) >= len(errors):
        assert sorted(wrong) == sorted(errors)
    halves = [judged_steps_of(tasks[i : i + 2]) for i in range(0, len(tasks), 2)]
    assert all(len(half[0]) == len(half[1]) == 1 for half in halves)
    assert [t.id for t in Steps(path, ask="step", seed=seed).tasks()] == [t.id for t in tasks]
    # Places: as many correct steps as there are, and as are needed, stand where the wrong ones do.
    had = Counter(at for _, at in sound)
    needed = Counter(at for _, at in errors)
    assert sum((Counter(at for _, at in correct) & needed).values()) >= sum((had & needed).values())


def test_correct_steps_are_drawn_evenly_over_solutions(tmp_path: Path) -> None:
    shapes = [(6, at) for at in range(6)] * 2 + [(6, None)] * 20
    tasks = Steps(save(tmp_path / "rows.jsonl", solutions(shapes)), ask="step").tasks()
    wrong, correct = judged_steps_of(tasks)
    assert Counter(at for _, at in correct) == Counter(at for _, at in wrong)
    assert max(Counter(text.split(".")[0] for text, _ in correct).values()) == 1
    assert [t.id for t in tasks] != sorted(t.id for t in tasks)


def test_solutions_that_reach_a_late_place_are_kept_for_it(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", solutions([(1, 0), (3, 2), (3, None)]))
    for seed in range(8):
        _, correct = judged_steps_of(Steps(path, ask="step", seed=seed).tasks())
        assert sorted(correct) == [("1.0", 0), ("2.2", 2)]


def test_the_nearest_place_is_taken_where_none_is_correct_at_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", solutions([(4, 3), (1, None)]))
    assert judged_steps_of(Steps(path, ask="step").tasks()) == ([("0.3", 3)], [("0.2", 2)])


def test_whether_a_step_is_wrong_is_not_told_by_its_turn(tmp_path: Path) -> None:
    tasks = Steps(save(tmp_path / "rows.jsonl", solutions([(2, 1), (2, None)] * 20)), ask="step").tasks()
    assert {task.answers == ("none",) for task in tasks[::2]} == {True, False}


def test_only_the_judged_step_is_asked_for(tmp_path: Path) -> None:
    env = Steps(save(tmp_path / "rows.jsonl", solutions([(3, 2), (3, None)])), ask="step")
    by_id = {task.id: task for task in env.tasks()}
    wrong, correct = by_id.pop("steps-0-2"), by_id.popitem()[1]
    assert (wrong.answers, wrong.details["judge"], wrong.details["first_wrong"]) == (("2",), [2], 2)
    assert (correct.answers, correct.details["judge"]) == (("none",), [2])
    assert correct.id == "steps-1-2" and correct.details["first_wrong"] is None


def test_given_refuses_tasks_of_other_envs(tmp_path: Path) -> None:
    env = Steps(save(tmp_path / "rows.jsonl", [BENCH[0]]))
    assert given(env.tasks()[0]) == (["First.", "Then.", "So it is."], [0, 1, 2])
    for details in ({}, {"steps": ["a"], "judge": [1]}, {"steps": "a", "judge": [0]}, {"steps": [1], "judge": [0]}):
        with pytest.raises(ConfigError, match="steps of a solution to judge, found 'other-1'; play on --env steps"):
            given(Task(id="other-1", question="?", answers=("1",), details=details))


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
RECORDS = st.lists(
    st.builds(
        Judged,
        id=TEXT,
        question=TEXT.filter(str.strip),
        steps=st.lists(TEXT, min_size=1, max_size=4).map(tuple),
        first_wrong=st.just(0) | st.none(),
        source=TEXT,
        final_answer_correct=st.none() | st.booleans(),
    ),
    max_size=5,
    unique_by=lambda record: record.id,
)


@draw(records=RECORDS)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, records: list[Judged]) -> None:
    path = tmp_path_factory.mktemp("written") / "set.jsonl"
    write_processbench(records, path)
    assert list(read_judged("steps", path)) == records


@pytest.mark.parametrize("ask", ["solution", "step"])
def test_settings_from_the_command(tmp_path: Path, ask: Literal["solution", "step"]) -> None:
    path = save(tmp_path / "rows.jsonl", BENCH)
    found = make_env("steps", path=str(path), ask=ask, seed="3", validation="0.5").tasks()
    assert [t.id for t in found] == [t.id for t in Steps(path, ask=ask, seed=3, validation=0.5).tasks()]
    with pytest.raises(ConfigError, match="env steps: ask cannot be 'steps'"):
        make_env("steps", path=path, ask="steps")
