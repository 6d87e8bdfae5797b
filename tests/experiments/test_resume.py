"""Going on with what was cut short: what is played, what has to be given again, and what is refused."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import Cast, EngineError, Request, ScriptedEngine, Seat
from envs import ConfigError
from envs.types import Task
from experiments import Run, resume, run, sweep
from experiments.arguments import arguments_again, store_arguments
from experiments.command import main
from experiments.folder import LOCK, held
from experiments.runs import RESULT
from experiments.store import StoreError, StoreWriter
from graphs import solo
from tests.conftest import WordEnv

TASKS = 12


def reply(request: Request) -> str:
    return f"\\boxed{{{request.seed % 5}}}"


class Counting(ScriptedEngine):
    """Counts what it is asked; fails, with whose key it is told."""

    def __init__(self, failing: str = "") -> None:
        super().__init__(reply)
        self.asked: list[str] = []
        self.failing = failing

    async def complete(self, request: Request) -> Any:
        self.asked.append(request.key)
        if self.failing and self.failing in request.key:
            raise EngineError("the server is gone")
        return await super().complete(request)


def play(root: Path, engine: Any = None, topology: Any = "solo", **options: Any) -> Run:
    options = {"tasks": TASKS, "backend": "local", "name": "cut", "concurrency": 2, **options}
    return run(topology, options.pop("env", "arithmetic"), Cast.all(engine or Counting()), root=root, **options)


@pytest.fixture
def cut_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the disk fail after so many episodes, once."""
    append, left = StoreWriter.append, [10**9]

    async def failing(writer: StoreWriter, *item: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StoreError("the disk is full")
        await append(writer, *item)

    def cut(episodes: int) -> None:
        left[0] = episodes

    monkeypatch.setattr(StoreWriter, "append", failing)
    return cut


def cut_short(root: Path, cut_after: Any, **options: Any) -> None:
    cut_after(5)
    with pytest.raises(StoreError, match="the disk is full") as raised:
        play(root, **options)
    assert raised.value.__notes__ == ["palaestra resume cut goes on from there"]
    cut_after(10**9)


def test_only_what_is_missing_is_played(tmp_path: Path, cut_after: Any) -> None:
    unbroken = play(tmp_path, name="unbroken").summary()
    cut_short(tmp_path, cut_after)
    assert Run.open("cut", tmp_path).summary().episodes == 5
    engine = Counting()
    finished = resume("cut", tmp_path, cast=Cast.all(engine))
    assert isinstance(finished, Run) and len(engine.asked) == TASKS - 5
    summary = finished.summary()
    assert (summary.digest, summary.episodes) == (unbroken.digest, TASKS)
    assert summary.seconds is None, "nobody knows how long it took"
    assert resume("cut", tmp_path) == finished, "what is finished is left alone"
    assert len(engine.asked) == TASKS - 5


def test_what_python_gave_ready_made_has_to_be_given_again(tmp_path: Path, cut_after: Any) -> None:
    cut_short(tmp_path, cut_after, topology=solo(), env=WordEnv())
    with pytest.raises(ConfigError, match=r"its topology ready-made in Python.*experiments\.resume\('cut', topology="):
        resume("cut", tmp_path)
    with pytest.raises(ConfigError, match="its env ready-made"):
        resume("cut", tmp_path, topology=solo())
    with pytest.raises(ConfigError, match="its cast ready-made"):
        resume("cut", tmp_path, topology=solo(), env=WordEnv())
    finished = resume("cut", tmp_path, topology=solo(), env=WordEnv(), cast=Cast.all(Counting()))
    assert isinstance(finished, Run) and finished.summary().episodes == TASKS


def test_so_does_a_setting_that_is_no_plain_value(tmp_path: Path, cut_after: Any) -> None:
    settings = {"solver.model": Counting(), "solver.temperature": 0.5}
    cut_short(tmp_path, cut_after, settings=settings)
    with pytest.raises(ConfigError, match=r"its solver\.model ready-made.*settings=\{'solver\.model': …\}"):
        resume("cut", tmp_path, cast=Cast.all(Counting()))
    finished = resume("cut", tmp_path, cast=Cast.all(Counting()), settings={"solver.model": Counting()})
    assert isinstance(finished, Run) and finished.summary().episodes == TASKS
    assert {turn.temperature for episode in finished.episodes() for turn in episode.turns} == {0.5}


def test_what_would_be_played_otherwise_is_refused(tmp_path: Path, cut_after: Any) -> None:
    cut_short(tmp_path, cut_after)
    with pytest.raises(ConfigError, match=r"its cast was .* and is now .*; bring back what it was"):
        resume("cut", tmp_path, cast=Cast.all(Counting(), temperature=0.5))

    class Others(WordEnv):
        name = "arithmetic"

    with pytest.raises(ConfigError, match="its env was "):
        resume("cut", tmp_path, cast=Cast.all(Counting()), env=Others())
    assert Run.open("cut", tmp_path).summary().episodes == 5


def test_tasks_that_have_changed_are_refused(tmp_path: Path, cut_after: Any) -> None:
    class Others(WordEnv):
        def tasks(self, n: int | None = None, split: Any = "test") -> list[Task]:
            return list(super().tasks(n, split))[::-1]

    cut_short(tmp_path, cut_after, env=WordEnv())
    with pytest.raises(ConfigError, match=r"the task of episode 1 was 'words-0', and is now 'words-11'; bring back"):
        resume("cut", tmp_path, cast=Cast.all(Counting()), env=Others())


def test_failed_episodes_are_asked_again_when_that_is_wanted_and_their_failures_kept(tmp_path: Path) -> None:
    unbroken = play(tmp_path, name="unbroken").summary()
    first = next(unbroken_run.task.id for unbroken_run in Run.open("unbroken", tmp_path).episodes())
    broken = play(tmp_path, Counting(failing=f"{first}/"))
    assert broken.summary().failed == 1
    again = Counting()
    assert resume("cut", tmp_path, cast=Cast.all(again)) == broken and not again.asked
    resume("cut", tmp_path, failed=True, cast=Cast.all(Counting(failing=f"{first}/")))
    assert broken.summary().failed == 1
    resume("cut", tmp_path, failed=True, cast=Cast.all(again))
    assert again.asked == [f"{first}/0/solver/0"]
    assert (broken.summary().digest, broken.summary().failed) == (unbroken.digest, 0)
    kept = broken.store.rows("SELECT position, failure FROM failed_before")
    assert kept == [(0, "EngineError: the server is gone")] * 2
    with sqlite3.connect(broken.path / "episodes.db") as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("DELETE FROM episodes WHERE position = 0")


def test_what_was_not_played_by_run_is_refused(tmp_path: Path, cut_after: Any) -> None:
    cut_short(tmp_path, cut_after)
    config = tmp_path / "cut" / "config.json"
    stored = json.loads(config.read_text())
    del stored["arguments"]
    config.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match="does not say what it was asked for"):
        resume("cut", tmp_path)
    with pytest.raises(ConfigError, match=r"no run 'cat' in .*; did you mean 'cut'"):
        resume("cat", tmp_path)


def test_one_process_at_a_time_writes_and_anybody_reads(tmp_path: Path) -> None:
    played = play(tmp_path)
    (played.path / RESULT).unlink()
    with held(played.path):
        assert Run.open("cut", tmp_path).summary().episodes == TASKS
        with pytest.raises(ConfigError, match=r"run cut is being written by process \d+ on .*; wait until"):
            resume("cut", tmp_path, cast=Cast.all(Counting()))
    assert resume("cut", tmp_path, cast=Cast.all(Counting())) == played
    assert (played.path / RESULT).is_file()


def test_a_folder_whose_maker_was_killed_at_once_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / LOCK).touch()
    assert play(tmp_path).summary().episodes == TASKS


def test_a_sweep_is_gone_on_with_and_its_failed_episodes_asked_again(tmp_path: Path, cut_after: Any) -> None:
    file = tmp_path / "model.jsonl"

    def record(roles: tuple[str, ...]) -> None:
        rows = [
            {"task": task.id, "role": role, "replies": ["\\boxed{yes}", "\\boxed{no}"] * 20}
            for task in WordEnv().tasks(TASKS)
            for role in roles
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def swept(name: str) -> Any:
        topologies = ["solo", "society,agents=2,rounds=2"]
        return sweep(topologies, WordEnv(), [f"replay:{file}"], tasks=TASKS, backend="local", root=tmp_path, name=name)

    record(("solver", "debater_1", "debater_2"))
    unbroken = swept("unbroken")
    cut_after(TASKS + 3)
    with pytest.raises(StoreError) as raised:
        swept("cut")
    assert raised.value.__notes__ == ["palaestra resume cut goes on from there"]
    cut_after(10**9)
    with pytest.raises(ConfigError, match="its env ready-made"):
        resume("cut", tmp_path)
    finished = resume("cut", tmp_path, env=WordEnv())
    assert getattr(finished, "table", None) == unbroken.table

    record(("solver",))
    failed = swept("failed")
    assert failed.entries[1].failed == TASKS
    record(("solver", "debater_1", "debater_2"))
    again = resume("failed", tmp_path, env=WordEnv(), failed=True)
    assert getattr(again, "table", None) == unbroken.table
    digests = [[one.summary().digest for one in found.runs()] for found in (failed, unbroken)]
    assert digests[0] == digests[1]


names = st.text("abc", min_size=1, max_size=3)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=4
)
seats = st.builds(
    Seat,
    model=st.sampled_from(["embedded", "openai:a@http://127.0.0.1/v1"]),
    temperature=st.floats(0, 2),
    stop=st.lists(st.text(min_size=1), max_size=2),
)


@given(st.dictionaries(names, plain), st.none() | seats, st.dictionaries(names, seats, max_size=2))
def test_plain_arguments_come_back_as_they_were(settings: dict[str, Any], default: Any, others: Any) -> None:
    cast = Cast(default, **others)
    asked = {"topology": "solo", "tasks": None, "cast": cast, "settings": settings}
    stored = json.loads(json.dumps(store_arguments(asked)))
    again = arguments_again(stored, {}, "x")
    assert {key: again[key] for key in ("topology", "tasks", "settings")} == {
        key: asked[key] for key in ("topology", "tasks", "settings")
    }
    assert (again["cast"].default, again["cast"].seats) == (cast.default, cast.seats)
    fields = [seat.model_fields_set for seat in cast.seats.values()]
    assert [seat.model_fields_set for seat in again["cast"].seats.values()] == fields


def test_the_command_finishes_a_run_and_says_what_it_came_to(
    tmp_path: Path, cut_after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from envs import Arithmetic

    file = tmp_path / "sums.jsonl"
    rows = [{"task": task.id, "role": "solver", "replies": ["\\boxed{1}"]} for task in Arithmetic().tasks(TASKS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    runs = ["--runs", str(tmp_path)]
    asked = ["run", "solo", "--env", "arithmetic", "--tasks", str(TASKS), "--backend", "local", "--name", "cut"]
    cut_after(5)
    assert main([*asked, "--model", f"replay:{file}", *runs]) == 1
    assert "StoreError: the disk is full; palaestra resume cut goes on from there" in capsys.readouterr().err
    cut_after(10**9)
    assert main(["resume", "cut", "--json", *runs]) == 1, "an episode failed"
    printed = capsys.readouterr()
    assert json.loads(printed.out)["episodes"] == TASKS and "palaestra resume --failed cut" in printed.err
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["resume", "cut", "--failed", "--json", *runs]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == 0
