"""What docs/training.md shows works as written, but for less of it."""

import re
import shlex
from pathlib import Path

import pytest

from experiments.command import main
from experiments.training import Training
from experiments.training.recipes import RECIPES
from experiments.training.setup import make_training_plan

DOC = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
FEW = (
    "--iterations 4 --set tasks=3 --set samples=4 --set validation_tasks=2 --set test_tasks=3 --set test_samples=2"
    " --set evaluate_every=2"
)


def test_its_table_has_every_recipe() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", DOC, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == {*RECIPES, "module:function"}


def test_the_settings_that_it_names_are_there() -> None:
    named = re.findall(r"`([a-z_.]+=[^`]+)`", DOC)
    assert len(named) > 10
    for setting in named:
        key, _, value = setting.partition("=")
        if not key.isupper() and "RUN" not in value and "N" not in value and key != "ROLE.policy":
            backend = "ray" if key.startswith("placement") else "local"
            role = {"roles": "negative,judge"}.get(key, value)
            make_training_plan("grpo", "mad", "arithmetic", None, 0, {key: role}, backend, None)


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_its_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    (workplace / "mine.py").write_text(code, encoding="utf-8")
    commands = re.findall(r"^palaestra (.*)$", DOC, re.MULTILINE)
    assert len(commands) == 12
    for place, command in enumerate(commands):
        # One starts its processes as written; the others do without, as starting them is most of what they would take.
        few = f"{command} {FEW}{' --backend local' if place else ''}" if command.startswith("train") else command
        assert main(shlex.split(few.replace("run solo", "run solo --tasks 4"))) == 0, command
        printed = capsys.readouterr().out
        if command.startswith("compare"):
            assert "trainer.learning_rate=0" in printed and "shuffle_rewards=true" in printed
    team = Training.open("team")
    assert set(team.lines("end")[0]["versions"]) == {"solver", "critic"}
    trained = {name for line in team.lines("update") for name, found in line["policies"].items() if "loss" in found}
    assert trained == {"solver", "critic"}
    for name in ("right", "pairs", "heart"):
        lines = Training.open(name).lines("update")
        assert len(lines) == 4 and any(line["items"] for line in lines)
