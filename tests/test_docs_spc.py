"""What docs/spc.md shows works as written, but for less of it."""

import re
import shlex
from pathlib import Path

import pytest

from experiments.command import main
from experiments.step_sets import main as make_steps
from experiments.training.recipes import RECIPES
from experiments.training.setup import make_training_plan
from experiments.training.training import Training

DOC = (Path(__file__).parents[1] / "docs" / "spc.md").read_text(encoding="utf-8")
FEW = (
    "--set first.tasks=8 --set first.epochs=1 --set tasks=8 --set epochs=1 --set sneak=rewrite --set test_tasks=4"
    " --set validation_tasks=4 --set match_tasks=3 --set iterations=1 --backend local"
)


def test_the_settings_that_it_names_are_there() -> None:
    rows = re.findall(r"^\| `([^`]*=[^`]*)` \|", DOC, re.MULTILINE)
    assert len(rows) >= 7
    for row in rows:
        settings = dict(pair.split("=", 1) for pair in row.split() if not pair.startswith("start="))
        make_training_plan("spc", None, None, None, 0, settings, "local", None)


def test_what_it_says_of_the_game_is_what_is_played() -> None:
    plan = make_training_plan("spc", None, None, None, 0, {}, "local", None)
    assert list(RECIPES["spc"].stages) == ["first"] and plan.schedule.restart and plan.schedule.buffer
    assert plan.schedule.iterations == 2 and plan.exam.topology.name == "judge_steps"
    assert {learner.name for learner in plan.learners} == {"critic", "sneaky"}


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_its_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^(palaestra|python -m experiments.step_sets) (.*)$", DOC, re.MULTILINE)
    assert len(commands) >= 8
    for program, line in commands:
        if program != "palaestra":
            assert make_steps(shlex.split(line.replace("--most 40", "--most 8")), standalone_mode=False) is None
            continue
        few = re.sub(r"--tasks \d+", "--tasks 8", f"{line} {FEW}" if line.startswith("train spc") else line)
        assert main(shlex.split(few)) == 0, line
        printed = capsys.readouterr().out
        if line == "show duel":
            assert "attempts that pass" in printed and "sneaky-0001" in printed
    assert Training.open("duel").finished
