"""What docs/agent0.md shows works as written, but for less of it."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from envs.sandbox import why_unavailable
from experiments.command import main
from experiments.studies.agent0 import main as study
from experiments.training.agent0 import CoEvolution
from experiments.training.asked import Asked
from experiments.training.recipes import RECIPES
from experiments.training.setup import make_training_plan
from experiments.training.training import Training

pytestmark = pytest.mark.skipif(bool(why_unavailable("monty")), reason=why_unavailable("monty"))
DOC = (Path(__file__).parents[1] / "docs" / "agent0.md").read_text(encoding="utf-8")
FEW = (
    "--set iterations=1 --set env.levels=2 --set questions=4 --set answers=2 --set turns=4 --set band=0..1"
    " --set policy.rank=4 --set test_tasks=2 --set test_samples=1 --set greedy=false --set exam.env.level=2"
    " --set curriculum.iterations=1 --set curriculum.tasks=2 --set curriculum.samples=2 --set executor.iterations=1"
    " --set executor.tasks=2 --set executor.samples=2"
)


def test_the_settings_that_it_names_are_there() -> None:
    rows = re.findall(r"^\| `([^`]*=[^`]*)` \|", DOC, re.MULTILINE)
    assert len(rows) >= 10
    for row in rows:
        settings = dict(pair.split("=", 1) for pair in row.split())
        CoEvolution().check(Asked("agent0", None, None, None, 0, settings, "local", None))


def test_what_it_says_of_the_game_is_what_is_played() -> None:
    plan = make_training_plan("agent0", None, None, None, 0, {}, "local", None)
    assert (plan.plan.topology.settings or {})["answers"] == 10
    assert plan.exam.topology.name == "tool_use" and plan.schedule.test_split == "test"
    assert list(RECIPES["agent0"].stages) == ["curriculum", "executor", "student"]
    brief = plan.plan.env.tasks(1)[0].question
    assert brief.startswith("an arithmetic problem with 7 operations")


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_its_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^palaestra (.*)$", DOC, re.MULTILINE)
    assert len(commands) == 5
    for line in commands:
        few = (
            f"{line} {FEW}"
            if line.startswith("train")
            else f"{line} --set answers=2"
            if line.startswith("run")
            else line
        )
        assert main(shlex.split(few)) == 0, line
        printed = capsys.readouterr().out
        if line == "show zero":
            assert "true labels" in printed and "fixed solver" in printed
    assert Training.open("zero").finished
    shown = CliRunner().invoke(study, ["zero"])
    assert shown.exit_code == 0 and "true labels by agreement" in " ".join(shown.output.split())
