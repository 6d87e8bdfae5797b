"""What docs/capacity.md shows works as written."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import capacity
from experiments.command import main

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")


@pytest.mark.model
@pytest.mark.slow
def test_its_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own,) = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
    (workplace / "own.toml").write_text(own, encoding="utf-8")
    commands = re.findall(r"^palaestra (.*)$", DOC, re.MULTILINE)
    assert [command.split()[0] for command in commands].count("plan") == 5 and len(commands) == 7
    shown = {}
    for command in commands:
        assert main(shlex.split(command)) == 0, command
        shown[command] = " ".join(capsys.readouterr().out.split())
    assert "$2.10 an hour on 2026-11-28" in next(shown[c] for c in commands if "own.toml" in c)
    assert "like those of run like-this" in next(shown[c] for c in commands if "--from" in c)


@pytest.mark.model
@pytest.mark.slow
def test_its_calibration_runs_and_can_be_planned_with(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = re.findall(r"^python -m experiments\.benchmarks\.capacity (.*--save.*)$", DOC, re.MULTILINE)
    arm = capacity.Arm
    few = tuple(arm("solo", level, 2, at_once) for level in (1, 3) for at_once in (1, 2, 3))
    monkeypatch.setattr(capacity, "CALIBRATED", few)
    monkeypatch.setattr(capacity, "PREDICTED", (arm("vote", 1, 2, 2),))
    monkeypatch.setattr(capacity, "KNOWN", 2)
    capacity.main(shlex.split(command.replace("--repeats 3", "--repeats 1")), standalone_mode=False)
    assert "vote of level 1, 2 tasks, 2 at a time" in capsys.readouterr().out
    planned = "plan vote --env arithmetic --tasks 3 --calibrate 0 --prompt 30 --reply 20 --model embedded --json"
    assert main([*planned.split(), "--hardware", "own.toml"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["estimates"]
    assert found["gpu"] == "here" and found["measured"] and found["hours"] > 0


def test_its_benchmark_of_published_figures_runs() -> None:
    (command,) = re.findall(r"^python (-m experiments\.benchmarks\S* --published)$", DOC, re.MULTILINE)
    printed = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, cwd=ROOT, check=True)
    median, largest = re.findall(r"(\d+)%", printed.stdout.splitlines()[-1])
    assert f"{median} % off in the median, {largest} at most" in DOC
