"""`palaestra plan`: what it counts, what it picks, what it says, and what it refuses."""

import json
from pathlib import Path

import pytest

from agents.simulation import load_hardware
from experiments.capacity.planner import Planner, plan_capacity
from experiments.capacity.shapes import uniform
from experiments.capacity.workload import Segment, Source, Workload, recipe_workload, topology_workload
from experiments.command import main

LENGTHS = Source(None, 0, prompt=200, reply=300)
ALONE = ["--env", "arithmetic", "--calibrate", "0", "--prompt", "200", "--reply", "300"]


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def workload(tasks: int = 2000, calls: int = 3) -> Workload:
    segment = Segment("play", uniform(calls, 200, 300), tasks, 1, 1024)
    return Workload("made up", (segment,), None, calls, ())


class TestWorkloads:
    def test_a_topology_by_its_own_count_of_calls(self) -> None:
        made = topology_workload("society", "arithmetic", 50, 2, 16, 0, {"agents": "4", "rounds": "3"}, LENGTHS)
        assert made.episodes == 100 and made.shapes.calls == made.most_calls == 12
        assert made.shapes.prompt_tokens == 12 * 200 and made.longest == 500
        assert any("12 calls, the most it can" in line for line in made.supposed)

    def test_a_training_is_its_iterations_and_measurements(self) -> None:
        settings = {"iterations": 20, "tasks": 8, "samples": 4, "evaluate_every": 10, "epochs": 2}
        made = recipe_workload("grpo", None, "arithmetic", 0, settings, LENGTHS)
        assert [(each.name, each.episodes, each.times) for each in made.segments] == [
            ("play", 32, 20),
            ("validation", 400, 3),
            ("validation, greedy", 100, 3),
            ("test", 2400, 3),
            ("test, greedy", 300, 3),
        ]
        learning = made.learning
        assert learning is not None and learning.tokens == 32 * 500 * 2
        # Forward and backward, and the frozen reference; beside the weights that learn.
        assert learning.flops == 8 and learning.state_bytes == 20 and not learning.together

    def test_adapters_take_less(self) -> None:
        made = recipe_workload("rft", None, "arithmetic", 0, {"policy.rank": 8, "lag": 1}, LENGTHS)
        assert made.learning is not None and made.learning.together
        assert (made.learning.flops, made.learning.state_bytes) == (4, 4)

    def test_what_is_learned_from_again_counts_again(self) -> None:
        made = recipe_workload("critique_loop", None, "arithmetic", 0, {"tasks": 10}, LENGTHS)
        assert made.shapes.calls > 1 and made.segments[1].shapes.calls == 1, "measured by solo"
        assert made.learning is not None and made.learning.iterations == 3
        # Two passes over the episodes of one, two and three iterations.
        assert made.learning.tokens == pytest.approx(made.shapes.calls * 500 * 10 * 5 * 2 * 2)


class TestChoosing:
    def test_the_deadline_picks_the_fewest_replicas(self) -> None:
        planner = Planner(workload(), load_hardware(), "qwen2.5-7b", "l4", {})
        alone = planner.estimate(1)
        found = planner.within(alone.hours / 2.5)
        assert found is not None and found.replicas >= 3 and found.hours <= alone.hours / 2.5
        assert planner.estimate(found.replicas - 1).hours > alone.hours / 2.5
        assert planner.within(alone.hours) == alone

    def test_cost_is_all_gpus_for_all_the_time(self) -> None:
        settings = {"iterations": 5, "tasks": 8, "samples": 4, "test_tasks": 0, "evaluate_every": 0}
        made = recipe_workload("grpo", None, "arithmetic", 0, settings, LENGTHS)
        (found,), _ = plan_capacity(made, load_hardware(), "qwen2.5-7b", ["h100"], replicas=2)
        assert found.gpus == 2 + found.trainer_gpus and found.trainer_gpus >= 2
        assert found.hours == pytest.approx(found.play_h + found.learn_h)
        assert found.usd == pytest.approx(found.gpus * found.hours * 3.99)
        tokens, flops = 5 * 32 * 500, 8 * 7.62e9
        assert found.learn_h * 3600 == pytest.approx(tokens * flops / (989e12 * 0.38 * found.trainer_gpus))

    def test_more_replicas_are_no_slower(self) -> None:
        planner = Planner(workload(), load_hardware(), "qwen2.5-7b", "h100", {})
        hours = [planner.estimate(replicas).hours for replicas in (1, 2, 4, 8)]
        assert hours == sorted(hours, reverse=True) and hours[0] < 8 * hours[3]

    def test_a_part_stands_for_a_long_run(self) -> None:
        hardware = load_hardware()
        long, longer = (Planner(workload(n), hardware, "qwen2.5-7b", "h100", {}).estimate(1) for n in (6000, 12000))
        assert longer.hours == pytest.approx(2 * long.hours, rel=0.1)

    def test_measured_engines_need_no_data_sheet(self, tmp_path: Path) -> None:
        own = tmp_path / "own.toml"
        own.write_text('[engines."tiny@desk"]\npass_s = 0.001\nsource = "measured"\n', encoding="utf-8")
        (found,), _ = plan_capacity(workload(), load_hardware(own), "tiny", [])
        assert found.gpu == "desk" and found.measured and found.usd is None


class TestCommand:
    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = plan(capsys, "vote", *ALONE, "--tasks", "200", "--gpu", "h100", "--gpu", "l4", "--within", "10m")
        assert found["episodes"] == 200 and found["calls"] == found["most_calls"] == 6
        assert {each["gpu"] for each in found["estimates"]} == {"h100", "l4"}
        assert all(each["hours"] <= 1 / 6 and each["gpus"] >= 1 for each in found["estimates"])
        costs = [each["usd"] for each in found["estimates"]]
        assert costs == sorted(costs) and found["supposed"]

    def test_what_cannot_do_it_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = plan(capsys, "solo", *ALONE, "--model", "qwen2.5-32b", "--tensor-parallel", "1")
        assert {each["gpu"] for each in found["estimates"]} == {"a100", "h100", "h200"}
        assert len(found["refused"]) == 1 and "qwen2.5-32b on l4: expected room for 66 GB" in found["refused"][0]

    def test_the_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["plan", "grpo", *ALONE, "--iterations", "3", "--gpu", "h200"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "h200: 1 + 2 to learn" in shown and "$4.44 an hour on 2026-10-24" in shown
        assert "Learning reaches 38% of the FLOPs" in shown and "77% of the bandwidth" in shown

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["vote"], "give --env"),
            (["voot", "--env", "arithmetic"], "unknown recipe or topology 'voot'; did you mean 'vote'"),
            (["grppo"], "did you mean 'grpo'"),
            (["vote", *ALONE, "--model", "qwen2.5-70b"], "unknown model to be simulated"),
            (["vote", *ALONE, "--gpu", "h1000"], "unknown GPU 'h1000'; did you mean 'h100'"),
            (["vote", *ALONE, "--within", "soon"], "expected a time such as 90m"),
            (["vote", *ALONE, "--within", "1s"], "not within 0.000277778 h"),
            (["vote", *ALONE, "--iterations", "3"], "--iterations goes with a recipe"),
            (["vote", *ALONE, "--set", "solver.model=openai:x@http://localhost"], "one model for all roles"),
            (["vote", "--env", "arithmetic", "--calibrate", "0"], "give --prompt and --reply"),
            (["step_search", *ALONE], "does not say how many calls"),
            (["vote", "--env", "arithmetic", "--from", "nothing"], "no run 'nothing'"),
            (["grpo", *ALONE, "--model", "llama-3.3-70b", "--gpu", "l4"], "set policy.rank"),
            (["vote", *ALONE, "--hardware", "none.toml"], "cannot read the hardware file none.toml"),
        ],
    )
    def test_what_cannot_be_planned(
        self, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["plan", *arguments]) == 2
        assert complaint in " ".join(capsys.readouterr().err.split())
