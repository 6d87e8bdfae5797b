"""The commands of docs/performance.md are understood; tests/experiments/test_benchmarks.py runs them, small."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

DOC = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m (experiments\.benchmarks.*?)(?:  #.*)?$", DOC, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(command: str) -> None:
    module, *options = shlex.split(command)
    main = import_module(module if "." in module.removeprefix("experiments.") else f"{module}.__main__").main
    assert main.make_context(module, options).params


def test_it_has_a_command_for_each_part() -> None:
    parts = {command.split()[0].rpartition(".")[2] for command in COMMANDS}
    assert parts == {"benchmarks", "orchestration", "calls", "endpoint", "latency", "growth", "stored", "saturation"}
