"""A turn and a run whose every field is known."""

import json
from pathlib import Path
from typing import Any

from agents.types import Message
from experiments import Run
from experiments.runs import CONFIG
from graphs.turns import Episode, Turn
from tests.experiments.test_store import write


def turn(id: str = "a/0", **changes: Any) -> Turn:
    fields: dict[str, Any] = {
        "id": id,
        "role": id.partition("/")[0],
        "move": "chat",
        "round": 1,
        "after": 0,
        "reads": (),
        "follows": None,
        "messages": (Message("user", "asked"),),
        "reply": "said",
        "policy": "m",
        "version": "1",
        "finish": "stop",
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 2**62,
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "prompt_ids": (1, 2, 3),
        "token_ids": (5, 7),
        "logprobs": (-0.5, -1.0),
        "answered_s": 1.0,
    }
    return Turn(**{**fields, **changes})


def run_of(directory: Path, stored: list[Episode]) -> Run:
    directory.mkdir(parents=True, exist_ok=True)
    config = {"topology": {"name": "t", "settings": {}}, "env": {"name": "e"}, "cast": {"a": {"model": "m"}}}
    (directory / CONFIG).write_text(json.dumps({**config, "created": "2026-01-02T03:04:05+00:00"}), encoding="utf-8")
    assert write(directory, list(enumerate(stored))) == [None] * len(stored)
    return Run(directory)
