"""SPC as a training: first policies, rounds from them on, the league, a run that was stopped. On the embedded model."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.learning.samples import Sample
from envs.errors import ConfigError
from experiments import Run
from experiments.studies import spc as spc_study
from experiments.training import Training, resume, train
from experiments.training.league import Game, League
from experiments.training.registry import Registry, Version
from experiments.training.run import TrainingError
from experiments.training.schedule import Schedule
from experiments.training.spc import Meetings
from experiments.training.teacher import LocalTeacher
from tests.experiments.training_helpers import without_times

SMALL: dict[str, Any] = {
    "first.tasks": 10,
    "first.epochs": 1,
    "tasks": 10,
    "epochs": 1,
    "match_tasks": 4,
    "test_tasks": 12,
    "validation_tasks": 8,
    "policy.rank": 8,
    "advantage": "raw",
    # By itself a generator that has learned so little hardly ever makes a valid sabotage.
    "sneak": "rewrite",
}


def play(root: Path, name: str, **settings: Any) -> Training:
    return train("spc", seed=1, backend="local", root=root, name=name, settings={**SMALL, **settings})


@pytest.fixture(scope="module")
def calls() -> list[tuple[str, Any]]:
    """What the trainers were asked, in order."""
    return []


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, Any]]) -> Iterator[Training]:
    """A small run of two rounds, and what its trainers were asked."""
    with pytest.MonkeyPatch.context() as patch:
        update, load = LocalTeacher.update, LocalTeacher.load

        async def updated(self: LocalTeacher, items: Any, *rest: Any) -> Any:
            calls.append(("update", list(items)))
            return await update(self, items, *rest)

        async def loaded(self: LocalTeacher, directory: Any) -> None:
            calls.append(("load", Path(directory).name))
            await load(self, directory)

        patch.setattr(LocalTeacher, "update", updated)
        patch.setattr(LocalTeacher, "load", loaded)
        yield play(tmp_path_factory.mktemp("runs"), "played")


def rows(items: list[Sample], policy: str, supervised: bool) -> list[str]:
    return sorted(s.key for s in items if s.policy == policy and s.supervised is supervised)


def test_rounds_learn_from_all_rounds_beside_as_many_first_samples_each_from_the_first_weights(
    played: Training, calls: list[tuple[str, Any]]
) -> None:
    assert [name for name, _ in calls] == ["update", "update", "load", "update"]
    first, one, two = (items for name, items in calls if name == "update")
    assert calls[2] == ("load", "0000"), "the second round begins where the first did"
    assert all(sample.supervised for sample in first)
    for policy in ("critic", "sneaky"):
        assert set(rows(one, policy, False)) <= set(rows(two, policy, False))
        for items in (one, two):
            assert len(rows(items, policy, True)) == len(rows(items, policy, False))
            assert set(rows(items, policy, True)) <= set(rows(first, policy, True))
    assert len(rows(two, "critic", False)) > len(rows(one, "critic", False)) > 0


def test_critiques_are_balanced_and_their_advantage_is_the_reward(
    calls: list[tuple[str, Any]], played: Training
) -> None:
    (_, one), *_ = [call for call in calls if call[0] == "update"][1:]
    played_rows = [sample for sample in one if not sample.supervised]
    assert played_rows and all(sample.advantage == sample.reward for sample in played_rows)
    assert {sample.reward for sample in played_rows if sample.role == "critic"} <= {-1.0, 1.0}
    labels: dict[str, bool] = {}
    for episode in played.rollouts(0).episodes():
        for note in episode.notes:
            key = f"{episode.task.id}/{episode.sample}/"
            labels |= {key + id: True for id in note["untouched"]}
            labels |= {key + id: False for one in note["sabotages"] for id in one["critiques"]}
    kept = [labels[sample.key] for sample in played_rows if sample.role == "critic"]
    assert kept.count(True) == kept.count(False) > 0


def test_policies_start_from_those_of_the_first_stage(played: Training) -> None:
    first = Training(played.path / "first")
    assert first.finished and first.rollouts(0).config["topology"]["name"] == "spc_pairs"
    assert first.rollouts(0).config["topology"]["settings"]["sneak"] == "rewrite", "the generator is asked alike"
    registry = Registry.open(played.path / "policies")
    made = first.lines("end")[0]["weights"]
    for policy in ("critic", "sneaky"):
        versions = registry.versions(policy)
        assert registry.path(versions[0]) == (first.path / made[policy]).absolute()
        assert all(version.on_disk for version in versions), "all are opponents"
    assert len(registry.versions("critic")) == 3


def test_every_generator_meets_every_critic_on_the_same_sabotages(played: Training) -> None:
    lines = played.lines("league")
    assert [line["updates"] for line in lines] == [0, 1, 2]
    for line in lines:
        for name, rates in line["attack"].items():
            assert set(rates) == {f"critic-{i:04d}" for i in range(line["updates"] + 1)}
            assert all(0 <= rate <= line["valid"][name] <= 1 for rate in rates.values())
    for cell in lines[-1]["attack"]:
        judged = [Run(played.path / "league" / f"{cell}-critic-{i:04d}") for i in range(3)]
        assert len({tuple(run.scores()) for run in judged}) == 1
    assert League.open(played.path).games, "the league is on disk, for ratings and the viewer"


def test_what_is_measured_is_single_steps_of_the_frozen_set_half_of_them_wrong(played: Training) -> None:
    run = Run(played.path / "test" / "first")
    assert run.config["topology"]["name"] == "judge_steps" and run.config["env"]["name"] == "steps"
    wrong = [episode.task.answers != ("none",) for episode in run.episodes()]
    assert wrong.count(True) == wrong.count(False)


def test_the_study_takes_its_figures_from_what_is_stored(played: Training) -> None:
    (row,) = spc_study.study([str(played.path)])
    assert row.before.balanced is not None and row.after.balanced is not None and row.gained.balanced is not None
    assert row.gained.balanced == pytest.approx(row.after.balanced - row.before.balanced)
    league = played.lines("league")[0]["attack"]
    assert row.attack_before == pytest.approx(league["sneaky-0000"]["critic-0000"] if league else 0.0)
    assert row.unseen is None, "there is no generator of another seed"
    found = spc_study._found(played, played, 0)
    asked = [json.loads(line) for line in (played.path / "league" / "sneaky-0002.jsonl").read_text().splitlines()]
    assert set(found) == {row["problem"] for row in asked}, "a problem is one case, however many its sabotages"
    assert sum(map(len, found.values())) == len(asked)


def test_a_run_that_stopped_goes_on_as_if_it_never_had(
    played: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = Training.mark

    def fails(self: Training, updates: int) -> None:
        if updates == 2 and self.name != "first":
            raise ConfigError("stopped")
        mark(self, updates)

    monkeypatch.setattr(Training, "mark", fails)
    with pytest.raises(TrainingError, match="palaestra resume stopped"):
        play(tmp_path, "stopped", start=str(played.path))
    monkeypatch.undo()
    lines = [without_times(found) for found in (resume("stopped", tmp_path), played)]
    for found in lines:
        found[-1].pop("weights")  # the first ones lie where they were made
    assert lines[0] == lines[1]


def test_another_run_can_start_from_the_same_first_policies(played: Training, tmp_path: Path) -> None:
    found = play(tmp_path, "control", start=str(played.path), iterations=1, random_signs=True, match_tasks=0)
    assert not (found.path / "first").exists() and not found.lines("league")
    one, other = (Registry.open(each.path / "policies").versions("critic") for each in (played, found))
    assert one[0].version == other[0].version and one[1].version.partition("-")[2] != other[1].version.partition("-")[2]
    with pytest.raises(ConfigError, match="first policies"):
        play(tmp_path, "nowhere", start=str(found.path))


def version(policy: str, updates: int) -> Version:
    return Version(policy, f"{updates}-v", updates, "")


@pytest.mark.parametrize(
    ("won", "pair"),
    [({(1, 1): 0.0, (1, 0): 0.4, (0, 1): 0.0}, (1, 0)), ({(1, 1): 1.0, (1, 0): 0.9, (0, 1): 0.5}, (0, 1))],
)
def test_the_pair_whose_win_rate_is_nearest_to_a_half_plays(
    tmp_path: Path, won: dict[tuple[int, int], float], pair: tuple[int, int]
) -> None:
    league = League(tmp_path)
    for (generator, critic), score in won.items():
        league.record([Game(f"sneaky@{generator}-v", f"critic@{critic}-v", score)] * 10)
    # The first ones against each other would be evenest, but neither is new.
    league.record([Game("sneaky@0-v", "critic@0-v", 0.5)] * 10)
    versions = {name: [version(name, 0), version(name, 1)] for name in ("sneaky", "critic")}
    arena: Any = SimpleNamespace(
        training=SimpleNamespace(path=tmp_path),
        registry=SimpleNamespace(versions=versions.__getitem__),
        weights=lambda updates: {name: found[updates] for name, found in versions.items()},
        plan=SimpleNamespace(
            policy_of=lambda role: role, schedule=Schedule(), curriculum=SimpleNamespace(matches=["some"])
        ),
    )
    found = Meetings().opponents(arena, 1)
    assert (found["sneaky"].updates, found["critic"].updates) == pair
