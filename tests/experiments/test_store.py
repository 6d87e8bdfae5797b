"""The trace store: what goes in comes out, acknowledged means on disk, and nothing is changed afterwards."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import results
from agents.types import Message
from envs import ConfigError
from envs.types import Task, Verdict
from experiments.store import FILE, PAGE, StoreReader, StoreWriter
from graphs.turns import Episode, Failure, Turn

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple)
some_results = st.one_of(
    st.none(),
    st.builds(results.Solution, answer=texts),
    st.builds(results.Moderation, preference=st.booleans(), side=st.just("negative"), answer=texts, reason=texts),
    st.builds(results.Critique, correct=st.booleans()),
    st.builds(results.ToolUse, code=texts, answer=st.none()),
)


@st.composite
def turns(draw: Any) -> Turn:
    tokens = draw(ids)
    return Turn(
        id=f"{draw(st.sampled_from(['a', 'b']))}/{draw(st.integers(0, 10**6))}",
        role="a",
        move=draw(texts),
        round=draw(st.integers(0, 9)),
        after=draw(st.integers(0, 9)),
        reads=draw(st.lists(texts, max_size=2).map(tuple)),
        follows=draw(st.one_of(st.none(), texts)),
        messages=draw(st.lists(st.builds(Message, st.just("user"), texts), max_size=2).map(tuple)),
        reply=draw(texts),
        result=draw(some_results),
        failure=draw(st.one_of(st.none(), st.builds(Failure, expected=texts))),
        policy=draw(texts),
        version="1",
        finish="stop",
        temperature=1.0,
        top_p=1.0,
        seed=draw(st.integers(0, 2**63 - 1)),
        prompt_tokens=3,
        completion_tokens=len(tokens),
        prompt_ids=draw(ids),
        token_ids=tokens,
        logprobs=draw(st.lists(st.floats(-50, 0), min_size=len(tokens), max_size=len(tokens)).map(tuple)),
        queue_s=0.25,
    )


@st.composite
def episodes(draw: Any) -> Episode:
    failure = draw(st.one_of(st.none(), texts))
    verdicts = st.sampled_from(
        [Verdict.correct(), Verdict.incorrect("no"), Verdict.unparsed(), Verdict.unscorable("x")]
    )
    return Episode(
        task=Task(
            id=draw(texts),
            question=draw(texts),
            answers=draw(st.lists(texts, max_size=2).map(tuple)),
            details={"k": [1]},
        ),
        sample=0,
        turns=tuple(draw(st.lists(turns(), max_size=3))),
        answer=draw(st.one_of(st.none(), texts)),
        stop_reason=draw(texts),
        verdict=None if failure is not None else draw(verdicts),
        failure=failure,
        seconds=1.5,
    )


def write(directory: Path, stored: Sequence[tuple[int, Episode]]) -> list[Any]:
    async def run() -> list[Any]:
        writer = StoreWriter(directory)
        try:
            return await asyncio.gather(*(writer.append(*item) for item in stored), return_exceptions=True)
        finally:
            writer.close()

    return asyncio.run(run())


def simple(task: str, sample: int = 0) -> Episode:
    return Episode(
        task=Task(id=task, question="q", answers=("a",)),
        sample=sample,
        turns=(),
        answer="a",
        stop_reason="solved",
        verdict=Verdict.correct(),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(episodes(), max_size=4, unique_by=lambda e: e.task.id))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, stored: list[Episode]) -> None:
    directory = tmp_path_factory.mktemp("store")
    assert write(directory, list(enumerate(stored))) == [None] * len(stored)
    reader = StoreReader(directory)
    assert list(reader.episodes()) == stored
    assert [e.digest() for e in reader.episodes()] == [e.digest() for e in stored]
    assert [row["calls"] for row in reader.outcomes()] == [len(e.turns) for e in stored]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.permutations(range(6)))
def test_the_digest_does_not_depend_on_the_order_of_arrival(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    digests = set()
    for positions in (range(6), order):
        directory = tmp_path_factory.mktemp("store")
        write(directory, [(i, simple(f"t{i}")) for i in positions])
        digests.add(StoreReader(directory).digest())
    assert len(digests) == 1


@given(episodes(), episodes())
def test_the_digest_tells_different_play_apart(one: Episode, other: Episode) -> None:
    def played(e: Episode) -> Any:
        said = [(t.role, *((t.prompt_ids, t.token_ids) if t.token_ids else (t.reply, t.messages))) for t in e.turns]
        return (
            e.task.id,
            sorted(said, key=repr),
            e.answer,
            e.stop_reason,
            e.verdict and e.verdict.status,
            e.failure is not None,
        )

    assert (one.digest() == other.digest()) == (played(one) == played(other))
    assert one.digest() == one.model_copy(update={"seconds": 99.0}).digest(), "times are no part of it"


def test_pages(tmp_path: Path) -> None:
    count = 2 * PAGE + 3
    write(tmp_path, [(i, simple(f"t{i}")) for i in range(count)])
    reader = StoreReader(tmp_path)
    assert [e.task.id for e in reader.episodes()] == [f"t{i}" for i in range(count)]
    assert [e.task.id for e in reader.episodes(PAGE - 1, 3)] == [f"t{i}" for i in range(PAGE - 1, PAGE + 2)]
    assert list(reader.episodes(count)) == []
    found = reader.episode(7)
    assert found is not None and found.task.id == "t7"
    assert reader.episode(count) is None


def test_an_episode_is_stored_once_and_one_refused_takes_down_no_other(tmp_path: Path) -> None:
    outcomes = write(tmp_path, [(0, simple("a")), (1, simple("a")), (0, simple("b")), (2, simple("c"))])
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        sqlite3.IntegrityError,
        sqlite3.IntegrityError,
        type(None),
    ]
    assert [e.task.id for e in StoreReader(tmp_path).episodes()] == ["a", "c"]


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM episodes", "UPDATE episodes SET score = 1", "DELETE FROM turns", "UPDATE turns SET role = 'x'"],
)
def test_the_store_is_append_only(tmp_path: Path, change: str) -> None:
    turn = Turn(
        id="a/0", role="a", move="m", round=1, after=0, reads=(), follows=None, messages=(), reply="", policy="p",
        version="1", finish="stop", temperature=1, top_p=1, seed=0, prompt_tokens=0, completion_tokens=0,
    )  # fmt: skip
    write(tmp_path, [(0, simple("a").model_copy(update={"turns": (turn,)}))])
    with sqlite3.connect(tmp_path / FILE) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(change)


@pytest.mark.parametrize("name", ["try#2", "what?", "50%41", "a b"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    write(tmp_path / name, [(0, simple("a"))])
    assert [e.task.id for e in StoreReader(tmp_path / name).episodes()] == ["a"]
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_one_that_was_killed_while_it_was_made_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / f".{FILE}.part").write_bytes(b"SQLite format 3\0 and no more")
    assert not (tmp_path / FILE).exists(), "a file of that name is a whole store"
    write(tmp_path, [(0, simple("one"))])
    assert len(StoreReader(tmp_path).outcomes()) == 1
    assert not (tmp_path / f".{FILE}.part").exists()


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a run: it holds no episodes\.db"):
        StoreReader(tmp_path)
    (tmp_path / FILE).write_text("not a database, but long enough to be read as one " * 50)
    with pytest.raises(ConfigError, match="is not a store of episodes"):
        StoreReader(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [])
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE format SET version = 99")
    with pytest.raises(ConfigError, match="has format 99, this version reads up to 1"):
        StoreReader(tmp_path)


KILLED = """
import asyncio, sys
from pathlib import Path
from experiments.store import StoreWriter
from tests.experiments.test_store import simple

async def main():
    writer = StoreWriter(Path(sys.argv[1]))
    for i in range(100_000):
        await writer.append(i, simple(f"t{i}"))
        print(i, flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    acknowledged = -1
    started = time.monotonic()
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 50 or time.monotonic() - started > 60:
            break
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    stored = [e.task.id for e in StoreReader(tmp_path).episodes()]
    assert stored[: acknowledged + 1] == [f"t{i}" for i in range(acknowledged + 1)]
    assert len(stored) <= acknowledged + 2, "at most the one under way beyond those acknowledged"


def test_readers_see_a_store_that_is_being_written(tmp_path: Path) -> None:
    async def run() -> list[int]:
        writer = StoreWriter(tmp_path)
        seen = []
        for i in range(5):
            await writer.append(i, simple(f"t{i}"))
            seen.append(len(StoreReader(tmp_path).outcomes()))
        writer.close()
        return seen

    assert asyncio.run(run()) == [1, 2, 3, 4, 5]


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sql")), ids=lambda path: path.stem)
def test_stores_of_earlier_versions_can_be_read(tmp_path: Path, path: Path) -> None:
    """One dump a format version is kept: what was written then must be read now, to the same digest."""
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.executescript(path.read_text(encoding="utf-8"))
    reader = StoreReader(tmp_path)
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert reader.digest() == expected["digest"]
    assert [(t.id, type(t.result).__name__) for e in reader.episodes() for t in e.turns] == [
        tuple(t) for t in expected["turns"]
    ]
