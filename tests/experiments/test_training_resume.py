"""A training run that was killed with -9, again and again, and resumed, is the one that was never killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.training import Training

ROOT = Path(__file__).parents[2]
POINTS = {
    "0": (
        "StoreWriter.append:20",  # in the midst of the second iteration's episodes
        "LocalTeacher.update:1",  # episodes there, nothing learned
        "LocalTeacher.export:1+",  # weights written, not entered
        "Registry.add:1+",  # entered, no checkpoint
        "Training.append:1+",  # metrics written, the state not
        "Training.mark:1",  # all but the mark that the state is whole
        "LocalPool.publish:1+",  # served, not measured
        "StoreWriter.append:8",  # in the midst of the last measurement
    ),
    "1": ("LocalTeacher.update:2", "Training.mark:1", "StoreWriter.append:15"),
}


def statuses(root: Path, name: str, lag: str, *points: str) -> list[int]:
    """Begin a run and go on with it, each time in a new process. Returns the exit statuses."""
    command = [sys.executable, "-m", "tests.experiments.killed_training", str(root), name, lag, *points]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(points)
    return [int(line.split()[1]) for line in done.stdout.splitlines()]


def metrics(path: Path, lag: str) -> list[Any]:
    """All lines without their times; where two tasks write them at once, in an order of their own."""
    lines = [{key: value for key, value in line.items() if key != "seconds"} for line in Training(path).lines()]
    return (
        lines if lag == "0" else sorted(lines, key=lambda line: (line["kind"], line.get("name", ""), line["updates"]))
    )


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("lag", ["0", "1"])
def test_a_run_killed_at_any_moment_ends_as_if_it_never_had_been(tmp_path: Path, lag: str) -> None:
    assert statuses(tmp_path, "whole", lag, "none") == [0]
    points = POINTS[lag]
    assert statuses(tmp_path, "killed", lag, *points, "none") == [-signal.SIGKILL] * len(points) + [0]
    whole, killed = (metrics(tmp_path / name, lag) for name in ("whole", "killed"))
    assert [line["kind"] for line in whole].count("update") == 4
    assert len({line["policies"]["main"]["version"] for line in whole if line["kind"] == "update"}) == 4
    assert json.dumps(killed) == json.dumps(whole)
    assert not list((tmp_path / "killed").glob("policies/*/.*")), "parts of weights are left behind"
