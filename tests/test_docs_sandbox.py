"""What docs/sandbox.md shows works as written."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from envs.sandbox import why_unavailable

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_its_example_prints_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if problem := why_unavailable("monty"):
        pytest.skip(problem)
    code, said = re.findall(r"```python\n(.*?)```\n```\n(.*?)```", DOC, re.DOTALL)[0]
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(tmp_path / "example.py"), run_name="__main__")
    assert capsys.readouterr().out == said


def test_its_benchmark_runs() -> None:
    (command,) = re.findall(r"^python (-m experiments\.benchmarks\S*)$", DOC, re.MULTILINE)
    asked = [sys.executable, *command.split(), "--parallel", "2", "--repeats", "1", "--seconds", "0.1", "--json"]
    shown = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=True)
    result = json.loads(shown.stdout)
    assert {*result["median"], *result["missing"]} == {"monty", "bubblewrap"}
    for figures in result["median"].values():
        assert set(figures) == {"start_ms", "per_s", "per_s_of_2"} and all(value > 0 for value in figures.values())
