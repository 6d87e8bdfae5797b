"""What README shows works as written."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from experiments import Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.usefixtures("ray_started")
def test_the_example_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code) == 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(code[0], encoding="utf-8")
    played: dict[str, Any] = runpy.run_path("mine.py", run_name="__main__")
    result = played["result"]
    assert isinstance(result, Run) and result.summary().episodes == 40 and result.summary().failed == 0
    assert {turn.move for episode in result.episodes() for turn in episode.turns} >= {"solve", "revise"}
    assert len(played["frame"]) == 40
    printed = capsys.readouterr().out
    assert "accuracy=" in printed and printed.count("What is") == 2


def test_what_it_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_commands_it_names_exist() -> None:
    from experiments.command import palaestra

    assert set(re.findall(r"^palaestra (\w+)", README, re.MULTILINE)) == set(palaestra.commands)
