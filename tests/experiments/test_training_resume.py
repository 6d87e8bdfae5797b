"""A training run that was killed with -9, again and again, and resumed, is the one that was never killed."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.faults.training_scenarios import LAGGED, POINTS, trainer_killed, training_killed
from experiments.training import Training


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(("lag", "points"), [(0, POINTS), (1, LAGGED)])
def test_a_run_killed_at_any_moment_ends_as_if_it_never_had_been(
    tmp_path: Path, lag: int, points: Sequence[str]
) -> None:
    outcome = training_killed(tmp_path, points, lag)
    assert outcome.held and f"{len(points)} times" in outcome.fault and outcome.ended == "resume: 0"
    updates = Training(tmp_path / "runs" / "unbroken").lines("update")
    assert len(updates) == 4 and len({line["policies"]["main"]["version"] for line in updates}) == 4
    assert not list((tmp_path / "runs" / "killed").glob("policies/*/.*")), "parts of weights are left behind"


@pytest.mark.ray
@pytest.mark.model
@pytest.mark.slow
def test_a_training_whose_trainer_is_killed_stops_and_goes_on(tmp_path: Path) -> None:
    outcome = trainer_killed(tmp_path)
    assert outcome.held and outcome.ended == "1, after 1 updates; resume: 0"
