"""What the pages of a training are given: curves, the league, rewards and advantages of turns."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from envs import ConfigError
from envs.types import Env
from experiments.credit import samples_of
from experiments.runs import CONFIG, TRAINING, Run
from experiments.training.league import Game, League
from experiments.training.registry import Registry, Version
from experiments.viewer import library
from experiments.viewer.trained import trained_seats
from tests.experiments.viewer.viewer_helpers import client, debate


def training(root: Path, words: Env, recipe: str = "grpo") -> Run:
    """A training with one iteration of a debate."""
    config = {"recipe": recipe, "schedule": {"advantage": "grpo", "iterations": 4}, "roles": {"": "main"}}
    run = debate(root / "first" / "rollouts", words, "0000", samples=2)
    (root / "first" / TRAINING).write_text(json.dumps(config))
    return run


def test_turns_of_an_iteration_have_rewards_and_advantages(tmp_path: Path, words: Env) -> None:
    run = training(tmp_path, words)
    browser = client(tmp_path)
    page = browser.get("/api/runs/first~rollouts~0000/episodes/0").json()
    samples = {sample.key: sample for sample in samples_of(run).samples}
    for turn in page["turns"]:
        sample = samples[f"{page['task']['id']}/0/{turn['id']}"]
        assert (turn["reward"], turn["advantage"]) == (sample.reward, sample.advantage)
        assert turn["rewards"] == [["outcome", 1.0]]
    assert page["credit"] == "credit of grpo, advantages by grpo"
    shown = browser.get("/api/runs/first~rollouts~0000").json()
    assert [one["label"] for one in shown["rewards"]] == ["debater_1", "debater_2", "debater_3"]
    assert sum(shown["rewards"][0]["counts"]) == sum(sample.role == "debater_1" for sample in samples.values())


def test_code_that_a_stored_file_names_is_not_imported(
    tmp_path: Path, words: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    training(tmp_path, words, "trap:credit")
    page = client(tmp_path).get("/api/runs/first~rollouts~0000/episodes/0").json()
    assert "trap:credit is code of its own" in page["credit"] and page["turns"][0]["reward"] is None
    assert "trap" not in sys.modules


def test_a_league_is_a_matrix_with_ratings(tmp_path: Path, words: Env) -> None:
    training(tmp_path, words)
    games = [Game("solver@2", "solver@1", 1.0), Game("solver@2", "solver@1", 0.5), Game("solver@1", "sneaky@1", 1.0)]
    League.open(tmp_path / "first").record(games)
    page = client(tmp_path).get("/api/runs/first/training").json()
    names = [player["name"] for player in page["league"]["players"]]
    assert names[0] == "solver@2" and set(names) == {"solver@2", "solver@1", "sneaky@1"}
    scores = {(names[c["one"]], names[c["other"]]): (c["score"], c["games"]) for c in page["league"]["cells"]}
    assert scores["solver@2", "solver@1"] == (0.75, 2) and scores["solver@1", "solver@2"] == (0.25, 2)
    assert ("solver@2", "sneaky@1") not in scores


def test_an_episode_of_a_training_is_forked_with_the_weights_it_was_played_with(tmp_path: Path, words: Env) -> None:
    run = training(tmp_path, words)
    folder = tmp_path / "first" / "policies" / "main" / "0001"
    folder.mkdir(parents=True)
    Registry.open(tmp_path / "first" / "policies").add(Version("main", "1-abc", 1, "main/0001"))
    config = {**run.config, "weights": {"main": "1-abc"}}
    (run.path / CONFIG).write_text(json.dumps(config))
    expected = {"model": f"hf:{folder}", "policy": ""}
    assert trained_seats(Run(run.path)) == {f"debater_{i}": expected for i in (1, 2, 3)}
    (folder / "adapter_config.json").write_text("{}")
    assert trained_seats(Run(run.path))["debater_1"] == {"adapter": str(folder), "policy": ""}
    shutil.rmtree(folder)
    with pytest.raises(ConfigError, match="whose weights were dropped"):
        trained_seats(Run(run.path))


def test_what_is_kept_in_memory_is_bounded(tmp_path: Path, words: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "MOST_ROWS", 12)
    runs = [debate(tmp_path, words, f"run-{i}") for i in range(4)]
    kept = library.Library(tmp_path)
    first = kept.outcomes(runs[0].path)
    assert kept.outcomes(runs[0].path) is first
    for run in runs[1:]:
        kept.outcomes(run.path)
    assert kept.outcomes(runs[3].path) is kept.outcomes(runs[3].path)
    assert kept.outcomes(runs[0].path) is not first and len(kept.outcomes(runs[0].path).rows) == 5


def test_a_training_lists_its_runs_and_stands_in_the_list_itself(tmp_path: Path, words: Env) -> None:
    training(tmp_path, words)
    browser = client(tmp_path)
    (row,) = browser.get("/api/runs").json()["runs"]
    assert (row["key"], row["kind"], row["planned"], row["state"]) == ("first", "training", 4, "starting")
    page = browser.get("/api/runs/first/training").json()
    assert [run["key"] for run in page["runs"]] == ["first~rollouts~0000"] and page["runs"][0]["under"] == "first"
    assert browser.get("/api/runs/first").status_code == 404, "it has no episodes of its own"


def test_measurements_are_curves_with_their_intervals(tmp_path: Path, words: Env) -> None:
    training(tmp_path, words)
    lines = [
        {"kind": "validation", "updates": 0, "name": "0000", "accuracy": 0.5, "ci95": [0.4, 0.6], "greedy": 0.7},
        {"kind": "update", "updates": 1, "accuracy": 0.4, "curriculum": {"difficulty": 3}, "seconds": {"play": 2.0}},
        {"kind": "validation", "updates": 1, "name": "0001", "accuracy": 0.6, "ci95": [0.5, 0.7], "greedy": 0.8},
        {"kind": "end", "updates": 1, "reason": "all iterations", "best": 1, "seconds": {"all": 9.0}},
    ]
    (tmp_path / "first" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = client(tmp_path).get("/api/runs/first/training").json()
    series = {(one["panel"], one["name"]): one for one in page["series"]}
    assert series["accuracy", "validation"]["y"] == [0.5, 0.6] and series["accuracy", "validation"]["low"] == [0.4, 0.5]
    assert series["accuracy", "validation at temperature 0"]["y"] == [0.7, 0.8]
    assert series["difficulty", "curriculum · difficulty"]["y"] == [3.0]
    assert series["time", "play"]["unit"] == "s" and page["panels"][0] == "accuracy"
    assert (page["ended"], page["best"], page["run"]["state"]) == ("all iterations", 1, "ended")
    assert page["run"]["accuracy"] == 0.6
