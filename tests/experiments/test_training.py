"""Training runs: what is learned, by whom, and what is recorded of it."""

from pathlib import Path
from typing import Any

import pytest

from agents import Cast, EngineError, Seat
from experiments import Run, run
from experiments.training import Training, resume, train
from experiments.training.registry import Registry
from tests.experiments.training_helpers import (
    SHORT,
    TOKENS,
    even,
    is_right,
    mean_evenness,
    opposite,
    pair,
    trained,
    without_times,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.agents.trainer_helpers import make_model

    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def learned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A run that has learned something."""
    settings = {"iterations": 8, "tasks": 4, "samples": 8, "evaluate_every": 4, "validation_tasks": 2, "test_tasks": 3}
    settings |= {"trainer.learning_rate": 0.05}
    return trained(tmp_path_factory.mktemp("runs"), model, seed=1, name="learned", settings=settings)


def test_what_is_rewarded_is_said_more_often(learned: Training) -> None:
    first, last = (mean_evenness(learned.rollouts(i)) for i in (0, 7))
    assert abs(first - 0.5) < 0.1 and last > first + 0.3
    rewards = [line["rewards"]["solver"]["even"] for line in learned.lines("update")]
    assert rewards == pytest.approx([mean_evenness(learned.rollouts(i)) for i in range(8)])


def test_a_line_an_update_says_what_happened(learned: Training) -> None:
    lines = learned.lines("update")
    assert [line["updates"] for line in lines] == list(range(1, 9))
    for line in lines:
        found = line["policies"]["main"]
        assert {"loss", "kl", "clipped_low", "clipped_high", "entropy", "grad_norm", "staleness", "reward"} <= set(
            found
        )
        assert found["staleness_max"] == 0 and found["gap_max"] < 1e-3 and found["samples"] == line["items"]
        assert {"play", "publish", "credit", "update", "export"} == set(line["seconds"])
    played = [line["policies"]["main"].get("publish_gap") for line in lines]
    assert played[0] is None and all(gap is not None and gap < 1e-3 for gap in played[1:])


def test_every_iteration_is_a_run_of_its_own_played_with_the_weights_before_it(learned: Training) -> None:
    versions = [line["policies"]["main"]["version"] for line in learned.lines("update")]
    seen: set[str] = set()
    for i in range(8):
        rollouts = learned.rollouts(i)
        episodes = list(rollouts.episodes())
        assert rollouts.summary().episodes == 32 and rollouts.config["env"]["split"] == "train"
        assert not seen & {episode.task.id for episode in episodes}, "tasks are new ones every time"
        seen |= {episode.task.id for episode in episodes}
        found = {turn.version for episode in episodes for turn in episode.turns}
        assert len(found) == 1 and (i == 0 or found == {versions[i - 1]})


def test_measurements_are_on_other_tasks_and_the_same_draws(learned: Training) -> None:
    assert [line["updates"] for line in learned.lines("validation")] == [0, 4, 8]
    folders = {name: Run(learned.path / name) for name in ("test/first", "test/last", "validation/0004")}
    assert {name: found.config["env"]["split"] for name, found in folders.items()} == {
        "test/first": "test",
        "test/last": "test",
        "validation/0004": "validation",
    }
    first, last = (list(folders[f"test/{name}"].episodes()) for name in ("first", "last"))
    assert [e.turns[0].seed for e in first] == [e.turns[0].seed for e in last] and len(first) == 3 * 8
    assert mean_evenness(folders["test/last"]) > mean_evenness(folders["test/first"]) + 0.2
    greedy = list(Run(learned.path / "test" / "last-greedy").episodes())
    assert len(greedy) == 3 and {turn.temperature for episode in greedy for turn in episode.turns} == {0.0}


def test_the_weights_that_are_kept_are_those_that_played(learned: Training, model: Path) -> None:
    registry = Registry.open(learned.path / "policies")
    versions = registry.versions("main")
    assert [version.updates for version in versions] == list(range(9))
    assert [version.updates for version in versions if version.on_disk and (registry.path(version)).is_dir()] == [0, 8]
    assert registry.path(versions[0]) == model
    cast = Cast(Seat(model=f"hf:{registry.path(versions[-1])}", max_tokens=TOKENS))
    again = run("solo", "arithmetic", cast, tasks=3, samples=8, seed=1, backend="local", root=learned.path / "again",
                settings={"env.level": 2})  # fmt: skip
    last = Run(learned.path / "test" / "last")
    assert again.summary().digest == last.summary().digest


def test_a_finished_run_is_left_as_it_is(learned: Training) -> None:
    before = (learned.path / "metrics.jsonl").read_bytes()
    assert resume(learned.path, recipe=even).finished
    assert (learned.path / "metrics.jsonl").read_bytes() == before


def test_the_same_seed_is_the_same_run_and_another_is_not(tmp_path: Path, model: Path) -> None:
    runs = [trained(tmp_path, model, seed=seed, settings={"iterations": 2}) for seed in (1, 1, 2)]
    same, again, other = map(without_times, runs)
    assert same == again != other


@pytest.mark.ray
@pytest.mark.usefixtures("ray_started")
@pytest.mark.parametrize("workers", [0, 1])
def test_on_ray_it_is_the_same_run_as_in_one_process(tmp_path: Path, model: Path, workers: int) -> None:
    settings = {"iterations": 2, "test_tasks": 2}
    remote = trained(tmp_path, model, seed=1, backend="ray", settings={**settings, "cluster.rollout_workers": workers})
    assert without_times(remote) == without_times(trained(tmp_path, model, seed=1, settings=settings))


def test_a_learning_rate_of_0_changes_nothing(tmp_path: Path, model: Path) -> None:
    found = trained(tmp_path, model, settings={"trainer.learning_rate": 0, "test_tasks": 2, "test_samples": 2})
    hashes = {line["policies"]["main"]["version"].partition("-")[2] for line in found.lines("update")}
    assert len(hashes) == 1
    digests = {Run(found.path / "test" / name).summary().digest for name in ("first", "last")}
    assert len(digests) == 1


def test_shuffled_rewards_are_the_same_rewards_for_other_turns(model: Path, learned: Training) -> None:
    from experiments.training.recipe import policy_gradient
    from experiments.training.schedule import Schedule

    episodes = list(learned.rollouts(0).episodes())
    plain, mixed, again = (
        policy_gradient(episodes, even, Schedule(advantage="raw", shuffle_rewards=shuffle, drop_even=False), 5).items
        for shuffle in (False, True, True)
    )
    assert mixed == again and [sample.key for sample in mixed] == [sample.key for sample in plain]  # pyright: ignore
    assert sorted(s.advantage for s in mixed) == sorted(s.advantage for s in plain)  # pyright: ignore
    moved = sum(a.advantage != b.advantage for a, b in zip(plain, mixed, strict=True))  # pyright: ignore
    assert moved > len(plain) / 2


@pytest.mark.model
@pytest.mark.slow
def test_two_roles_with_policies_of_their_own_learn_opposite_things(tmp_path: Path) -> None:
    settings = {
        "iterations": 6,
        "tasks": 12,
        "env.level": 8,
        "evaluate_every": 0,
        "test_tasks": 0,
        "policy.rank": 8,
        "honest.policy": "honest",
        "liar.policy": "liar",
    }
    training = train(opposite, pair, seed=1, settings=settings, backend="local", root=tmp_path)
    registry = Registry.open(training.path / "policies")
    adapters = {name: str(registry.path(registry.current(name))) for name in ("honest", "liar")}
    for episode in training.rollouts(5).episodes():
        assert [(turn.role, turn.policy) for turn in episode.turns] == [("honest", "honest"), ("liar", "liar")]

    def right(honest: str | None, liar: str | None) -> dict[str, float]:
        """Role -> share of right answers on tasks of the test split, played with these adapters."""
        seats = Cast(honest=Seat(adapter=honest), liar=Seat(adapter=liar))
        played = run(pair, "arithmetic", seats, tasks=60, settings={"env.level": 8}, backend="local", root=tmp_path)
        found = [(turn.role, is_right(episode, turn)) for episode in played.episodes() for turn in episode.turns]
        return {role: sum(r for name, r in found if name == role) / 60 for role in ("honest", "liar")}

    base, own = right(None, None), right(adapters["honest"], adapters["liar"])
    swapped = right(adapters["liar"], adapters["honest"])
    assert own["liar"] < base["liar"] - 0.25, "it has learned to be wrong"
    assert own["honest"] > base["honest"] - 0.1, "and the other has not"
    assert own["honest"] - own["liar"] > 0.3
    assert swapped["liar"] - swapped["honest"] > 0.3


def test_roles_on_models_of_their_own_have_policies_of_their_own(tmp_path: Path, model: Path) -> None:
    from tests.agents.trainer_helpers import make_model

    other = make_model(tmp_path / "other", seed=7)
    seats = Cast(honest=Seat(model=f"hf:{model}", max_tokens=TOKENS), liar=Seat(model=f"hf:{other}", max_tokens=TOKENS))
    found = train(even, pair, "arithmetic", seats, settings=SHORT, backend="local", root=tmp_path)
    for line in found.lines("update"):
        assert {name for name, metrics in line["policies"].items() if metrics["loss"]} == {"honest", "liar"}
    last = found.rollouts(2)
    used = {turn.role: turn.version for episode in last.episodes() for turn in episode.turns}
    assert used == last.config["weights"] and len(set(used.values())) == 2


def test_a_graph_that_does_not_say_whom_it_asks_learns_node_by_node(tmp_path: Path, model: Path) -> None:
    from langgraph.graph import END, START, MessagesState, StateGraph

    from graphs import chat_model

    async def propose(state: MessagesState) -> Any:
        return {"messages": [await chat_model("solver").ainvoke(state["messages"])]}

    async def object_(state: MessagesState) -> Any:
        return {"messages": [await chat_model("critic").ainvoke(state["messages"][:1])]}

    graph = StateGraph(MessagesState)
    graph.add_sequence([propose, object_])
    graph.add_edge(START, "propose")
    graph.add_edge("object_", END)
    cast = Cast.all(f"hf:{model}", max_tokens=TOKENS)
    settings = {**SHORT, "policy.rank": 4, "roles": "critic"}
    found = train(even, graph.compile(), "arithmetic", cast, settings=settings, backend="local", root=tmp_path)
    assert all(set(line["rewards"]) == {"critic"} for line in found.lines("update"))
    turns = [turn for episode in found.rollouts(2).episodes() for turn in episode.turns]
    assert {turn.role for turn in turns} == {"solver", "critic"}
    assert {turn.policy for turn in turns if turn.role == "critic"} == {"main"}


def test_with_a_lag_iterations_are_played_with_older_weights_and_no_others(tmp_path: Path, model: Path) -> None:
    found = trained(tmp_path, model, settings={"iterations": 5, "lag": 2})
    lines = found.lines("update")
    assert [line["policies"]["main"]["staleness"] for line in lines] == [0, 1, 2, 2, 2]
    versions = [found.rollouts(i).config["weights"]["main"] for i in range(5)]
    learned = [line["policies"]["main"]["version"] for line in lines]
    assert versions[:3] == [versions[0]] * 3 and versions[3:] == learned[:2]
    assert without_times(found) == without_times(
        trained(tmp_path, model, name="again", settings={"iterations": 5, "lag": 2})
    )


def test_a_publish_that_hangs_stops_the_run_at_its_deadline_and_resuming_finishes_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from agents.engines.transformers import TransformersEngine

    publish, hangs = TransformersEngine.publish, [True]

    async def hanging(self: Any, policy: str, version: str, source: Path) -> None:
        if version.startswith("2-") and hangs:
            await asyncio.Event().wait()
        await publish(self, policy, version, source)

    monkeypatch.setattr(TransformersEngine, "publish", hanging)
    settings = {"pool.publish_s": 3}
    with pytest.raises(EngineError) as stopped:
        trained(tmp_path, model, name="hung", settings=settings)
    message = str(stopped.value)
    assert "publishing version 2-" in message and "was not done within 3 s" in message
    assert "every replica has the weights that it had before" in message
    assert "stopped after 2 of 3 updates" in message and "palaestra resume hung" in message
    hangs.clear()
    whole = trained(tmp_path, model, name="whole", settings=settings)
    assert without_times(resume("hung", tmp_path, recipe=even)) == without_times(whole)


def test_an_iteration_in_which_nobody_can_play_stops_the_run(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.engines.transformers import TransformersEngine

    complete = TransformersEngine.complete

    async def dying(self: Any, request: Any) -> Any:
        if self.version.startswith("1-"):
            raise EngineError("the GPU is gone")
        return await complete(self, request)

    monkeypatch.setattr(TransformersEngine, "complete", dying)
    with pytest.raises(
        EngineError, match=r"rollouts 0001: not one episode ended; EngineError: the GPU is gone; the run"
    ):
        trained(tmp_path, model, name="lost")
    assert [line["updates"] for line in Training.open("lost", tmp_path).lines("update")] == [1]


def test_weights_that_are_no_numbers_are_never_played_with(tmp_path: Path, model: Path) -> None:
    with pytest.raises(EngineError, match=r"log-probability nan .*; the run stopped after 1 of 3 updates"):
        trained(tmp_path, model, name="wild", settings={"trainer.learning_rate": 1e30, "trainer.max_grad_norm": "1e30"})


def test_nothing_is_left_behind_of_a_run_that_could_not_begin(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise EngineError("no memory for it")

    monkeypatch.setattr("agents.learning.policies.load_whole", broken)
    with pytest.raises(EngineError, match=r"^no memory for it$"):
        trained(tmp_path, model, name="none")
    assert not (tmp_path / "none").exists()
