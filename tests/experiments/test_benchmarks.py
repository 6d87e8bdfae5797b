"""Each benchmark of orchestration runs at a tiny size and gives its figures; how large they are is not tested here."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from experiments.benchmarks import __main__ as listing
from experiments.benchmarks import calls, endpoint, growth, latency, orchestration, saturation, stored
from experiments.benchmarks.debates import CALLS, played
from experiments.runner import in_event_loop


def measured(command: Any, *arguments: str) -> dict[str, Any]:
    shown = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def bounded(part: str, result: dict[str, Any], **sizes: str) -> list[float]:
    """The figures of a part that orchestration holds to bounds, at other sizes than it does."""
    keys = [bound.key for bound in orchestration.BOUNDS if bound.part == part]
    for size, tiny in sizes.items():
        keys = [key.replace(size.removeprefix("at_"), tiny) for key in keys]
    found = [orchestration.figure(result, key) for key in keys]
    assert all(value is not None for value in found), f"{keys} are not all in {result}"
    return [value for value in found if value is not None]


def test_calls() -> None:
    sizes = ["--in-flight=1", "--in-flight=4", "--episodes=4", "--repeats=1"]
    result = measured(calls.main, "--backend=local", *sizes)
    for row in result["cpu_ms_per_call"]["local"].values():
        assert set(row) == {"driver", "total", "calls_per_s"} and row["total"] == row["driver"] > 0
    assert set(result["ratios"]["total_over_langgraph_alone"]) == {"1", "4"} and result["langgraph_alone_ms"] > 0
    assert "4 in flight" in CliRunner().invoke(calls.main, ["--backend=local", *sizes]).output


@pytest.mark.ray
@pytest.mark.slow
def test_calls_over_ray(ray_started: None) -> None:
    result = calls.measure((4, 40), ("ray",), 4, 1)
    row = result["cpu_ms_per_call"]["ray"][4]
    assert set(row) == {"driver", "replicas", "ray", "total", "calls_per_s"} and row["total"] >= row["driver"] > 0
    assert all(value > 0 for value in bounded("calls", json.loads(json.dumps(result)), at_1000="4"))


def test_latency_on_a_clock_of_its_own() -> None:
    started = time.monotonic()
    result = measured(latency.main, "--clock=cpu", "--debates=2", "--latency-ms=500", "--latency-ms=1e7", "--repeats=1")
    # Calls of nearly three hours pass at once, and are three in a row.
    assert time.monotonic() - started < 3600 and 1 <= result["latency_ms"]["1e+07"]["over_chain"] < 1.001
    assert bounded("latency", result)[0] >= 1


def test_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_in_its_own_process", growth.play)
    monkeypatch.setattr(growth, "TASKS", 2)
    result = measured(growth.main, "--backend=local", "--episodes=2", "--episodes=4", "--in-flight=2")
    assert set(result["runs"]) == {"2", "4"} and all(value > 0 for value in bounded("growth", result))
    assert all(row["peak_mb"] >= row["loaded_mb"] > 0 for row in result["runs"].values())


def test_the_store() -> None:
    result = measured(stored.main, "--episodes=3", "--repeats=1")
    assert len(result["per_cpu_s"]) == 5 and all(rate > 0 for rate in result["per_s"].values())


@pytest.mark.model
@pytest.mark.slow
def test_saturation() -> None:
    result = measured(saturation.main, "--clock=cpu", "--debates=2", "--repeats=1")
    assert set(result["tokens_per_s"]) == {"debates", "bare engine"}
    assert bounded("saturation", result) == [result["debates_over_bare_engine"]] and result["all"][0] > 0


@pytest.mark.slow
def test_an_endpoint() -> None:
    result = measured(endpoint.main, "--episodes=2", "--concurrency=2", "--repeats=1", "--no-peers")
    assert set(result) == {"text alone", "with token ids"}
    for row in result.values():
        assert set(row["cpu_ms_per_call"]) == {"ours, recorded", "bare, default", "bare, aiohttp"}
        assert set(row["ours_over"]) == {"bare, default", "bare, aiohttp"}


@pytest.mark.slow
@pytest.mark.skipif(not (endpoint.ROOT / ".venv-peers/ready").exists(), reason="make peers makes their environment")
def test_other_frameworks(tmp_path: Path) -> None:
    with endpoint.loopback() as url:
        benchmark = endpoint.Benchmark(url, "plain", 2, 2, str(tmp_path))
        assert all(benchmark.peer(program) > 0 for program in endpoint.PEERS.values())


def test_a_figure_out_of_bounds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"latency": {"latency_ms": {"500": {"over_chain": 1.1}}}, "saturation": {"debates_over_bare_engine": 0.9}}
    monkeypatch.setattr(orchestration, "run_part", lambda name, arguments: found[name])
    asked = ["--part=latency", "--part=saturation"]
    assert CliRunner().invoke(orchestration.main, asked).exit_code == 0
    found["saturation"]["debates_over_bare_engine"] = 0.8
    shown = CliRunner().invoke(orchestration.main, asked)
    told = [line for line in shown.output.splitlines() if "EXCEEDED" in line]
    assert shown.exit_code == 1 and len(told) == 1 and "saturation" in told[0] and "at least 0.85" in told[0]


def test_all_benchmarks_are_listed() -> None:
    shown = CliRunner().invoke(listing.main, [])
    assert {"calls", "endpoint", "engine", "publish", "orchestration", *orchestration.QUICK} <= set(
        listing.benchmarks()
    )
    assert all(name in shown.output for name in listing.benchmarks()) and "debates" not in listing.benchmarks()
    assert CliRunner().invoke(listing.main, ["enginee"]).exit_code == 2


def test_what_is_measured_is_a_whole_run(tmp_path: Path) -> None:
    done = in_event_loop(lambda: played(3, 2, tmp_path, "local"))
    episodes = list(done.run.episodes())
    assert done.calls == 3 * CALLS == sum(episode.calls for episode in episodes)
    assert {episode.stop_reason for episode in episodes} == {"judged"} and done.cpu.driver > 0 == done.cpu.replicas
