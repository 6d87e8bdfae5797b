"""What docs/reliability.md shows works as written."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments import Run
from experiments.command import main
from experiments.faults.__main__ import HEAD, SCENARIOS
from experiments.faults.__main__ import main as faults

DOC = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")


@pytest.mark.model
def test_its_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^palaestra (.*)$", DOC, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["run", "resume", "resume"]
    assert main([*shlex.split(commands[0]), "--backend", "local"]) == 0
    digest = Run.open("mine").summary().digest
    for command in commands[1:]:
        assert main(shlex.split(command)) == 0
    capsys.readouterr()
    assert Run.open("mine").summary().digest == digest


def test_its_table_claims_nothing_but_what_held() -> None:
    table = DOC[DOC.index(HEAD) :].partition("\n\n")[0].splitlines()[2:]
    assert len(table) == len(SCENARIOS) and all(row.endswith("| yes |") for row in table)


def test_its_command_plays_a_scenario() -> None:
    assert re.findall(r"^python -m experiments.faults(.*)$", DOC, re.MULTILINE) == ["", " --soak 30"]
    result = CliRunner().invoke(faults, ["--only", "disk", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["disk"]
    assert found["held"] and found["episodes"] == found["expected"]
