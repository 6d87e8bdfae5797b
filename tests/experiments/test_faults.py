"""Whatever is killed, stopped or out of order: the run ends with exactly its episodes, or stops and can be resumed."""

import re
import signal
from pathlib import Path

import pytest

from experiments.faults import endpoint_scenarios, ray_scenarios, scenarios
from experiments.faults.ground import Outcome


def held(outcome: Outcome) -> bool:
    return outcome.held and outcome.ended.endswith("0")


def test_a_run_killed_at_random_moments_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    outcome = scenarios.driver_killed(tmp_path, kills=3)
    assert held(outcome) and "0 times" not in outcome.fault


def test_a_run_killed_before_in_and_after_a_write_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    outcome = scenarios.driver_killed_at(tmp_path)
    assert held(outcome) and f"{len(scenarios.POINTS)} times" in outcome.fault


def test_a_sweep_killed_at_random_moments_ends_with_the_same_runs_and_table(tmp_path: Path) -> None:
    outcome = scenarios.sweep_killed(tmp_path)
    assert held(outcome) and "0 times" not in outcome.fault


@pytest.mark.parametrize(("by", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_keeps_what_had_ended_and_goes_on(
    tmp_path: Path, by: signal.Signals, status: int
) -> None:
    outcome = scenarios.stopped(tmp_path, by)
    found = re.match(r"(\d+), (\d+) stored", outcome.ended)
    assert held(outcome) and found and int(found[1]) == status
    assert 20 < int(found[2]) < 60


def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    outcome = scenarios.begun_twice(tmp_path)
    assert held(outcome) and "the second: 2, refused" in outcome.ended


def test_a_run_without_room_on_its_disk_stops_and_goes_on(tmp_path: Path) -> None:
    outcome = scenarios.disk_full(tmp_path)
    found = re.match(r"1, (\d+) stored", outcome.ended)
    assert held(outcome) and found and 0 < int(found[1]) < outcome.expected


def test_an_endpoint_that_refuses_and_breaks_off_costs_nothing(tmp_path: Path) -> None:
    outcome = endpoint_scenarios.endpoint_refuses(tmp_path)
    assert held(outcome) and outcome.ended == "0"


@pytest.mark.slow
def test_an_endpoint_that_answers_too_late_costs_nothing(tmp_path: Path) -> None:
    outcome = endpoint_scenarios.endpoint_late(tmp_path)
    assert held(outcome) and outcome.ended == "0"


@pytest.mark.slow
def test_what_an_endpoint_never_answered_fails_and_is_asked_again(tmp_path: Path) -> None:
    outcome = endpoint_scenarios.endpoint_hangs(tmp_path)
    assert held(outcome) and re.match(r"1, [1-9]\d* failed; answered again, resume --failed: 0", outcome.ended)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_whose_replica_is_killed_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    outcome = ray_scenarios.replica_killed(tmp_path)
    assert held(outcome) and outcome.ended == "0"


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_whose_rollout_worker_is_killed_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    outcome = ray_scenarios.worker_killed(tmp_path)
    assert held(outcome) and outcome.ended == "0"


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_loses_a_node_of_its_cluster_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    outcome = ray_scenarios.node_removed(tmp_path)
    assert held(outcome) and outcome.ended == "0"
