"""What docs/topologies.md shows works as written."""

import re
import shlex
from pathlib import Path

import pytest

from experiments.command import main
from graphs import TOPOLOGIES, build

DOC = (Path(__file__).parents[1] / "docs" / "topologies.md").read_text(encoding="utf-8")


def test_its_table_has_every_topology_with_the_calls_it_takes() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (≤ )?(\d+|depends on the steps) \|", DOC, re.MULTILINE)
    said = {name: int(calls) if calls.isdigit() else None for name, _, calls in rows}
    assert said == {name: build(function).calls for name, function in TOPOLOGIES.items()}


def test_a_topology_of_ones_own_takes_less_than_40_lines() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    assert len(code.splitlines()) < 40


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_its_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    (workplace / "mine.py").write_text(code, encoding="utf-8")
    commands = re.findall(r"^palaestra (.*)$", DOC, re.MULTILINE)
    commands += re.findall(r"As `mine.py`: `palaestra ([^`]*)`", DOC)
    assert len(commands) == 5
    for command in commands:
        few = re.sub(r"--tasks \d+", "--tasks 6", command)
        assert main(shlex.split(few)) == 0, command
        capsys.readouterr()
