"""One HTML file that opens from disk without a server: the viewer's pages with their data in them.

The file is `standalone.html` of the viewer, in which everything is one file, with an `Exported` record as JSON.
Episodes come first, then what their pages would ask for (whole texts, tokens, prompts), as long as there is room; the
page says what was left out.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from pydantic import BaseModel

from envs.errors import ConfigError
from experiments.export.output import whole_file
from experiments.export.selection import Selection
from experiments.viewer.episode_page import read_episode, read_prompt, read_question, read_reply, read_tokens
from experiments.viewer.episode_records import EpisodePage, Exported
from experiments.viewer.keys import NotThereError
from experiments.viewer.library import Library
from experiments.viewer.records import Clipped, RunsPage
from experiments.viewer.run_page import read_grid, read_run
from experiments.viewer.runs_page import read_row, read_runs
from experiments.viewer.server import STATIC
from experiments.viewer.training_page import read_training

MAX_MB = 25.0
TEMPLATE = STATIC / "standalone.html"
_PLACE = '<script type="application/json" id="palaestra-data">'
_GRID = 20_000
Answer = tuple[str, Callable[[], BaseModel]]
"""Path under /api, and what makes the answer to it."""


def export_html(
    selection: Selection,
    path: Path,
    root: Path,
    summary: bool = True,
    max_mb: float = MAX_MB,
    force: bool = False,
) -> None:
    """Write the run's page and the selected episodes.

    Args:
        selection: its episodes; told what was left out.
        path: of the file.
        root: the folder of runs; a run that lies elsewhere is shown without what is beside it.
        summary: include the run's page; without it the file opens with its first episode.
        max_mb: most megabytes of data.
        force: replace a file that is there.

    Raises:
        ConfigError: the file is there already and `force` is not set, or the viewer's pages are not built.
    """
    before, after = _template()
    run = selection.run.path.resolve()
    library = Library(root.resolve() if run.is_relative_to(root.resolve()) else run.parent)
    try:
        with whole_file(path, force) as written, written.open("wb") as file:
            file.write(before)
            _Data(file, library, selection, summary, max_mb).write()
            file.write(after)
    finally:
        library.close()


def export_group(folder: Path, path: Path, root: Path, max_mb: float = MAX_MB, force: bool = False) -> list[str]:
    """Write the page of a training or a sweep: its curves, and its runs in figures, without their episodes.

    Args:
        folder: of the training or sweep, below `root`.
        path: of the file.
        root: the folder of runs.
        max_mb: most megabytes of data.
        force: replace a file that is there.

    Returns:
        What was left out, in words.

    Raises:
        ConfigError: as `export_html`; or the page alone would be beyond `max_mb`.
    """
    before, after = _template()
    library = Library(root.resolve())
    try:
        key = library.key(folder.resolve())
        row, runs = read_row(library, folder.resolve()), read_runs(library, key)
        answers: dict[str, Any] = {f"/api/runs?under={_part(key)}": runs.model_dump(mode="json")}
        if row.kind == "training":
            answers[_path(key, "training")] = read_training(library, key).model_dump(mode="json")
        left_out = [f"the episodes of its {len(runs.runs)} runs are left out: export one of these runs to see them"]
        data = escaped(
            Exported(
                made=_made(),
                title=folder.name,
                runs=RunsPage(under=None, runs=[row], problems=[]),
                run=None,
                episodes=[],
                answers=answers,
                left_out=left_out,
            )
        )
    finally:
        library.close()
    if len(data) > max_mb * 1e6:
        raise ConfigError(
            f"{folder.name}: its page is {len(data) / 1e6:.1f} MB, expected at most {max_mb:g}; set --max-mb"
        )
    with whole_file(path, force) as written:
        written.write_bytes(before + data + after)
    return left_out


def _made() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _template() -> tuple[bytes, bytes]:
    """What comes before and behind the data."""
    try:
        before, place, after = TEMPLATE.read_bytes().partition(_PLACE.encode())
    except OSError:
        raise ConfigError(f"the viewer's pages are not built: there is no {TEMPLATE}") from None
    if not place or not after.lstrip().startswith(b"</script>"):
        raise ConfigError(f"{TEMPLATE} has no place for data: it is not of this version; build it again")
    return before + place, after


def escaped(record: BaseModel | Any) -> bytes:
    """JSON that is safe within a script element: no character of markup, and no line separators of JavaScript."""
    text = record.model_dump_json() if isinstance(record, BaseModel) else json.dumps(record, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


class _Data:
    """An `Exported` record, written piece by piece within a bound."""

    def __init__(self, file: BinaryIO, library: Library, selection: Selection, summary: bool, max_mb: float):
        self._file, self._library, self._selection, self._summary = file, library, selection, summary
        self._key = library.key(selection.run.path.resolve())
        self._room = max_mb * 1e6
        self._bound = f"the file would hold more than {max_mb:g} MB"

    def write(self) -> None:
        selection, library, key = self._selection, self._library, self._key
        some = f", {len(selection.positions)} of {selection.of} episodes" * (len(selection.positions) < selection.of)
        head = Exported(
            made=_made(), title=f"{selection.run.name}{some}", runs=None, run=None, episodes=[], answers={}, left_out=[]
        )
        self._put(escaped(head.model_dump(include={"format", "made", "title", "runs"}))[:-1])
        run = None
        if self._summary:
            library.looked(library.find(key)[0])
            run = read_run(library, key)
        self._put(b',"run":' + escaped(run))
        self._put(b',"episodes":[')
        shown = list(self._episodes())
        self._put(b'],"answers":{"":null')
        if self._summary:
            self._put(_entry(_path(key, "grid"), read_grid(library, key, 0, _GRID)))
        for name, answers in (("long texts", self._texts), ("tokens", self._tokens), ("prompts", self._prompts)):
            self._answers(name, [answer for page in shown for answer in answers(page)])
        self._put(b'},"left_out":' + escaped(selection.left_out()) + b"}")

    def _episodes(self) -> Iterator[EpisodePage]:
        """Write the pages that there is room for, and yield them without their turns' texts."""
        selection = self._selection
        first = True
        for position in selection.positions:
            try:
                page = read_episode(self._library, self._key, position)
            except (sqlite3.DatabaseError, NotThereError) as error:
                selection.unread[position] = str(error)
                continue
            data = escaped(page)
            if len(data) > self._room:
                selection.end_before(position, self._bound)
                return
            self._put(data if first else b"," + data)
            first = False
            selection.exported += 1
            yield page

    def _answers(self, name: str, answers: Sequence[Answer]) -> None:
        """Write the answers that there is room for."""
        for done, (path, make) in enumerate(answers):
            entry = _entry(path, make())
            if len(entry) > self._room:
                self._selection.beyond.append(f"{name} of {len(answers) - done} turns are left out: {self._bound}")
                return
            self._put(entry)

    def _texts(self, page: EpisodePage) -> Iterator[Answer]:
        if _is_clipped(page.task.question):
            yield self._of(page, "question"), partial(read_question, self._library, self._key, page.position)
        for turn in page.turns:
            if _is_clipped(turn.reply):
                yield self._asked(page, turn.id, "reply", read_reply)

    def _tokens(self, page: EpisodePage) -> Iterator[Answer]:
        return (self._asked(page, turn.id, "tokens", read_tokens) for turn in page.turns if turn.tokens)

    def _prompts(self, page: EpisodePage) -> Iterator[Answer]:
        return (self._asked(page, turn.id, "prompt", partial(read_prompt, whole=True)) for turn in page.turns)

    def _asked(self, page: EpisodePage, turn: str, what: str, read: Callable[..., BaseModel]) -> Answer:
        make = partial(read, self._library, self._key, page.position, turn)
        return self._of(page, "turns", turn, what), make

    def _of(self, page: EpisodePage, *rest: str) -> str:
        return _path(self._key, "episodes", str(page.position), *rest)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._room -= len(data)


def _path(run: str, *parts: str) -> str:
    """As JavaScript's encodeURIComponent writes it."""
    return "/".join(["/api/runs", *map(_part, (run, *parts))])


def _part(name: str) -> str:
    return quote(name, safe="!~*'()")


def _entry(path: str, answer: BaseModel) -> bytes:
    return b"," + escaped(path) + b":" + escaped(answer)


def _is_clipped(text: Clipped) -> bool:
    return text.length > len(text.text)
