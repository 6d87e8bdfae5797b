"""What a training run is made of: arguments, tasks, lessons, the registry, the league, the replay buffer, trackers."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from agents import Cast, ScriptedEngine, Seat
from agents.engines import EMBEDDED
from agents.learning import Pair, Sample
from agents.probe import Probe
from envs import Arithmetic, ConfigError
from envs.types import Task, Verdict
from experiments.training import Recipe, Training, train
from experiments.training.league import Game, League
from experiments.training.recipe import imitation, preferences
from experiments.training.recipes import find_recipe
from experiments.training.registry import Registry, Version
from experiments.training.replay import ReplayBuffer
from experiments.training.schedule import Curriculum, Schedule
from experiments.training.setup import RATES, TrainingPlan, make_training_plan
from experiments.training.tracking import flat, open_trackers
from graphs import Episode
from graphs.turns import Turn


def planned(topology: str = "solo", settings: Mapping[str, Any] | None = None, cast: Any = None) -> TrainingPlan:
    return make_training_plan("grpo", topology, "arithmetic", cast, 5, settings or {}, "local", None)


def test_a_plain_run_trains_all_weights_of_the_embedded_model() -> None:
    plan = planned()
    (learner,) = plan.learners
    assert (learner.name, learner.served_as, learner.settings.model) == ("main", "", "embedded")
    assert plan.policy_of("solver") == "main" and plan.trainer.learning_rate == RATES["all"]
    assert plan.plan.cast.seat("solver").policy == "" and plan.trainer.loss.normalise == "sequence"


def test_settings_go_where_they_belong() -> None:
    settings = {
        "lag": "1",
        "samples": "4",
        "topology.samples": "3",
        "env.level": "7",
        "trainer.threads": "2",
        "loss.kl": "off",
        "policy.rank": "4",
        "policy.targets": "q_proj,v_proj",
        "solver.temperature": "0.7",
    }
    plan = planned("vote", settings)
    assert (plan.schedule.lag, plan.schedule.samples, plan.trainer.lag) == (1, 4, 1)
    assert plan.config["topology"]["settings"] == {"samples": 3} and plan.config["env"]["settings"] == {"level": "7"}
    assert (plan.trainer.threads, plan.trainer.loss.kl, plan.trainer.seed) == (2, "off", 5)
    (learner,) = plan.learners
    assert (learner.served_as, learner.settings.rank, learner.settings.targets) == ("main", 4, ("q_proj", "v_proj"))
    assert plan.trainer.learning_rate == RATES["adapter"]
    seat = plan.plan.cast.seat("solver")
    assert (seat.policy, seat.temperature) == ("main", 0.7)
    assert (plan.greedy_cast.seat("solver").policy, plan.greedy_cast.seat("solver").temperature) == ("main", 0)


def test_numbered_roles_share_the_policy_of_their_kind() -> None:
    settings = {
        "policy.rank": 4,
        "debater.policy": "debater",
        "roles": "debater",
        "agents": 2,
        "policies.debater.rank": 8,
    }
    plan = planned("society", settings)
    assert [(one.name, one.settings.rank) for one in plan.learners] == [("debater", 8)]
    assert {plan.plan.cast.seat(f"debater_{i}").policy for i in (1, 2)} == {"debater"}


def test_roles_that_do_not_learn_may_be_anybody() -> None:
    cast = Cast("embedded", judge="openai:gpt@http://127.0.0.1:1/v1")
    plan = planned("mad", {"roles": "affirmative,negative"}, cast)
    assert set(plan.assigned) == {"affirmative", "negative"} and len(plan.learners) == 1


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["grppo"], {}, "unknown recipe 'grppo'; did you mean 'grpo'"),
        (["no.such:credit"], {}, r"recipe 'no\.such:credit': cannot import no\.such"),
        (["grpo", "sola"], {}, "unknown topology 'sola'; did you mean 'solo'"),
        (["grpo", "solo", "arithmatic"], {}, "unknown env 'arithmatic'"),
        (["grpo", "solo", "arithmetic", "openai:x@http://127.0.0.1:1/v1"], {}, "weights are not here to be trained"),
        (["grpo"], {"iterationz": 3}, "unknown setting of topology solo: 'iterationz'"),
        (["grpo"], {"iterations": 0}, "the training: iterations cannot be 0"),
        (["grpo"], {"advantage": "grp"}, "unknown advantage 'grp'; did you mean 'grpo'"),
        (["grpo"], {"group": "tasks"}, "unknown group 'tasks'; did you mean 'task'"),
        (["grpo"], {"roles": "solvr"}, "unknown role 'solvr'; did you mean 'solver'"),
        (["grpo"], {"solvr.policy": "x"}, "unknown role 'solvr'; did you mean 'solver'"),
        (["grpo"], {"trainer.learning_rat": 1}, "unknown setting of the trainer: 'learning_rat'"),
        (["grpo"], {"trainer.lag": 1}, "trainer.lag is the run's own: set lag"),
        (["grpo"], {"trainer.seed": 1}, "trainer.seed is the run's own: set --seed"),
        (["grpo"], {"loss.preset": "grp"}, "unknown loss 'grp'; did you mean 'grpo'"),
        (["grpo"], {"loss.clip": 1}, "unknown setting of the loss: 'clip'"),
        (["grpo"], {"policy.rank": -1}, "policy main: rank cannot be -1"),
        (["grpo"], {"policies.main": 1}, r"expected policies\.NAME\.KEY"),
        (["grpo"], {"policies.mian.rank": 1}, "unknown policy 'mian'; did you mean 'main'"),
        (["grpo"], {"patience": 2, "evaluate_every": 0}, "patience counts measurements"),
        (["grpo"], {"replay": 5}, "recipe grpo: .* replay"),
        (["grpo"], {"data": "other"}, "recipe grpo: it learns from what it plays, found data='other'"),
        (["sft"], {}, "recipe sft: expected the stored run that it learns from, found none; set data=RUN"),
        (["grpo"], {"placement.workers": 2}, "placement says where Ray puts the trainer, found backend local"),
        (["grpo"], {"solver.adapter": str(EMBEDDED)}, "expected no adapter of a role that learns"),
        (
            ["grpo", "mad"],
            {"affirmative.policy": "a", "negative.policy": "b"},
            "policy a is all weights of embedded, which [a-z]+ learns on too; make both adapters with policy.rank=8",
        ),
        (["grpo"], {"solver.policy": "../x"}, r"policy '\.\./x': expected a plain name"),
    ],
)
def test_bad_arguments_are_found_before_anything_is_loaded(
    tmp_path: Path, arguments: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(*arguments, settings=settings, backend="local", root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_plain_run_with_a_policy_says_that_it_is_for_training(tmp_path: Path) -> None:
    from experiments import run

    with pytest.raises(ConfigError, match=r"solver\.policy names what `palaestra train` is to teach"):
        run("solo", cast=Cast(Seat(model=ScriptedEngine({}), policy="x")), backend="local", root=tmp_path)


class TestCurriculum:
    def test_tasks_are_new_ones_until_all_were_played_and_in_another_order_then(self) -> None:
        env = Few(20)
        schedule = Schedule(
            iterations=6, tasks=4, test_tasks=3, validation_tasks=5, train_split="test", validation_split="test"
        )
        curriculum = Curriculum(env, schedule, seed=1)
        held = {task.id for task in (*curriculum.test, *curriculum.validation)}
        assert len(held) == 8
        rounds = [[task.id for task in curriculum.iteration(i)] for i in range(6)]
        assert len({id for played in rounds[:3] for id in played}) == 12
        assert not held & {id for played in rounds for id in played}
        assert rounds[:3] != rounds[3:] and {*chain(*rounds[:3])} == {*chain(*rounds[3:])}
        assert rounds == [[task.id for task in Curriculum(env, schedule, seed=1).iteration(i)] for i in range(6)]
        assert rounds != [[task.id for task in Curriculum(env, schedule, seed=2).iteration(i)] for i in range(6)]

    def test_too_few_tasks_are_refused(self) -> None:
        with pytest.raises(
            ConfigError, match="expected at least 4 test tasks for an iteration, found 2 that are not held"
        ):
            Curriculum(Few(10), Schedule(tasks=4, test_tasks=8, evaluate_every=0, train_split="test"), seed=1)

    def test_a_generated_env_gives_as_many_as_are_asked_for(self) -> None:
        curriculum = Curriculum(Arithmetic(4), Schedule(iterations=10, tasks=30), seed=0)
        ids = [task.id for i in range(10) for task in curriculum.iteration(i)]
        assert len(set(ids)) == 300


class Few:
    """A finite env with one split."""

    name = "few"

    def __init__(self, number: int):
        self._number = number

    def tasks(self, n: int | None = None, split: Any = "test") -> list[Task]:
        if split != "test" or (n or 0) > self._number:
            raise ConfigError("few: there are no more")
        return [Task(id=f"few-{i}", question="?", answers=("1",)) for i in range(n or self._number)]

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        return Verdict.correct()

    async def group(self, answers: Any) -> list[int]:
        return [0 for _ in answers]


def episode(task: str, sample: int, reply: tuple[int, ...], score: float, prompt: tuple[int, ...] = (1, 2)) -> Episode:
    turn = Turn.model_construct(
        id="solver/0", role="solver", move="solve", round=0, after=0, reads=(), follows=None, messages=(), reply="x",
        policy="embedded", version="v", finish="stop", temperature=1.0, top_p=1.0, seed=0, prompt_tokens=2,
        completion_tokens=len(reply), prompt_ids=prompt, token_ids=reply, logprobs=(-1.0,) * len(reply),
    )  # fmt: skip
    verdict = Verdict(status="correct" if score else "incorrect", score=score)
    found = Task(id=task, question="?", answers=("1",))
    return Episode.model_construct(
        task=found, sample=sample, turns=(turn,), answer="1", stop_reason="", verdict=verdict, failure=None, seconds=0.0
    )


class TestLessons:
    EPISODES = (
        episode("t", 0, (5, 6), 1.0),
        episode("t", 1, (5, 6), 1.0),
        episode("t", 2, (7,), 0.0),
        episode("t", 3, (8, 9), 1.0),
        episode("u", 0, (5, 6), 0.0, prompt=(1, 3)),
        episode("u", 1, (7,), 0.0, prompt=(1, 3)),
    )

    def test_imitation_learns_what_was_right_and_each_reply_once(self) -> None:
        recipe = find_recipe("rft")
        items = imitation(self.EPISODES, recipe.credit, Schedule(), 0).items
        assert [(i.key, i.token_ids, i.supervised, i.weight) for i in items if isinstance(i, Sample)] == [
            ("t/0/solver/0", (5, 6), True, 1.0),
            ("t/3/solver/0", (8, 9), True, 1.0),
        ]

    def test_preferences_pair_right_with_wrong_on_one_prompt(self) -> None:
        items = preferences(self.EPISODES, find_recipe("dpo").credit, Schedule(), 0).items
        assert [(p.chosen.key, p.rejected.key) for p in items if isinstance(p, Pair)] == [
            ("t/0/solver/0", "t/2/solver/0")
        ]

    def test_a_credit_function_is_a_recipe(self) -> None:
        def mine(episode: Episode) -> dict[str, dict[str, float]]:
            return {}

        found = find_recipe(mine)
        assert (found.name, found.credit, found.teach) == ("mine", mine, find_recipe("grpo").teach)
        own = Recipe("own", imitation)
        assert find_recipe(own) is own


def version(name: str, updates: int, folder: str) -> Version:
    return Version("main", name, updates, folder, Probe((1, 2), (-0.5,)))


class TestRegistry:
    @pytest.fixture
    def registry(self, tmp_path: Path) -> Registry:
        registry = Registry.open(tmp_path / "policies")
        registry.add(version("0-a", 0, str(EMBEDDED)))
        for updates in range(1, 5):
            (tmp_path / "policies" / "main" / f"{updates:04d}").mkdir(parents=True)
            registry.add(version(f"{updates}-a", updates, f"main/{updates:04d}"))
        return registry

    def test_it_is_found_again_as_it_was(self, registry: Registry) -> None:
        registry.pin("main", "2-a")
        registry.rollback("main", "3-a")
        opened = Registry.open(registry.root)
        assert opened.versions("main") == registry.versions("main") and opened.current("main").version == "3-a"

    def test_a_version_never_changes(self, registry: Registry) -> None:
        with pytest.raises(ConfigError, match="version 2-a is entered already; it never changes"):
            registry.add(version("2-a", 9, "main/0009"))
        assert registry.at("main", 2).directory == "main/0002" and registry.at("main").version == "4-a"

    def test_a_rollback_holds_until_there_is_a_new_version(self, registry: Registry) -> None:
        assert registry.rollback("main", "1-a") == registry.current("main")
        registry.add(version("5-b", 5, "main/0005"))
        assert registry.current("main").version == "5-b"
        assert [v.version for v in registry.versions("main")] == ["0-a", "1-a", "2-a", "3-a", "4-a", "5-b"]

    def test_what_is_pinned_first_or_named_stays_on_disk(self, registry: Registry) -> None:
        assert registry.opponent("main", "2-a") == {"model": f"hf:{registry.root / 'main' / '0002'}"}
        registry.drop(4, [registry.get("main", "3-a")])
        assert [v.version for v in registry.versions("main") if v.on_disk] == ["0-a", "2-a", "3-a", "4-a"]
        assert sorted(path.name for path in (registry.root / "main").iterdir()) == ["0002", "0003", "0004"]
        with pytest.raises(ConfigError, match="the weights of 1-a were dropped"):
            registry.rollback("main", "1-a")
        assert (EMBEDDED / "config.json").is_file(), "weights that are not the run's own are never removed"

    def test_what_came_after_a_state_is_struck(self, registry: Registry) -> None:
        (registry.root / "main" / ".0005.part").mkdir()
        registry.forget(2)
        assert registry.at("main").version == "2-a"
        assert sorted(path.name for path in (registry.root / "main").iterdir()) == ["0001", "0002"]

    def test_what_is_not_there_is_said(self, registry: Registry) -> None:
        with pytest.raises(ConfigError, match="policy main has no version '4-b'; did you mean '4-a'"):
            registry.get("main", "4-b")
        (registry.root / "registry.json").write_text("[]")
        with pytest.raises(ConfigError, match=r"registry\.json is no registry of policies"):
            Registry.open(registry.root)


class TestLeague:
    def test_the_fairest_opponent_is_the_one_that_wins_half(self, tmp_path: Path) -> None:
        league = League.open(tmp_path)
        league.record([Game("critic", "weak", 1.0)] * 8 + [Game("strong", "critic", 1.0)] * 8)
        league.record([Game("critic", "even", i % 2) for i in range(8)])
        assert league.win_rate("critic", "weak") == 0.9 and league.win_rate("critic", "strong") == 0.1
        assert league.fairest("critic", ["weak", "strong", "even"]) == "even"
        drawn = [league.draw("critic", ["weak", "strong", "even"], seed) for seed in range(300)]
        shares = {name: drawn.count(name) / 300 for name in ("weak", "strong", "even")}
        assert shares["even"] == pytest.approx(0.25 / 0.43, abs=0.08)
        assert drawn == [League.open(tmp_path).draw("critic", ["weak", "strong", "even"], seed) for seed in range(300)]

    def test_whom_nobody_has_met_is_even(self, tmp_path: Path) -> None:
        assert League.open(tmp_path).win_rate("a", "b") == 0.5

    def test_ratings_follow_the_games(self, tmp_path: Path) -> None:
        league = League.open(tmp_path)
        for _ in range(6):
            league.record([Game("a", "b", 1.0), Game("b", "c", 1.0), Game("a", "c", 1.0)])
        ratings = League.open(tmp_path).ratings()
        assert list(ratings) == ["a", "b", "c"] and ratings["a"].at_least > ratings["c"].mu
        drawn = League.open(tmp_path / "other")
        drawn.record([Game("a", "b", 0.5)])
        assert drawn.ratings()["a"].mu == pytest.approx(drawn.ratings()["b"].mu)

    def test_games_that_are_none_are_refused(self, tmp_path: Path) -> None:
        for game in (Game("a", "a", 1.0), Game("a", "b", 1.5), Game("a", "b", float("nan"))):
            with pytest.raises(ConfigError, match="expected a score from 0 to 1 of a game between two players"):
                League.open(tmp_path).record([game])


def sample(number: int) -> Sample:
    return Sample(f"t{number}/0/solver/0", "main", f"v{number}", "solver", (1,), (2,), (-0.1,))


class TestReplay:
    def test_the_newest_are_kept_with_where_they_are_from(self) -> None:
        buffer = ReplayBuffer(4)
        for iteration in range(3):
            buffer.add([sample(2 * iteration), sample(2 * iteration + 1)], iteration)
        kept = buffer.draw(10, seed=0)
        assert {(one.iteration, one.versions) for one in kept} == {
            (1, ("v2",)),
            (1, ("v3",)),
            (2, ("v4",)),
            (2, ("v5",)),
        }
        buffer.add([Pair(sample(8), sample(9))], 3)
        assert ("v8", "v9") in {one.versions for one in buffer.draw(4, seed=0)} and len(buffer) == 4

    def test_what_is_drawn_depends_on_the_seed(self) -> None:
        buffer = ReplayBuffer(100)
        buffer.add(map(sample, range(50)), 0)
        drawn = [tuple(one.item.key for one in buffer.draw(5, seed)) for seed in (1, 1, 2)]  # pyright: ignore
        assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 5


LINE: dict[str, Any] = {
    "kind": "update",
    "updates": 3,
    "items": 8,
    "policies": {"main": {"loss": 0.5, "version": "3-a"}},
    "rewards": {"solver": {"outcome": 0.25}},
}


class TestTracking:
    def test_numbers_are_told_by_their_path(self) -> None:
        assert flat(LINE) == {
            "update/items": 8,
            "update/policies/main/loss": 0.5,
            "update/rewards/solver/outcome": 0.25,
        }

    def test_a_tracker_that_nobody_asked_for_is_not_imported(self, tmp_path: Path) -> None:
        code = (
            "import pathlib, sys\nfrom experiments.training.tracking import *\n"
            f"with open_trackers([], Training(pathlib.Path({str(tmp_path)!r}))) as tell: tell({LINE!r})\n"
            "print([name for name in TRACKERS if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_tensorboard_is_told(self, tmp_path: Path) -> None:
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        with open_trackers(["tensorboard"], Training(tmp_path)) as tell:
            tell(LINE)
            tell({**LINE, "updates": 4, "items": 9})
        found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert [(point.step, point.value) for point in found.Scalars("update/items")] == [(3, 8), (4, 9)]
        assert found.Scalars("update/policies/main/loss")[0].value == 0.5

    def test_a_tracker_that_fails_stops_nothing_and_shows_no_secret(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        told = []

        @contextmanager
        def failing(training: Training) -> Iterator[Any]:
            def log(values: dict[str, float], step: int) -> None:
                told.append(step)
                raise OSError("https://me:secret@tracker is gone")

            yield log

        def broken(training: Training) -> Any:
            raise OSError("https://me:secret@tracker is not there")

        monkeypatch.setattr("experiments.training.tracking.TRACKERS", {"failing": failing, "broken": broken})
        with open_trackers(["failing"], Training(tmp_path)) as tell:
            tell(LINE)
            tell(LINE)
        assert told == [3] and "tracker failing failed (OSError) and is told no more" in caplog.text
        message = r"tracker broken could not be opened \(OSError\)"
        with pytest.raises(ConfigError, match=message) as refused, open_trackers(["broken"], Training(tmp_path)):
            pass
        assert "secret" not in caplog.text and "secret" not in str(refused.value)

    def test_an_unknown_or_missing_tracker_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("experiments.training.tracking.find_spec", lambda name: None)
        for name, message in (
            ("tensorbord", "did you mean 'tensorboard'"),
            ("wandb", "wandb is not installed: pip install"),
        ):
            with pytest.raises(ConfigError, match=message):
                train("grpo", track=[name], root=tmp_path / "runs", backend="local")
        assert not (tmp_path / "runs").exists()


def test_a_line_that_was_cut_short_is_no_line(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.append({"kind": "update", "updates": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "upd')
    assert training.lines() == [{"kind": "update", "updates": 1}]
    training.keep(lambda line: True)
    training.append({"kind": "update", "updates": 2})
    assert [json.loads(line)["updates"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
