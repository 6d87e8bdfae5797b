"""Parquet holds all that the store does: episodes made from the tables are those that were stored."""

import json
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.types import ToolCall
from experiments.export import parquet
from experiments.export.parquet import EPISODES, TURNS, export_parquet
from experiments.export.selection import Selection
from graphs.turns import Episode
from tests.experiments.export.export_helpers import run_of, turn
from tests.experiments.test_store import episodes, simple

DOC = (Path(__file__).parents[3] / "docs" / "export.md").read_text(encoding="utf-8")


def rebuilt(folder: Path) -> list[Episode]:
    """The episodes that the tables tell of."""
    turns: dict[int, list[Any]] = {}
    for row in pq.read_table(folder / TURNS).to_pylist():
        turns.setdefault(row["position"], []).append(
            {
                **{key: value for key, value in row.items() if key not in ("position", "place", "answer")},
                "result": json.loads(row["result"]),
                "failure": None if row["failure"] is None else {"expected": row["failure"]},
            }
        )
    found = []
    for row in pq.read_table(folder / EPISODES).to_pylist():
        task = {"id": row["task"], "details": json.loads(row["details"])}
        verdict = None if row["status"] == "failed" else {key: row[key] for key in ("status", "score", "reason")}
        same = {key: row[key] for key in ("sample", "answer", "stop_reason", "failure", "seconds")}
        episode = Episode.model_validate(
            {
                **same,
                "task": {**task, "question": row["question"], "answers": row["answers"]},
                "verdict": verdict,
                "notes": json.loads(row["notes"]),
                "turns": turns.get(row["position"], []),
            }
        )
        assert (episode.calls, episode.digest()) == (row["calls"], row["digest"])
        found.append(episode)
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(episodes(), max_size=3, unique_by=lambda e: e.task.id), st.integers(1, 3))
def test_what_is_stored_can_be_made_from_the_tables(
    tmp_path_factory: pytest.TempPathFactory, stored: list[Episode], rows: int
) -> None:
    directory = tmp_path_factory.mktemp("run")
    run = run_of(directory / "run", stored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROWS", rows)
        export_parquet(Selection.of_run(run), directory / "out")
    assert rebuilt(directory / "out") == stored == list(run.episodes())
    assert pq.ParquetFile(directory / "out" / EPISODES).num_row_groups == -(-len(stored) // rows)


def test_groups_are_bounded_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 10_000)
    long = [turn(f"a/{i}", reply="x" * 6_000) for i in range(6)]
    run = run_of(tmp_path / "run", [simple("one").model_copy(update={"turns": tuple(long)})])
    export_parquet(Selection.of_run(run), tmp_path / "out")
    assert pq.ParquetFile(tmp_path / "out" / TURNS).num_row_groups == 3


def test_pandas_reads_it(tmp_path: Path) -> None:
    call = ToolCall("call-1", "add", '{"a": 1}')
    called = turn(tool_calls=(call,))
    run = run_of(tmp_path / "run", [simple("one").model_copy(update={"turns": (called,)}), simple("two")])
    export_parquet(Selection.of_run(run, ["one"]), tmp_path / "out")
    frame = pandas.read_parquet(tmp_path / "out" / EPISODES)
    assert frame[["position", "task", "status", "score"]].values.tolist() == [[0, "one", "correct", 1.0]]
    (row,) = pandas.read_parquet(tmp_path / "out" / TURNS).to_dict("records")
    assert list(row["token_ids"]) == [5, 7] and list(row["logprobs"]) == [-0.5, -1.0]
    assert row["tool_calls"][0] == {"id": "call-1", "name": "add", "arguments": '{"a": 1}'}
    about = pq.read_schema(tmp_path / "out" / TURNS).metadata
    assert about[b"palaestra.run"] == b"run" and json.loads(about[b"palaestra.config"]) == run.config


def test_the_page_describes_every_column() -> None:
    for name in (*parquet.EPISODE_COLUMNS.names, *parquet.TURN_COLUMNS.names):
        assert f"`{name}`" in DOC, name
