"""Solutions whose first wrong step is known, in the forms in which such sets are published.

ProcessBench (arXiv:2412.06559), PRM800K (arXiv:2305.20050) and DeltaBench (arXiv:2502.19361) are read as they are
released, from files that lie on disk. `envs.steps` makes tasks of them; sets of one's own are written in ProcessBench's
form.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from envs.errors import ConfigError, clip
from envs.rows import is_whole, read_rows

Form = Literal["auto", "processbench", "prm800k", "deltabench"]


class Judged(BaseModel):
    """A solution, step by step."""

    model_config = ConfigDict(frozen=True)

    id: str
    question: str
    steps: tuple[str, ...]
    first_wrong: int | None
    """Index of the first wrong step, from 0; None when no step is wrong."""
    source: str = ""
    """Who wrote the solution, or which set it is from, as far as the file says."""
    final_answer_correct: bool | None = None
    """Not the same as having no wrong step. None when the file does not say."""


def read_judged(name: str, path: Path, form: Form = "auto") -> Iterator[Judged]:
    """The solutions of a file, in its order.

    Args:
        name: of the env, for messages.
        path: a .jsonl, .json or .parquet file.
        form: of its rows; auto goes by the fields of the first.

    Raises:
        ConfigError: the file cannot be read, its form is not known, or a row is malformed (named with its line).
    """
    seen: set[str] = set()
    read = None if form == "auto" else _READERS[form]
    for number, (place, row) in enumerate(read_rows(name, path), 1):
        where = f"env {name}: {place}"
        if read is None:
            read = _READERS[_form_of(where, row)]
        record = read(where, {"id": number, **row})
        if record is None:
            continue
        if record.id in seen:
            raise ConfigError(f"{where}: the id {clip(record.id)} occurs twice")
        seen.add(record.id)
        yield record


def write_processbench(records: Iterable[Judged], path: Path) -> None:
    """Write JSON lines that `read_judged` reads again as the same records."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            known = record.final_answer_correct is not None
            row = {
                "id": record.id,
                "generator": record.source,
                "problem": record.question,
                "steps": record.steps,
                **({"final_answer_correct": record.final_answer_correct} if known else {}),
                "label": -1 if record.first_wrong is None else record.first_wrong,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _processbench(where: str, row: Mapping[str, Any]) -> Judged:
    """`label` is the index of the first wrong step, from 0; -1 when there is none."""
    steps, label = _list(where, row, "steps"), _field(where, row, "label")
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
        raise ConfigError(f"{where}: expected a label from -1 to {len(steps) - 1}, found {clip(label)}")
    wrong = None if label == -1 else label
    return _record(where, row, "problem", steps, wrong, "generator", "final_answer_correct")


def _prm800k(where: str, row: Mapping[str, Any]) -> Judged | None:
    """The path that the labeller went: the chosen completion of each step, or the one written by hand.

    The first one rated -1 is the first wrong step; 0 (right, but of no use) counts as correct, and so does what was
    written by hand. Where none was chosen, because labelling stopped there, the first completion rated -1 is the wrong
    step: what the solution had. A solution that was written before it was labelled is shown to its end, so that its
    last step is not always the wrong one. A path ends before a step that nobody rated; problems that were reported as
    broken and rows without a rated step are left out.
    """
    question, label = _object(where, row, "question"), _object(where, row, "label")
    if label.get("finish_reason") == "bad_problem":
        return None
    path: list[Any] = []
    wrong = None
    for step in _list(where, label, "steps"):
        text, rating = _followed(where, step)
        if rating is None:
            break
        path.append(text)
        if rating < 0:
            wrong = len(path) - 1
            break
    if not path:
        return None
    written = question.get("pre_generated_steps")
    if wrong is not None and isinstance(written, list) and written[: len(path)] == path:
        path = written
    generation = row.get("generation")
    source = "prm800k" if generation is None else f"prm800k, generation {generation}"
    fields = {"id": row["id"], "problem": question.get("problem"), "source": source}
    return _record(where, fields, "problem", path, wrong, "source")


def _followed(where: str, step: Any) -> tuple[Any, int | None]:
    """Text and rating of what the labeller went on from, or stopped at; no rating where nobody gave one."""
    completions = step.get("completions") if isinstance(step, dict) else None
    if not isinstance(completions, list) or not all(isinstance(c, dict) and "text" in c for c in completions):
        raise ConfigError(f"{where}: expected steps with completions of text and rating, found {clip(step)}")
    if any(c.get("rating") not in (-1, 0, 1, None) for c in completions):
        raise ConfigError(f"{where}: expected ratings -1, 0 or 1, found {clip([c.get('rating') for c in completions])}")
    chosen, by_hand = step.get("chosen_completion"), step.get("human_completion")
    if chosen is None and by_hand is not None:
        return by_hand.get("text") if isinstance(by_hand, dict) else by_hand, 1
    if chosen is None:
        bad = [c for c in completions if c.get("rating") == -1]
        return (bad[0]["text"], -1) if bad else ("", None)
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(completions):
        raise ConfigError(
            f"{where}: expected a chosen completion among {len(completions)}, from 0; found {clip(chosen)}"
        )
    return completions[chosen]["text"], completions[chosen].get("rating")


def _deltabench(where: str, row: Mapping[str, Any]) -> Judged:
    """A step is a section of the chain of thought; the first of the sections with an error, numbered from 1, is the
    first wrong one. A section that is merely of no use counts as correct. Sections are a list, or one text that numbers
    them (`section1: …`); the list of numbers may be JSON in a text, as tables have it."""
    if "sections" in row:
        sections = _list(where, row, "sections")
        steps = [s.get("content", s.get("section")) if isinstance(s, dict) else s for s in sections]
    else:
        steps = _numbered(str(_field(where, row, "sections_content")))
    numbers = _field(where, row, "reason_error_section_numbers", "error_section_numbers")
    if isinstance(numbers, str):
        with contextlib.suppress(ValueError):
            numbers = json.loads(numbers or "[]")
    if not isinstance(numbers, list) or not all(type(n) is int and 1 <= n <= len(steps) for n in numbers):
        raise ConfigError(f"{where}: expected numbers of wrong sections from 1 to {len(steps)}, found {clip(numbers)}")
    wrong = min(numbers) - 1 if numbers else None
    return _record(where, row, "question", steps, wrong, "origin", "final_correct")


def _numbered(text: str) -> list[str]:
    """The sections of a text that numbers them 1, 2, 3 … at the beginning of lines."""
    starts: list[tuple[int, int]] = []
    for found in re.finditer(r"^section[ \t]*(\d{1,6})[ \t]*:", text, re.MULTILINE | re.IGNORECASE):
        if int(found[1]) == len(starts) + 1:
            starts.append(found.span())
    ends = [start for start, _ in starts[1:]] + [len(text)]
    return [text[begin:end].strip() for (_, begin), end in zip(starts, ends, strict=False)]


_READERS: dict[str, Callable[[str, Mapping[str, Any]], Judged | None]] = {
    "processbench": _processbench,
    "prm800k": _prm800k,
    "deltabench": _deltabench,
}
_FIELDS = {
    "processbench": ({"problem", "steps", "label"},),
    "prm800k": ({"question", "label"},),
    "deltabench": ({"question", "sections"}, {"question", "sections_content"}),
}
"""By what fields auto knows a form: all of any set."""


def _form_of(where: str, row: Mapping[str, Any]) -> str:
    for form, sets in _FIELDS.items():
        if any(fields <= set(row) for fields in sets):
            return form
    raise ConfigError(
        f"{where}: expected the fields problem, steps and label (processbench), question and label (prm800k) or "
        f"question and sections (deltabench), found {clip(', '.join(map(str, row)) or 'nothing')}; "
        "name the form with --set env.form=…"
    )


def _record(
    where: str,
    row: Mapping[str, Any],
    question: str,
    steps: list[Any],
    wrong: int | None,
    source: str,
    final: str = "",
) -> Judged:
    """Check what all forms share: a question, steps that are texts, and an id."""
    asked = _field(where, row, question)
    if not isinstance(asked, str) or not asked.strip():
        raise ConfigError(f"{where}: expected a {question} as text, found {clip(asked)}")
    if not steps or not all(isinstance(step, str) for step in steps):
        raise ConfigError(f"{where}: expected a list of steps, each a text, found {clip(steps)}")
    right = row.get(final)
    if right not in (None, True, False):
        raise ConfigError(f"{where}: expected {final} true or false, found {clip(right)}")
    texts = [str(row["id"]), asked, *steps, str(row.get(source) or "")]
    if not is_whole(texts):
        raise ConfigError(f"{where}: half of a surrogate pair, which is no text; mend that character")
    return Judged(
        id=texts[0],
        question=asked,
        steps=tuple(steps),
        first_wrong=wrong,
        source=texts[-1],
        final_answer_correct=None if right is None else bool(right),
    )


def _field(where: str, row: Mapping[str, Any], *names: str) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise ConfigError(f"{where}: expected a field {' or '.join(names)}, found {clip(', '.join(map(str, row)))}")


def _list(where: str, row: Mapping[str, Any], name: str) -> list[Any]:
    value = _field(where, row, name)
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected {name} as a list, found {clip(value)}")
    return value


def _object(where: str, row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = _field(where, row, name)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected {name} as an object, found {clip(value)}")
    return value
