"""An export appears whole or not at all, replaces nothing unasked, and leaves its place never."""

from pathlib import Path

import pytest

from envs import ConfigError
from experiments.export.output import whole_file, whole_folder

FILES = {"a.parquet", "b.parquet"}


class StoppedError(Exception):
    """The writer stopped midway."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.html", force=False) as written:
        written.write_text("half")
        assert "a.html" not in names(tmp_path)
        written.write_text("whole")
    assert names(tmp_path) == ["a.html"] and (tmp_path / "a.html").read_text() == "whole"


def test_a_file_that_is_not_finished_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("old")
    with pytest.raises(StoppedError), whole_file(tmp_path / "a.html", force=True) as written:
        written.write_text("half")
        raise StoppedError
    assert names(tmp_path) == ["a.html"] and (tmp_path / "a.html").read_text() == "old"


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("old")
    with pytest.raises(ConfigError, match="is there already; give --force"), whole_file(tmp_path / "a.html", False):
        pass
    with pytest.raises(ConfigError, match="--force"), whole_file(tmp_path / "b.html", False) as written:
        written.write_text("new")
        (tmp_path / "b.html").write_text("came meanwhile")
    assert (tmp_path / "b.html").read_text() == "came meanwhile"
    with whole_file(tmp_path / "a.html", True) as written:
        written.write_text("new")
    assert names(tmp_path) == ["a.html", "b.html"] and (tmp_path / "a.html").read_text() == "new"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "a.html").symlink_to(tmp_path / "elsewhere")
    with whole_file(tmp_path / "a.html", True) as written:
        written.write_text("new")
    assert (tmp_path / "elsewhere").read_text() == "kept" and not (tmp_path / "a.html").is_symlink()


@pytest.mark.parametrize(("path", "problem"), [("no/a.html", "no folder"), (".", "folder"), ("..", "folder")])
def test_a_place_that_cannot_be_is_refused(
    tmp_path: Path, path: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=problem), whole_file(Path(path), True):
        pass


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with whole_folder(tmp_path / "out", content == "second", FILES) as written:
            (written / "a.parquet").write_text(content)
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "a.parquet").read_text() == "second"
    with pytest.raises(StoppedError), whole_folder(tmp_path / "out", True, FILES) as written:
        (written / "a.parquet").write_text("third")
        raise StoppedError
    assert names(tmp_path) == ["out"] and (tmp_path / "out" / "a.parquet").read_text() == "second"


def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    problem = r"'thesis\.tex', which is of no export"
    with pytest.raises(ConfigError, match=problem), whole_folder(tmp_path, True, FILES):
        pass
    assert names(tmp_path) == ["thesis.tex"]
