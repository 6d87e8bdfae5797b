"""The verbs train and resume as their users meet them, and what show, compare and list say of training runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.command import main
from tests.experiments.training_helpers import SHORT, TOKENS

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.agents.trainer_helpers import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def root(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: two seeds of one training, and a control."""
    root = tmp_path_factory.mktemp("runs")
    for name, seed, more in (("one", 1, []), ("two", 2, []), ("still", 1, ["--set", "trainer.learning_rate=0"])):
        assert main([*train(root, model), "--name", name, "--seed", str(seed), *more]) == 0
    return root


def train(root: Path, model: Path, recipe: str = "tests.experiments.training_helpers:even") -> list[str]:
    settings = {**SHORT, "solver.max_tokens": TOKENS, "test_tasks": 4, "test_samples": 2, "evaluate_every": 2}
    settings |= {"validation_tasks": 2}
    del settings["iterations"]
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    where = ["--env", "arithmetic", "--model", f"hf:{model}", "--backend", "local", "--runs", str(root)]
    return ["train", recipe, *where, "--iterations", "2", *options]


@pytest.fixture
def called(root: Path, capsys: pytest.CaptureFixture[str]) -> Called:
    def call(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, "--runs", str(root)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def test_train_prints_one_object_and_tells_on_stderr_how_it_goes(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*train(tmp_path, model), "--json", "--name", "mine"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["training"] == "mine" and found["end"]["updates"] == 2
    assert {"before", "after", "gained", "last", "greedy"} <= set(found["gain"])
    lines = printed.err.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("update")] == ["update 1", "update 2"]
    assert lines[0].startswith("test after 0 updates") and lines[-1].startswith("ended after 2 updates")


def test_resume_of_a_finished_run_says_what_came_of_it(called: Called) -> None:
    status, out, err = called("resume", "one", "--json")
    assert status == 0 and json.loads(out)["end"]["updates"] == 2 and err == ""


def test_show_prints_the_curve_and_the_runs_within(called: Called) -> None:
    status, out, _ = called("show", "one")
    rows = [line.split() for line in out.splitlines()]
    assert status == 0 and "training one" in out
    assert [row[0] for row in rows if row and row[0] in ("0", "2") and len(row) > 3] == ["0", "2"]
    status, out, _ = called("show", "one", "--json")
    assert [line["kind"] for line in json.loads(out)["metrics"]].count("update") == 2
    status, out, _ = called("show", "one/rollouts/0001", "1")
    assert status == 0 and "solver" in out


def test_compare_puts_seeds_together_and_controls_beside(called: Called) -> None:
    status, out, _ = called("compare", "one", "two", "still")
    assert status == 0 and "all 2, 1, 2" in out and "trainer.learning_rate=0" in out
    status, out, _ = called("compare", "one", "two", "still", "--json")
    one, two, both, still = json.loads(out)
    assert both["seeds"] == [1, 2] and both["gained"]["tasks"] == 4
    mean = (one["gained"]["difference"] + two["gained"]["difference"]) / 2
    assert both["gained"]["difference"] == pytest.approx(mean)
    assert still["gained"]["difference"] == 0 and still["last"]["difference"] == 0
    status, out, _ = called("compare", "one/test/first", "one/test/last")
    assert status == 0 and "last" in out


def test_list_names_recipes_and_training_runs(called: Called) -> None:
    status, out, _ = called("list", "--json")
    found = json.loads(out)
    assert status == 0 and {"grpo", "rft", "sft", "dpo"} <= set(found["recipes"])
    assert set(found["trainings"]) == {"one", "two", "still"} and "even of solo" in found["trainings"]["one"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume", "oen"], "no run 'oen' in .*; did you mean 'one'"),
        (["train", "grpo", "--env", "arithmetic", "--name", "one"], "run 'one' is already in"),
        (
            ["train", "grpo", "--env", "arithmetic", "--track", "wandbb"],
            "unknown tracker 'wandbb'; did you mean 'wandb'",
        ),
        (["train", "sft", "--env", "arithmetic", "--set", "data=nothing"], "no run 'nothing'"),
        (["train", "grpo", "--env", "arithmetic", "--iterations", "0"], "iterations cannot be 0"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(called: Called, arguments: list[str], message: str) -> None:
    import re

    status, out, err = called(*arguments)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert re.search(message, err), err


def test_a_run_given_in_python_asks_for_what_cannot_be_stored(tmp_path: Path, model: Path) -> None:
    from envs import ConfigError
    from experiments.training import resume
    from tests.experiments.training_helpers import even, trained

    training = trained(tmp_path, model, name="mine")
    text: list[Any] = (training.path / "metrics.jsonl").read_text().splitlines()
    (training.path / "metrics.jsonl").write_text("\n".join(text[:-1]) + "\n")
    with pytest.raises(
        ConfigError, match="run mine was given its recipe ready-made in Python; give it again: recipe=…"
    ):
        resume("mine", tmp_path)
    assert resume("mine", tmp_path, recipe=even).finished
