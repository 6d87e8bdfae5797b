"""Question-answer files: formats, presets, errors with their place, and grading against recorded labels."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from envs import ConfigError, Dataset, GraderError, check_env, final_answer, make_env

ROWS = [{"q": "1 + 1?", "a": "2"}, {"q": "half?", "a": ["1/2", "0.5"]}, {"q": "pi?", "a": 3.0}]


def save(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_files_of_ones_own(tmp_path: Path, name: str) -> None:
    env = make_env("dataset", path=save(tmp_path / name, ROWS), question="q", answer="a")
    assert [(t.id, t.question, t.answers) for t in env.tasks()] == [
        ("dataset-0", "1 + 1?", ("2",)),
        ("dataset-1", "half?", ("1/2", "0.5")),
        ("dataset-2", "pi?", ("3",)),
    ]
    assert env.tasks()[2].details["place"] == f"{name}, {'line 5' if name.endswith('l') else 'row 3'}"
    check_env(env, n=2)


def test_line_separators_and_a_byte_order_mark_are_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '\ufeff{"question": "a\u2028b\x85c", "answer": 1}\n{"question": "d", "answer": 2}\n', encoding="utf-8"
    )
    assert [t.question for t in make_env("dataset", path=path).tasks()] == ["a\u2028b\x85c", "d"]


def test_parquet_with_ids_and_shuffling(tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "prompt": f"{i} + 0?", "answer": i} for i in range(20)]
    path = save(tmp_path / "rows.parquet", rows)
    plain = [t.id for t in make_env("dataset", path=path).tasks()]
    assert plain == [f"dataset-r{i}" for i in range(20)]
    shuffled = [t.id for t in make_env("dataset", path=path, seed=1).tasks()]
    assert shuffled != plain and sorted(shuffled) == sorted(plain)
    assert shuffled == [t.id for t in make_env("dataset", path=str(path), seed="1").tasks()]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"question": "q", "answer": "1"}\n{nonsense', r"x\.jsonl, line 2 is not JSON"),
        ("x.jsonl", '{"question": "q", "answer": "1"}\n\n[1]', r"x\.jsonl, line 3: expected an object, found \[1\]"),
        ("x.jsonl", '{"question": "q"}', r"line 1: expected a field answer, found question; name the file's own"),
        ("x.jsonl", '{"question": 3, "answer": "1"}', r"line 1: expected a question as text, found 3"),
        ("x.jsonl", '{"question": "q", "answer": null}', r"line 1: expected an answer as text, number or list of them"),
        ("x.jsonl", '{"question": "q", "answer": []}', r"line 1: expected an answer as text, number or list of them"),
        ("x.jsonl", '{"question": "q", "answer": true}', r"line 1: expected an answer as text"),
        ("x.jsonl", '{"id": 1, "question": "q", "answer": 1}\n' * 2, "line 2: the id 'dataset-1' occurs twice"),
        (
            "x.jsonl",
            '{"id": 1, "question": "q", "answer": 1}\n{"question": "q", "answer": 1}',
            "'dataset-1' occurs twice",
        ),
        ("x.jsonl", '{"question": "a \\ud83d", "answer": 1}', "line 1: half of a surrogate pair"),
        ("x.jsonl", "", "holds no rows"),
        ("x.json", "[", r"x\.json is not JSON"),
        ("x.json", '{"question": "q"}', "expected a list of objects"),
        ("x.csv", "question,answer", r"expected a \.jsonl, \.json or \.parquet file"),
        ("x.parquet", "not parquet", r"cannot read .*x\.parquet"),
        ("x.jsonl", b"\xff\xfe", r"cannot read .*x\.jsonl"),
    ],
)
def test_a_bad_file_is_named_with_its_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=message) as error:
        make_env("dataset", path=path)
    assert "\n" not in str(error.value)


def test_settings_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env gsm8k needs a file \(openai/grade-school-math"):
        make_env("gsm8k")
    with pytest.raises(ConfigError, match="cannot read /nowhere"):
        make_env("gsm8k", path="/nowhere.jsonl")
    with pytest.raises(ConfigError, match="unknown setting of env gsm8k: 'pth'; did you mean 'path'"):
        make_env("gsm8k", pth="x")
    env = make_env("dataset", path=save(tmp_path / "r.json", ROWS), question="q", answer="a")
    with pytest.raises(ConfigError, match=r"asked for 4 tasks, .* has 3"):
        env.tasks(4)
    with pytest.raises(ConfigError, match="one file and thus one split, test; asked for train"):
        env.tasks(1, "train")


PRESETS = {
    "gsm8k": ("gsm8k_test_900.jsonl", 900),
    "math500": ("math500.json", 500),
    "aime": ("aime24.json", 30),
    "amc": ("amc.json", 83),
    "ciar": ("ciar.json", 50),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(data: Path, name: str) -> None:
    file, count = PRESETS[name]
    env = make_env(name, path=data / file)
    tasks = env.tasks()
    assert len(tasks) == count

    async def own_answers() -> Counter[str]:
        return Counter([(await env.judge(task, answer)).status for task in tasks for answer in task.answers])

    assert set(asyncio.run(own_answers())) == {"correct"}
    check_env(env, n=4)


@pytest.mark.parametrize(
    ("reference", "answer", "status"),
    [
        ("\\frac{14}{3}", "14/3", "correct"),
        ("90^\\circ", "90", "correct"),
        ("\\text{Evelyn}", "evelyn", "correct"),
        ("025", "25", "correct"),
        ("x^5 - x", "x(x^4 - 1)", "correct"),
        ("2220", "2,220.00", "correct"),
        ("1,-2", "-2, 1", "correct"),
        ("18", "18 or 19", "incorrect"),
        ("18", "", "unparsed"),
    ],
)
def test_equivalence(tmp_path: Path, reference: str, answer: str, status: str) -> None:
    env = make_env("dataset", path=save(tmp_path / "one.json", [{"question": "q", "answer": reference}]))
    assert asyncio.run(env.judge(env.tasks()[0], answer)).status == status


def test_a_grader_that_hangs_or_dies_gives_unscorable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_env("dataset", path=save(tmp_path / "one.json", [{"question": "q", "answer": "x^2"}]))
    assert isinstance(env, Dataset)

    def fails_with(error: Exception) -> Any:
        async def call(*_: Any) -> bool:
            raise error

        return call

    for error in (GraderError("no result within 10 s"), GraderError("the worker process died"), RecursionError("deep")):
        monkeypatch.setattr(env._grader, "call", fails_with(error))
        verdict = asyncio.run(env.judge(env.tasks()[0], "y^2"))
        assert (verdict.status, verdict.score) == ("unscorable", None) and str(error) in verdict.reason
        assert asyncio.run(env.group(["y", "z", "y"])) == [0, 1, 0], "a vote is then counted by text"


def test_answers_that_take_a_grader_long_end_in_time(tmp_path: Path) -> None:
    env = make_env("dataset", path=save(tmp_path / "one.json", [{"question": "q", "answer": "x^2"}]), timeout_s=5)
    nasty = [
        *("9^{9^{9^{9^{9}}}}", "(" * 3000, "1" * 100_000, "factorial(10**9)!!!"),
        *("\\frac{" * 60 + "1" + "}{2}" * 60, "x^{" * 200 + "2" + "}" * 200),
        *("\\sum_{n=1}^{10^{9}} \\frac{\\sin(n)}{n^2}", "\\int_0^{\\infty} e^{-x^{x^x}} dx"),
    ]
    for answer in nasty:
        assert asyncio.run(env.judge(env.tasks()[0], answer)).status in ("incorrect", "unscorable")


def test_the_recorded_gsm8k_labels_are_reproduced(data: Path) -> None:
    """Four recorded models' solutions to 900 problems: our verdict against the label that came with each.

    All 3,600 agree, so there is no difference to explain; the bar is 99.5 %.
    """
    env = make_env("gsm8k", path=data / "gsm8k_test_900.jsonl")
    lines = (data / "gsm8k_model_solutions_900.jsonl").read_text(encoding="utf-8").splitlines()
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")

    async def differences() -> list[tuple[str, str]]:
        found = []
        for task, line in zip(env.tasks(), lines, strict=True):
            recorded = json.loads(line)
            assert recorded["question"] == task.question
            for model in models:
                verdict = await env.judge(task, final_answer(recorded[model]["solution"]))
                assert verdict.status != "unscorable"
                if (verdict.status == "correct") != recorded[model]["is_correct"]:
                    found.append((task.id, model))
        return found

    assert asyncio.run(differences()) == []
