"""What docs/sweeps.md shows works as written, but for fewer tasks."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import Run
from experiments.command import main
from experiments.runs import ASKED
from experiments.spending import read_prices
from experiments.sweeps import Sweep

DOC = (Path(__file__).parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^palaestra (.*)$", DOC, re.MULTILINE)


def prices(folder: Path) -> Path:
    (shown,) = re.findall(r"```toml\n(.*?)```", DOC, re.DOTALL)
    path = folder / "prices.toml"
    path.write_text(shown, encoding="utf-8")
    return path


def test_its_prices_can_be_read(tmp_path: Path) -> None:
    found = read_prices(prices(tmp_path))
    assert found["openai:gpt-*"].date == "2026-11-01" and "embedded" in found


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_its_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices(workplace)
    assert len(COMMANDS) == 8
    for command in COMMANDS:
        few = re.sub(r"--tasks \d+", "--tasks 6", command).replace("usd=0.001", "usd=0.0001")
        assert main(shlex.split(few)) == 0, command
        capsys.readouterr()
    tables = {path.parent.name: Sweep(path.parent).table for path in Path("runs").glob(f"*/{ASKED}")}
    assert [entry.topology for entry in tables["small"].entries] == ["solo", "vote,samples=9", "society,agents=2"]
    assert all(entry.calls <= 12 for entry in tables["twelve"].entries)
    assert len(tables["crossed"].entries) == 1 + 2 + 4
    assert tables["cheap"].spent and tables["priced"].unplayed and tables["priced"].entries[0].usd
    assert tables["early"].stop_losers == 0.05
    assert Run.open("small/society,agents=2-seed7", Path("runs")).summary().failed == 0
