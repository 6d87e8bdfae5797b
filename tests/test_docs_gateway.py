"""What docs/gateway.md shows works as written."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import Run
from experiments.command import main

DOC = (Path(__file__).parents[1] / "docs" / "gateway.md").read_text(encoding="utf-8")


@pytest.mark.model
@pytest.mark.slow
def test_the_function_plays(workplace: Path) -> None:
    (code,) = re.findall(r"```python\n# mine.py\n(.*?)```", DOC, re.DOTALL)
    commands = re.findall(r"^palaestra (run .*|show mine .*)$", DOC, re.MULTILINE)
    assert len(commands) == 2
    (workplace / "mine.py").write_text(code, encoding="utf-8")
    assert main([*shlex.split(commands[0]), "--backend", "local"]) == 0
    assert main(shlex.split(commands[1])) == 0
    summary = Run.open("mine").summary()
    assert (summary.episodes, summary.calls, summary.unparsed) == (20, 120, 0)
    assert summary.accuracy and summary.accuracy > 0.5
