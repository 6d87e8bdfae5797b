"""Programs written with other frameworks play in a served run: real clients, in an environment of their own.

The programs in tests/clients hold nothing of ours; they are told a base_url and a key. `make test` makes their
environment (openai-agents has a package `agents`, too, which would take the place of ours).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from envs import Arithmetic
from experiments import Run

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
KEY = "a-key-of-this-test"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="the clients' environment is not there; make setup makes it"),
]


class Server:
    """`palaestra serve` as its users start it."""

    def __init__(self, root: Path, model: str):
        options = {"env": "arithmetic", "tasks": "6", "roles": "solver,critic", "model": model, "backend": "local"}
        options |= {"name": "served", "runs": str(root), "port": "0", "token-env": "CLIENTS_TOKEN"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "palaestra", "serve", "--json", *(f"--{key}={options[key]}" for key in options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**_environment(), "CLIENTS_TOKEN": KEY},
        )
        assert self._process.stdout
        self.up = json.loads(self._process.stdout.readline())
        self.http = httpx.Client(base_url=self.up["url"], headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
        self._root = root

    def play(self, program: str) -> dict[str, Any]:
        """Open an episode, have a program play it, and post what it printed as the answer."""
        episode = self.http.post("/episodes").raise_for_status().json()
        played = subprocess.run(
            [PYTHON, ROOT / "tests" / "clients" / f"{program}.py", episode["base_url"], KEY, episode["question"]],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self._root,
            env=_environment(),
        )
        assert played.returncode == 0, played.stderr[-4000:]
        answer = {"answer": played.stdout.strip()}
        return self.http.post(f"/episodes/{episode['id']}/answer", json=answer).raise_for_status().json()

    def stop(self) -> Run:
        self.http.close()
        self._process.terminate()
        _, complaints = self._process.communicate(timeout=60)
        assert self._process.returncode == 0 and KEY not in complaints, complaints
        return Run.open("served", self._root)


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}


def _call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture
def replay(tmp_path: Path) -> Callable[..., str]:
    """Record what the roles say in each of the first tasks, in order."""

    def write(**roles: list[str]) -> str:
        path = tmp_path / "recorded.jsonl"
        rows = [
            {"task": task.id, "role": role, "replies": replies}
            for task in Arithmetic().tasks(6)
            for role, replies in roles.items()
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        return f"replay:{path}"

    return write


def test_a_team_of_autogen(tmp_path: Path, replay: Any) -> None:
    model = replay(
        solver=[_call("add", a=3, b=4), "It is \\boxed{7}.", "Still \\boxed{8}."],
        critic=["No: look again, please.", "APPROVE"],
    )
    server = Server(tmp_path, model)
    outcomes = [server.play("autogen_team") for _ in range(2)]
    assert [(o["answer"], o["calls"]) for o in outcomes] == [("8", 5)] * 2
    for episode in server.stop().episodes():
        ask, reflect, again = [turn for turn in episode.turns if turn.role == "solver"]
        first, second = [turn for turn in episode.turns if turn.role == "critic"]
        assert [call.name for call in ask.tool_calls] == ["add"] and ask.follows is None
        assert any(message.role == "tool" and message.content == "7" for message in reflect.messages)
        assert reflect.id in first.reads and first.id in again.reads and again.id in second.reads
        assert second.follows == first.id
        # AutoGen reflects without tools: that is another conversation, and the next turn goes on from the first.
        assert reflect.follows is None and again.follows == ask.id


def test_a_team_of_the_openai_agents_sdk(tmp_path: Path, replay: Any) -> None:
    model = replay(
        critic=[_call("transfer_to_solver")],
        solver=[_call("add", a=3, b=4), "The answer is 7."],
    )
    server = Server(tmp_path, model)
    assert (server.play("openai_agents_team")["answer"], server.play("openai_agents_team")["calls"]) == ("7", 3)
    for episode in server.stop().episodes():
        triage, ask, answer = episode.turns
        assert (triage.role, ask.role, answer.role) == ("critic", "solver", "solver")
        assert triage.id in ask.reads and answer.follows == ask.id and ask.temperature == 0.5
        ids = (*ask.prompt_ids, *ask.token_ids)
        assert answer.prompt_ids[: len(ids)] == ids and bytes(answer.prompt_ids[len(ids) :]) == b"7"


def test_an_agent_of_pydantic_ai(tmp_path: Path, replay: Any) -> None:
    server = Server(tmp_path, replay(solver=[_call("add", a=3, b=4), _call("final_result", total=7)]))
    assert (server.play("pydantic_ai_judge")["answer"]) == "7"
    (episode,) = server.stop().episodes()
    assert episode.turns[1].follows == episode.turns[0].id


@pytest.mark.model
def test_token_ids_of_a_conversation_are_exact(tmp_path: Path) -> None:
    server = Server(tmp_path, "embedded")
    for _ in range(2):
        server.play("plain_conversation")
    for episode in server.stop().episodes():
        assert len(episode.turns) == 3
        for earlier, later in pairwise(episode.turns):
            ids = (*earlier.prompt_ids, *earlier.token_ids)
            assert later.follows == earlier.id and later.prompt_ids[: len(ids)] == ids
