"""Engines without a model."""

import asyncio
import json
from pathlib import Path

import pytest

from agents.engines.scripted import ReplayEngine, ScriptedEngine
from agents.types import EngineError, Message, Request, Sampling
from envs import ConfigError


def request(key: str) -> Request:
    return Request(key, (Message("user", "hi"),), Sampling(), seed=0)


def reply(engine: ScriptedEngine | ReplayEngine, key: str) -> str:
    return asyncio.run(engine.complete(request(key))).text


def test_replies_go_by_role_and_number_not_by_arrival() -> None:
    engine = ScriptedEngine({"solver": ["a", "b"], "judge": "always"})
    assert reply(engine, "t/0/solver/1") == "b"
    assert engine.unused() == [("solver", 0)]
    assert reply(engine, "t/0/solver/0") == "a"
    assert reply(engine, "t/0/judge/7") == "always"
    assert engine.unused() == []


def test_a_surplus_request_is_an_error() -> None:
    engine = ScriptedEngine({"solver": ["a"]})
    with pytest.raises(EngineError, match=r"no reply is scripted for t/0/solver/1 \(solver has 1\)"):
        reply(engine, "t/0/solver/1")
    with pytest.raises(EngineError, match="critic has 0"):
        reply(engine, "t/0/critic/0")


def test_completions_carry_ids_and_logprobs() -> None:
    completion = asyncio.run(ScriptedEngine({"solver": "é"}).complete(request("t/0/solver/0")))
    assert bytes(completion.token_ids).decode() == "é"
    assert len(completion.logprobs) == completion.completion_tokens == 2
    assert bytes(completion.prompt_ids).decode() == "hi"


def test_replay_answers_by_episode(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    rows = [
        {"task": "a/b", "role": "solver", "replies": ["one", "two"]},
        {"task": "a/b", "sample": 1, "role": "solver", "replies": ["three"]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    engine = ReplayEngine(path)
    assert [reply(engine, f"a/b/{k}") for k in ("0/solver/1", "1/solver/0")] == ["two", "three"]
    for absent in ("a/b/0/solver/2", "a/b/2/solver/0", "c/0/solver/0", "a/b/0/judge/0", "a/b/0/solver/0.1"):
        with pytest.raises(EngineError, match="holds no reply"):
            reply(engine, absent)


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"task": "a"}', '{"task": "a", "role": "b", "replies": [1]}'])
def test_a_malformed_recording_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text('{"task": "a", "role": "b", "replies": []}\n' + line)
    with pytest.raises(ConfigError, match=r"recorded\.jsonl, line 2: expected"):
        ReplayEngine(path)
    with pytest.raises(ConfigError, match="cannot read the replay file"):
        ReplayEngine(tmp_path / "absent.jsonl")
