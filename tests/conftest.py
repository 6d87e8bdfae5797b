"""Fixtures: recorded data where it is at hand, scripted episodes, and Ray started once for the tests that need it."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

from agents import Cast, ScriptedEngine, open_company
from envs.sandbox import BACKENDS, why_unavailable
from envs.types import Env, Split, Task, Verdict
from graphs import Episode, Topology, build, play

# A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("tests", deadline=None, max_examples=60)
settings.load_profile("tests")

DATA = Path(os.environ.get("PALAESTRA_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data, which is not part of the repository."""
    if not DATA.is_dir():
        pytest.skip(f"the real data is not at {DATA}; set PALAESTRA_DATA to its folder")
    return DATA


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{tmp_path}/"):
            del sys.modules[name]


class WordEnv:
    """An env whose answers are words; equality to the letter."""

    name = "words"

    def tasks(self, n: int | None = None, split: Split = "test") -> Sequence[Task]:
        return [Task(id=f"words-{i}", question=f"Question {i}?", answers=("yes",)) for i in range(n or 5)]

    async def judge(self, task: Task, answer: str | None) -> Verdict:
        if answer is None:
            return Verdict.unparsed()
        return Verdict.correct() if answer in task.answers else Verdict.incorrect()

    async def group(self, answers: Sequence[str]) -> list[int]:
        return [list(answers).index(answer) for answer in answers]


@pytest.fixture
def words() -> Env:
    return WordEnv()


PlayScripted = Callable[..., Episode]


@pytest.fixture
def play_scripted(words: Env) -> PlayScripted:
    """Play a topology with scripted replies; every listed reply must be asked for."""

    def run(
        topology: Callable[..., Any] | Topology,
        script: Any,
        settings: Mapping[str, Any] | None = None,
        env: Env = words,
        task: Task | None = None,
        **options: Any,
    ) -> Episode:
        engine = ScriptedEngine(script)
        played = topology if isinstance(topology, Topology) else build(topology, settings)
        episode = asyncio.run(_play(played, env, task or env.tasks(1)[0], Cast.all(engine), options))
        assert not engine.unused(), f"scripted replies nobody asked for: {engine.unused()}"
        return episode

    return run


async def _play(topology: Topology, env: Env, task: Task, cast: Cast, options: dict[str, Any]) -> Episode:
    async with open_company(cast, topology.roles, backend="local") as company, topology.opened():
        return await play(topology, env, task, company, **options)


@pytest.fixture(scope="session")
def ray_started() -> Iterator[None]:
    """One Ray for all tests of a process that need it."""
    from agents.cluster import connected

    with connected():
        yield


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    """Each kind of sandbox that can run here."""
    if problem := why_unavailable(request.param):
        pytest.skip(f"{request.param}: {problem}")
    return request.param


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """No process is left of those that a test started."""
    before = set(psutil.Process().children(recursive=True))
    yield
    deadline = time.monotonic() + 10
    while left := set(psutil.Process().children(recursive=True)) - before:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)
