"""Question-answer files as an env: JSONL, JSON or Parquet by path, with presets for well-known sets.

Files are read where they lie; nothing is fetched. Answers are compared as text, then as plain numbers, then by
math-verify in a process that can be killed; a comparison that hangs or crashes gives `unscorable`.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from envs.errors import ConfigError, clip
from envs.grading import (
    Grader,
    GraderError,
    equivalent,
    group_by_text,
    group_equivalent,
    import_math_verify,
    same_number,
    same_text,
)
from envs.rows import is_whole, read_rows
from envs.types import Split, Task, Verdict, final_answer

Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Format:
    """Where a file keeps its question and its answer; the first field that a row has is taken."""

    question: tuple[str, ...] = ("question", "prompt", "problem")
    answer: tuple[str, ...] = ("answer",)
    marked: bool = False
    """The answer field is a worked solution; the final answer is marked in it (`#### 18`, `A: 18`, boxed)."""
    source: str = ""
    """Where the file is from, for the message when no path is given."""


PRESETS = {
    "gsm8k": Format(marked=True, source="openai/grade-school-math, test.jsonl: question, answer ending in #### N"),
    "math500": Format(source="MATH-500: prompt or problem, answer in LaTeX"),
    "aime": Format(source="AIME: prompt or problem, answer"),
    "amc": Format(source="AMC: prompt or problem, answer"),
    "ciar": Format(source="CIAR of Liang et al., arXiv:2305.19118: question, answer a list of accepted forms"),
}


class Dataset:
    """The env over one file. Task ids are `NAME-ID` with the row's `id` field, or its place in the file."""

    def __init__(self, name: str, path: Path, layout: Format, seed: int | None = None, timeout_s: float = 10.0):
        """
        Args:
            name: of the env.
            path: a .jsonl, .json or .parquet file.
            layout: its fields.
            seed: shuffles the rows; None keeps the file's order.
            timeout_s: for one comparison by math-verify.

        Raises:
            ConfigError: the file cannot be read, a row is malformed (named with its line), or there are no rows.
        """
        self.name, self.path = name, path
        self._tasks = list(_read_tasks(name, path, layout))
        if not self._tasks:
            raise ConfigError(f"env {name}: {path} holds no rows")
        if seed is not None:
            random.Random(seed).shuffle(self._tasks)
        self._grader = Grader(timeout_s=timeout_s, prepare=import_math_verify)

    def tasks(self, n: int | None = None, split: Split = "test") -> Sequence[Task]:
        if split != "test":
            raise ConfigError(f"env {self.name} has one file and thus one split, test; asked for {split}")
        if n is not None and n > len(self._tasks):
            raise ConfigError(f"env {self.name}: asked for {n} tasks, {self.path} has {len(self._tasks)}")
        return self._tasks[:n]

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        if answer is None or not answer.strip():
            return Verdict.unparsed()
        if any(same_text(reference, answer) for reference in task.answers):
            return Verdict.correct()
        quick = [same_number(reference, answer) for reference in task.answers]
        wrong = f"expected {' or '.join(task.answers)}, found {answer[:100]}"
        if any(quick):
            return Verdict.correct()
        for reference, known in zip(task.answers, quick, strict=True):
            try:
                if known is None and await self._grader.call(equivalent, reference, answer):
                    return Verdict.correct("equivalent by math-verify")
            except GraderError as error:
                return Verdict.unscorable(f"comparing {answer[:100]!r} with {reference!r}: {error}")
            except Exception as error:  # noqa: BLE001 - a defect of the grader is no verdict on the answer
                return Verdict.unscorable(f"comparing {answer[:100]!r}: {type(error).__name__}: {error}")
        return Verdict.incorrect(wrong)

    async def group(self, answers: Sequence[str]) -> list[int]:
        by_text = group_by_text(answers)
        first = sorted(set(by_text))
        if len(first) < 2:
            return by_text
        try:
            merged = await self._grader.call(group_equivalent, [answers[i] for i in first])
        except Exception:  # noqa: BLE001 - a vote that math-verify cannot help with is counted by text
            return by_text
        target = {i: first[m] for i, m in zip(first, merged, strict=True)}
        return [target[g] for g in by_text]


def dataset(
    path: Path | None = None,
    question: str | None = None,
    answer: str | None = None,
    marked: bool = False,
    seed: int | None = None,
    timeout_s: Seconds = 10.0,
) -> Dataset:
    """Questions and answers from a file of your own.

    Args:
        path: .jsonl, .json (a list of objects) or .parquet.
        question: name of the question's field; by default question, prompt or problem.
        answer: name of the answer's field: a text, a number, or a list of accepted answers.
        marked: the answer field is a worked solution that marks its final answer.
        seed: shuffles the rows; none keeps the file's order.
        timeout_s: for one comparison by math-verify.
    """
    layout = Format(marked=marked)
    layout = replace(layout, question=(question,)) if question else layout
    layout = replace(layout, answer=(answer,)) if answer else layout
    return _open("dataset", path, layout, seed, timeout_s)


def preset(name: str) -> Any:
    """A function that opens the preset's file: (path, seed, timeout_s) -> Dataset."""

    def open_preset(path: Path | None = None, seed: int | None = None, timeout_s: Seconds = 10.0) -> Dataset:
        return _open(name, path, PRESETS[name], seed, timeout_s)

    open_preset.__doc__ = f"{PRESETS[name].source}"
    return open_preset


def _open(name: str, path: Path | None, layout: Format, seed: int | None, timeout_s: float) -> Dataset:
    if path is None:
        source = f" ({layout.source})" if layout.source else ""
        raise ConfigError(f"env {name} needs a file{source}: --set env.path=FILE")
    return Dataset(name, path, layout, seed, timeout_s)


def _read_tasks(name: str, path: Path, layout: Format) -> Iterator[Task]:
    seen: set[str] = set()
    for place, row in read_rows(name, path):
        question = _field(name, place, row, layout.question)
        answers = _field(name, place, row, layout.answer)
        if not isinstance(question, str) or not question.strip():
            raise ConfigError(f"env {name}: {place}: expected a question as text, found {clip(question)}")
        if not is_whole([question, answers]):
            raise ConfigError(f"env {name}: {place}: half of a surrogate pair, which is no text; mend that character")
        texts = [_text(value) for value in (answers if isinstance(answers, list) else [answers])]
        accepted = [final_answer(text) if layout.marked and text else text for text in texts]
        if not accepted or not all(accepted):
            wanted = "a marked final answer (#### N)" if layout.marked else "an answer as text, number or list of them"
            raise ConfigError(f"env {name}: {place}: expected {wanted}, found {clip(answers)}")
        id = f"{name}-{row.get('id', len(seen))}"
        if id in seen:
            raise ConfigError(f"env {name}: {place}: the id {clip(id)} occurs twice")
        seen.add(id)
        yield Task(id=id, question=question, answers=tuple(a for a in accepted if a), details={"place": place})


def _field(name: str, place: str, row: dict[str, Any], names: Sequence[str]) -> Any:
    for field in names:
        if field in row:
            return row[field]
    raise ConfigError(
        f"env {name}: {place}: expected a field {' or '.join(names)}, found {', '.join(map(str, row)) or 'nothing'}; "
        "name the file's own with --set env.question=… and env.answer=…"
    )


def _text(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
