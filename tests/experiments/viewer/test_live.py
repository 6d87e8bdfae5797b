"""Live: a page is told of what is stored, as it is stored."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

from envs.types import Env
from experiments.gateway.server import bind, listening, url_of
from experiments.runs import CONFIG, RESULT
from experiments.store import StoreWriter
from experiments.training.training import METRICS
from experiments.viewer.episode_records import Changed
from experiments.viewer.guard import ViewerGuard
from experiments.viewer.library import Library
from experiments.viewer.live import Live
from experiments.viewer.runs_page import read_runs
from experiments.viewer.server import create_app
from tests.experiments.viewer.viewer_helpers import debate

WAIT_S = 30


async def told(changes: AsyncIterator[Changed]) -> Changed:
    return await asyncio.wait_for(anext(changes), WAIT_S)


async def test_runs_are_told_of_as_they_begin_grow_and_end(tmp_path: Path, words: Env) -> None:
    episodes = list(debate(tmp_path / "elsewhere", words).episodes(0, 2))
    root = tmp_path / "runs"
    root.mkdir()
    changes = Live(Library(root), pause_s=0.01).follow(None)
    assert (await told(changes)).runs == []
    (root / "new").mkdir()
    (root / "new" / CONFIG).write_text('{"topology": {"name": "society"}}')
    assert [(run.run, run.episodes) for run in (await told(changes)).runs] == [("new", 0)]
    writer = StoreWriter(root / "new")
    try:
        for position, episode in enumerate(episodes):
            await writer.append(position, episode)
            while (change := (await told(changes)).runs[0]).episodes <= position:
                pass
            assert (change.run, change.episodes, change.state) == ("new", position + 1, "running")
    finally:
        writer.close()
    (root / "new" / RESULT).write_text('{"seconds": 1.0}')
    while (await told(changes)).runs[0].state != "ended":
        pass
    (root / "new").rename(tmp_path / "gone")
    assert (await told(changes)).gone == ["new"]


async def test_a_training_is_told_of_with_its_runs(tmp_path: Path, words: Env) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "training.json").write_text("{}")
    changes = Live(Library(tmp_path), pause_s=0.01).follow("first")
    await told(changes)
    (tmp_path / "first" / METRICS).write_text('{"kind": "update", "updates": 1}\n')
    assert [(run.run, run.episodes) for run in (await told(changes)).runs] == [("first", 1)]
    await asyncio.to_thread(debate, tmp_path / "first" / "rollouts", words, "0000")
    seen: set[str] = set()
    while "first~rollouts~0000" not in seen:
        seen |= {run.run for run in (await told(changes)).runs}


async def test_a_sweep_grows_with_its_runs(tmp_path: Path, words: Env) -> None:
    debate(tmp_path / "sweep", words, "one")
    library = Library(tmp_path)
    changes = Live(library, pause_s=0.01).follow(None)
    await told(changes)
    assert read_runs(library).runs[0].episodes == 1
    await asyncio.to_thread(debate, tmp_path / "sweep", words, "two")
    assert (await told(changes)).runs[0].run == "sweep"
    assert (read_runs(library).runs[0].kind, read_runs(library).runs[0].episodes) == ("sweep", 2)


async def test_a_browser_hears_of_it(tmp_path: Path, words: Env) -> None:
    def hear(url: str) -> list[str]:
        with urllib.request.urlopen(f"{url}/api/events", timeout=WAIT_S) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            data = (line.decode().removeprefix("data: ") for line in stream if line.startswith(b"data:"))
            next(data)
            debate(tmp_path, words)
            return [run["run"] for run in json.loads(next(data))["runs"]]

    at = bind("127.0.0.1", 0)
    async with listening(create_app(tmp_path), at, None, ViewerGuard):
        assert await asyncio.to_thread(hear, url_of(at)) == ["talk"]
