"""Runs from Python: the same episodes at any concurrency, failures stored and counted, bad arguments found first."""

import asyncio
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agents import Cast, EngineError, Request, ScriptedEngine, Seat
from agents.types import seed_of
from envs import Arithmetic, ConfigError, Env, Verdict
from envs.types import Task
from experiments import Run, list_runs, run
from graphs import Graph, Stage, Table, society, solo, solve


def reply(request: Request) -> str:
    """A reply that depends on what is asked and on its seed, as a model's does."""
    if "/moderator/" in request.key:
        yes = request.seed % 3 == 0
        return json.dumps({"reason": "", "preference": "Yes" if yes else "No", "answer": "7" if yes else ""})
    if "/judge/" in request.key:
        return '{"reason": "", "answer": "7"}'
    return f"\\boxed{{{request.seed % 5}}}"


class Jittery(ScriptedEngine):
    """Answers in an order that has nothing to do with that of the requests."""

    async def complete(self, request: Request) -> Any:
        await asyncio.sleep((seed_of(request.key, "delay") % 7) / 1000)
        return await super().complete(request)


def play(tmp_path: Path, topology: Any = "mad", **options: Any) -> Run:
    options = {"cast": Cast.all(Jittery(reply)), "tasks": 20, "backend": "local", "root": tmp_path, **options}
    return run(topology, options.pop("env", "arithmetic"), options.pop("cast"), **options)


def ending_with(update: dict[str, Any]) -> Graph:
    async def end(state: Table) -> dict[str, Any]:
        return update

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("end", end)
    graph.add_edge(START, "end")
    graph.add_edge("end", END)
    return graph.compile()


@pytest.mark.parametrize("topology", ["solo", "vote", "society", "mad"])
def test_the_digest_is_the_same_at_any_concurrency(tmp_path: Path, topology: str) -> None:
    digests = {
        play(tmp_path, topology, concurrency=concurrency, seed=7, samples=2, name=f"c{concurrency}").summary().digest
        for concurrency in (1, 64)
    }
    assert len(digests) == 1
    assert play(tmp_path, topology, seed=8, samples=2).summary().digest not in digests


def test_a_run_can_be_opened_again(tmp_path: Path) -> None:
    played = play(tmp_path, name="mine", seed=1, settings={"rounds": "2", "env.level": "3", "judge.temperature": "0"})
    opened = Run.open("mine", tmp_path)
    assert opened.summary() == played.summary()
    config = opened.config
    assert config["topology"] == {"name": "mad", "settings": {"rounds": 2}}
    assert config["cast"]["judge"]["temperature"] == 0 and config["cast"]["negative"]["temperature"] == 1
    for episode in opened.episodes(0, 3):
        times = [time for turn in episode.turns for time in (turn.asked_s, turn.answered_s)]
        assert times == sorted(times) and times[-1] <= episode.seconds
    assert config["env"]["settings"] == {"level": "3"} and config["seed"] == 1
    assert [e.task.details["level"] for e in opened.episodes(0, 2)] == [3, 3]
    assert list_runs(tmp_path) == [opened]
    frame = opened.to_pandas()
    assert len(frame) == 20 and set(frame["status"]) <= {"correct", "incorrect", "unparsed"}
    with pytest.raises(ConfigError, match=r"no run 'mined' in .*; did you mean 'mine'"):
        Run.open("mined", tmp_path)


def test_tasks_are_the_same_for_every_seed(tmp_path: Path) -> None:
    runs = [play(tmp_path, "solo", seed=seed) for seed in (1, 2)]
    assert [e.task for e in runs[0].episodes()] == [e.task for e in runs[1].episodes()]


def test_samples_of_a_task_differ(tmp_path: Path) -> None:
    episodes = list(play(tmp_path, "solo", tasks=3, samples=4).episodes())
    assert [(e.task.id, e.sample) for e in episodes] == [(t.id, s) for t in Arithmetic().tasks(3) for s in range(4)]
    assert len({e.turns[0].seed for e in episodes}) == 12


def test_a_failed_call_fails_its_episode_and_the_run_goes_on(tmp_path: Path) -> None:
    unlucky = Arithmetic().tasks(20)[4].id

    def sometimes(request: Request) -> str:
        if request.key.startswith(unlucky) and request.key.endswith("debater_2/1"):
            raise EngineError("the server\nis gone")
        return reply(request)

    runs = [play(tmp_path, "society", cast=Cast.all(Jittery(sometimes)), concurrency=c) for c in (1, 64)]
    played, summary = runs[0], runs[0].summary()
    assert summary.digest == runs[1].summary().digest, "which turns it keeps does not depend on timing"
    assert (summary.episodes, summary.failed) == (20, 1)
    failed = played.find("failed")
    assert failed.task.id == unlucky and failed.failure == "EngineError: the server is gone"
    assert [turn.id for turn in failed.turns] == [
        f"debater_{i}/{r}" for r, i in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 3))
    ]
    assert failed.verdict is None
    assert len(played.scores()) == 19, "a failed episode is not a wrong answer"


def test_a_defect_in_a_users_graph_fails_episodes(tmp_path: Path) -> None:
    async def broken(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        update = await solve(state, runtime, ["solver"])
        raise ZeroDivisionError("my mistake")
        return update

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("broken", broken)
    graph.add_edge(START, "broken")
    graph.add_edge("broken", END)
    played = play(tmp_path, graph.compile(), tasks=3)
    assert played.summary().failed == 3
    assert {e.failure for e in played.episodes()} == {"ZeroDivisionError: my mistake"}
    assert {len(e.turns) for e in played.episodes()} == {1}


def endless() -> Graph:
    async def on_and_on(state: Table, runtime: Runtime[Stage]) -> dict[str, Any]:
        return await solve(state, runtime, ["solver"])

    graph = StateGraph(Table, context_schema=Stage)
    graph.add_node("on_and_on", on_and_on)
    graph.add_edge(START, "on_and_on")
    graph.add_edge("on_and_on", "on_and_on")
    return graph.compile()


def test_a_graph_that_never_ends_is_ended(tmp_path: Path) -> None:
    played = play(tmp_path, endless, tasks=1)
    assert "GraphRecursionError" in (next(played.episodes()).failure or "")


class Moody(Arithmetic):
    """An env with a defect in its judge."""

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        raise RuntimeError("cannot judge")


def test_an_env_that_cannot_judge_gives_unscorable(tmp_path: Path) -> None:
    played = play(tmp_path, "solo", env=Moody(), tasks=3)
    summary = played.summary()
    assert (summary.unscorable, summary.failed, summary.accuracy, summary.ci95) == (3, 0, None, None)
    assert {e.verdict.reason for e in played.episodes() if e.verdict} == {"RuntimeError in arithmetic: cannot judge"}


def test_runs_work_where_an_event_loop_runs(tmp_path: Path) -> None:
    async def notebook() -> int:
        return play(tmp_path, "solo", tasks=2).summary().episodes

    assert asyncio.run(notebook()) == 2


def test_a_users_topology_and_env_by_their_place(tmp_path: Path) -> None:
    here = "tests.experiments.test_runner"
    played = play(
        tmp_path, f"{here}:my_society", env=f"{here}:my_env", tasks=2, settings={"agents": "2", "env.level": "1"}
    )
    assert [e.calls for e in played.episodes()] == [4, 4]
    assert next(played.episodes()).task.details["level"] == 1
    for topology, message in (
        (f"{here}:no_such", "has no function no_such"),
        ("no.such.module:f", r"cannot import no\.such\.module"),
        (f"{here}:", "expected module:function"),
    ):
        with pytest.raises(ConfigError, match=message):
            play(tmp_path, topology)


def my_society(agents: int = 3) -> Graph:
    return society(agents=agents)


def my_env(level: int = 2) -> Env:
    return Arithmetic(level)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topology": "madd"}, "unknown topology 'madd'; did you mean 'mad'"),
        ({"env": "arithmatic"}, "unknown env 'arithmatic'; did you mean 'arithmetic'"),
        ({"settings": {"env.levle": 3}}, "unknown setting of env arithmetic: 'levle'; did you mean 'level'"),
        ({"settings": {"env.level": 9}}, "level must be 1 to 8, found 9"),
        ({"settings": {"env.level": "high"}}, "env arithmetic: level cannot be 'high'"),
        ({"settings": {"roundz": 3}}, "unknown setting of topology mad: 'roundz'; did you mean 'rounds'"),
        (
            {"settings": {"jugde.model": "embedded"}},
            r"unknown role in setting 'jugde\.model'; did you mean 'judge\.model'",
        ),
        ({"settings": {"judge.modle": "embedded"}}, "unknown setting of role judge: 'modle'; did you mean 'model'"),
        ({"settings": {"judge.model": "hf:/nowhere"}}, r"no config\.json in /nowhere"),
        ({"settings": {"engine.devise": "cuda"}}, "unknown setting of the engine: 'devise'; did you mean 'device'"),
        ({"settings": {"engine.device": "tpu"}}, "the engine: device cannot be 'tpu'"),
        ({"settings": {"pool.replicas": "two"}}, "the pool: replicas cannot be 'two'"),
        ({"settings": {"pool.replicas": "0"}}, "the pool: replicas cannot be '0'"),
        ({"settings": {"engine.max_batch": "0"}}, "the engine: max_batch cannot be '0'"),
        ({"topology": solo(), "settings": {"rounds": 3}}, "rounds: the graph is given ready-made"),
        ({"tasks": 0}, "tasks: expected a whole number of at least 1, found 0"),
        ({"samples": 0}, "samples: expected"),
        ({"concurrency": -1}, "concurrency: expected"),
        ({"cast": "hff:x"}, "unknown kind of model 'hff'"),
        ({"cast": Cast(solver="embedded")}, "unknown role 'affirmative'"),
        ({"name": "a/b"}, "expected a plain folder name"),
        ({"name": ".hidden"}, "expected a plain folder name"),
    ],
)
def test_bad_arguments_are_found_before_anything_is_made(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    options = {"cast": Cast.all(ScriptedEngine(reply)), **options}
    with pytest.raises(ConfigError, match=message):
        play(tmp_path / "runs", options.pop("topology", "mad"), **options)
    assert not (tmp_path / "runs").exists()


def test_a_name_that_is_taken_is_refused_and_the_run_is_left_alone(tmp_path: Path) -> None:
    digest = play(tmp_path, "solo", name="mine").summary().digest
    with pytest.raises(ConfigError, match="'mine' is already in"):
        play(tmp_path, "mad", name="mine")
    assert Run.open("mine", tmp_path).summary().digest == digest


def test_runs_without_a_name_that_start_at_once_each_have_their_own_folder(tmp_path: Path) -> None:
    made = [play(tmp_path, "solo") for _ in range(3)]
    assert len({run.name for run in made}) == len(list_runs(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the run to"):
        play(tmp_path / "file", "solo")


def test_a_model_that_does_not_load_leaves_no_run_behind(tmp_path: Path) -> None:
    def broken() -> Any:
        raise EngineError("no memory for it")

    with pytest.raises(EngineError, match="no memory for it"):
        play(tmp_path, "solo", cast=Cast.all(broken), name="mine")
    assert list_runs(tmp_path) == [] and not (tmp_path / "mine").exists()
    play(tmp_path, "solo", name="mine")


@pytest.mark.parametrize("update", [{"answer": 7}, {"answer": ["7"]}, {"answer": "7", "stop_reason": None}])
def test_a_graph_that_ends_with_no_text_fails_its_episodes(tmp_path: Path, update: dict[str, Any]) -> None:
    played = play(tmp_path, ending_with(update), tasks=2)
    assert played.summary().failed == 2
    assert "expected text as answer and stop_reason" in (next(played.episodes()).failure or "")


def test_an_episode_that_cannot_be_stored_is_a_failed_one_and_the_run_goes_on(tmp_path: Path) -> None:
    played = play(tmp_path, ending_with({"answer": "half \ud83d", "stop_reason": "x"}), tasks=2)
    assert played.summary().failed == 2
    assert all("cannot be stored: " in (episode.failure or "") for episode in played.episodes())


def test_envs_without_tasks_or_with_one_twice_are_refused(tmp_path: Path) -> None:
    class Odd(Arithmetic):
        def tasks(self, n: int | None = None, split: Any = "test") -> list[Task]:
            return super().tasks(1) * (n or 0)

    with pytest.raises(ConfigError, match="occurs twice"):
        play(tmp_path / "runs", "solo", env=Odd(), tasks=2)
    with pytest.raises(ConfigError, match="has no test tasks"):
        play(tmp_path / "runs", "solo", env=Odd(), tasks=None)
    assert not (tmp_path / "runs").exists()


def test_an_env_class_of_ones_own_needs_no_constructor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_env.py").write_text(
        "from envs import Task, Verdict\n"
        "class Mine:\n"
        "    name = 'mine'\n"
        "    def tasks(self, n=None, split='test'):\n"
        "        return [Task(id=str(i), question='?', answers=('1',)) for i in range(n or 3)]\n"
        "    async def judge(self, task, answer):\n"
        "        return Verdict.correct()\n"
        "    async def group(self, answers):\n"
        "        return [0 for _ in answers]\n"
        "def nothing():\n"
        "    return None\n"
    )
    assert play(tmp_path, "solo", env="mine_env:Mine", tasks=None).summary().episodes == 3
    with pytest.raises(ConfigError, match="expected an env with name, tasks, judge and group, found None"):
        play(tmp_path, "solo", env="mine_env:nothing")


def test_only_the_models_of_roles_that_play_are_opened(tmp_path: Path) -> None:
    def unwanted() -> Any:
        raise AssertionError("nobody plays it")

    cast = Cast(unwanted, solver=ScriptedEngine(reply))
    assert play(tmp_path, "solo", cast=cast).summary().model == "python:ScriptedEngine"


def test_an_engine_that_was_given_is_left_open(tmp_path: Path) -> None:
    closed = []

    class Closing(ScriptedEngine):
        async def close(self) -> None:
            closed.append(self)

    engine = Closing(reply)
    play(tmp_path, "solo", cast=Cast.all(engine))
    assert not closed
    play(tmp_path, "solo", cast=Cast.all(lambda: engine))
    assert closed == [engine]


def test_an_interrupted_notebook_cell_stops_its_run(tmp_path: Path) -> None:
    class Interrupting(ScriptedEngine):
        async def complete(self, request: Request) -> Any:
            if request.key.endswith("/0/solver/0") and not sent:
                sent.append(os.kill(os.getpid(), signal.SIGINT))
            await asyncio.sleep(30)

    sent: list[Any] = []

    async def cell() -> None:
        play(tmp_path, "solo", cast=Cast.all(Interrupting(reply)))

    loop = asyncio.new_event_loop()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(cell())
    loop.close()
    assert not any(thread.is_alive() for thread in threading.enumerate() if thread.name == "palaestra run")


@pytest.mark.model
def test_the_digest_of_a_real_debate_is_the_same_again(tmp_path: Path) -> None:
    runs = [
        play(tmp_path, "mad", cast=Cast.all("embedded"), tasks=8, seed=7, concurrency=concurrency).summary()
        for concurrency in (8, 3)
    ]
    assert runs[0].digest == runs[1].digest and runs[0].failed == 0


def test_seats_for_roles_reach_their_calls(tmp_path: Path) -> None:
    cast = Cast(
        Seat(model=ScriptedEngine(reply), temperature=0.9), debater_2=Seat(model=ScriptedEngine(reply, "other"))
    )
    episode = next(play(tmp_path, "society", cast=cast, settings={"debater.temperature": 0.4}).episodes())
    by_role = {turn.role: turn for turn in episode.turns}
    assert by_role["debater_2"].policy == "other" and by_role["debater_2"].temperature == 1.0
    assert {by_role[f"debater_{i}"].temperature for i in (1, 3)} == {0.4}
