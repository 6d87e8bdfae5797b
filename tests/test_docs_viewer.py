"""What docs/viewer.md shows is there: commands that can be given, pictures, and the keys that the pages know."""

import re
import shlex
from pathlib import Path

from experiments.command import palaestra

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "viewer.md").read_text(encoding="utf-8")


def test_its_commands_can_be_given() -> None:
    commands = re.findall(r"palaestra ((?:run|view|fork|export) [^\n`]+)", DOC)
    assert len(commands) == 4
    for verb, *arguments in map(shlex.split, commands):
        palaestra.commands[verb].make_context(verb, arguments)


def test_its_pictures_are_there() -> None:
    for name in re.findall(r"\((viewer-[a-z]+\.png)\)|src=\"(viewer-[a-z]+\.png)\"", DOC):
        assert (ROOT / "docs" / "".join(name)).read_bytes().startswith(b"\x89PNG")


def test_its_keys_are_those_of_the_pages() -> None:
    page = (ROOT / "experiments" / "viewer" / "web" / "src" / "parts" / "Help.tsx").read_text(encoding="utf-8")
    told = set(re.findall(r"`([a-z])`", re.search(r"\| keys.*?\n\n", DOC, re.DOTALL)[0]))  # pyright: ignore[reportOptionalSubscript]
    known = {key for keys in re.findall(r"^  \['([^']+)'", page, re.MULTILINE) for key in keys.split() if len(key) == 1}
    assert told == {key for key in known if key.isalpha()}
