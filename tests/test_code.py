"""Lint, format and types, as tests: what they refuse does not land."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("arguments", [["check", "."], ["format", "--check", "."]], ids=["check", "format"])
def test_ruff(arguments: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", "ruff", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.slow
def test_pyright() -> None:
    result = subprocess.run([sys.executable, "-m", "pyright"], capture_output=True, text=True, cwd=ROOT)
    if not re.search(r"^\d+ errors?,", result.stdout, re.MULTILINE):
        # The PyPI package fetches the checker from the npm registry when it first runs.
        pytest.skip(f"pyright could not start: {(result.stderr or result.stdout).strip()[-200:]}")
    assert result.returncode == 0, result.stdout[-4000:]
