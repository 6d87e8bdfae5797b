"""Inspect reads what is exported for it, and shows it: in an environment of its own, which `make test` makes."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.types import Message, ToolCall
from envs.types import Env, Verdict
from graphs.turns import conversation
from tests.experiments.export.export_helpers import run_of, turn
from tests.experiments.test_store import simple
from tests.experiments.viewer.viewer_helpers import debate

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-inspect" / "bin" / "python"
READER = Path(__file__).with_name("read_inspect_log.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="Inspect's environment is not there; make setup makes it"),
]


def export(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, "-m", "palaestra", "export", *arguments, "--runs", str(runs)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def read(log: Path) -> dict[str, Any]:
    done = subprocess.run([PYTHON, READER, log], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_inspect_reads_a_run_and_shows_it(tmp_path: Path, words: Env) -> None:
    run = debate(tmp_path, words)
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "talk.eval"
    exported = export(tmp_path, "talk", "--inspect", str(log), "--json")
    assert exported.returncode == 0, exported.stderr[-3000:]
    assert json.loads(exported.stdout) == {"run": "talk", "inspect": str(log), "episodes": 5, "left_out": []}
    found = read(log)
    assert (found["status"], found["task"]) == ("success", "society on words")
    assert found["accuracy"] == run.summary().accuracy and found["scored"] == [4, 1]
    assert found["metadata"]["palaestra"] == run.config
    for sample, episode in zip(found["samples"], run.episodes(), strict=True):
        assert (sample["id"], sample["epoch"], sample["target"]) == (episode.task.id, 1, ["yes"])
        assert sample["error"] == episode.failure
        letter = {"correct": "C", "incorrect": "I", "unparsed": "N"}.get(
            episode.verdict.status if episode.verdict else ""
        )
        assert sample["scores"] == ({"verdict": [letter, episode.answer]} if letter else {})
        assert [call["turn"]["id"] for call in sample["calls"]] == [turn.id for turn in episode.turns]
        for call, turn_ in zip(sample["calls"], episode.turns, strict=True):
            chat = [message.content for message in conversation(episode.turns, turn_)]
            assert [*call["input"], call["output"]] == chat and call["role"] == turn_.role
            assert call["turn"]["reads"] == list(turn_.reads)
            assert call["seconds"] == pytest.approx(turn_.answered_s - turn_.asked_s)
        assert sample["last"] == episode.turns[-1].reply
    _shown(log)


def _shown(log: Path) -> None:
    """`inspect view` lists the log, and hands out its header."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [PYTHON.with_name("inspect"), "view", "start", "--log-dir", log.parent, "--port", port]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    view = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert view.stdout is not None
        lines = iter(view.stdout.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://[\d.]+:\d+", line)))
        with httpx.Client(base_url=url, timeout=60) as client:
            (listed,) = client.get("/api/logs").raise_for_status().json()["files"]
            assert listed["name"].endswith("/talk.eval") and listed["task"] == "society on words"
            (header,) = client.get("/api/log-headers", params={"file": listed["name"]}).raise_for_status().json()
            assert header["status"] == "success"
            assert header["results"]["scores"][0]["name"] == "verdict"
    finally:
        view.terminate()
        view.wait(60)


def test_tools_unscorable_answers_and_hostile_texts(tmp_path: Path) -> None:
    first = turn("a/0", tool_calls=(ToolCall("call-1", "add", "no json"),))
    later = turn("a/1", follows="a/0", messages=(Message("tool", "seven", tool_call_id="call-1"),), asked_s=3.0)
    hostile = "../../etc \x1b[31m \u202e attachment://x"
    stored = [
        simple(hostile).model_copy(
            update={"turns": (first, later), "verdict": Verdict.unscorable("why"), "notes": ({},)}
        ),
        simple("two").model_copy(update={"turns": (turn(reply=hostile * 50),)}),
        simple("three").model_copy(update={"turns": (turn(reply="x" * 200_000),)}),
        simple("four"),
    ]
    run_of(tmp_path / "run", stored)
    log = tmp_path / "run.eval"
    exported = export(tmp_path, "run", "--inspect", str(log), "--max-mb", "0.1")
    assert exported.returncode == 0 and "from number 3 on, 2 of 4, are left out" in exported.stderr
    found = read(log)
    assert "from number 3 on" in found["metadata"]["left_out"][0]
    one, two = found["samples"]
    assert (one["id"], one["scores"]) == (hostile, {"verdict": ["nan", "a"]}) and found["scored"] == [1, 1]
    assert one["events"] == ["span_begin", "model", "tool", "model", "span_end", "info", "score"]
    assert one["calls"][1]["input"] == ["asked", "said", "seven"]
    assert one["calls"][0]["turn"]["token_ids"] == [5, 7] and one["calls"][0]["turn"]["logprobs"] == [-0.5, -1.0]
    assert two["calls"][0]["output"] == hostile * 50
    assert export(tmp_path, "run", "--inspect", str(log)).returncode == 2, "there is one already"
