"""What docs/sandbox.md shows works as written."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from envs.sandbox import why_unavailable
from experiments import Run
from experiments.command import main
from experiments.faults.chat_server import ChatServer, says

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "sandbox.md").read_text(encoding="utf-8")


def examples() -> list[tuple[str, str]]:
    """The programs that are whole, and what they print."""
    return re.findall(r"```python\n(import asyncio\n[^`]*)```\n```\n(.*?)```", DOC, re.DOTALL)


def test_its_example_prints_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if problem := why_unavailable("monty"):
        pytest.skip(problem)
    code, said = examples()[0]
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    runpy.run_path(str(tmp_path / "example.py"), run_name="__main__")
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("command", re.findall(r"^palaestra (run .*)$", DOC, re.MULTILINE))
def test_models_that_call_tools_play(workplace: Path, command: str) -> None:
    if problem := why_unavailable("monty"):
        pytest.skip(problem)
    (graph,) = re.findall(r"```python\n# tooled.py\n(.*?)```", DOC, re.DOTALL)
    (workplace / "tooled.py").write_text(graph, encoding="utf-8")
    call = {"id": "x", "type": "function", "function": {"name": "python", "arguments": '{"code": "print(6 * 7)"}'}}

    async def reply(request: Any, body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["role"] != "tool"
        behave = says(None, finish="tool_calls", tool_calls=[call]) if asked else says("It is \\boxed{42}.")
        return await behave(request, body)

    with ChatServer(reply, models=("gpt-5-mini",)) as server:
        asked = command.replace("https://api.openai.com/v1", server.url)
        assert main([*shlex.split(asked), "--backend", "local", "--name", "tooled"]) == 0
    episodes = list(Run.open("tooled").episodes())
    assert len(episodes) == 20 and all(episode.answer == "42" for episode in episodes)
    assert all(episode.turns[1].messages[0].content == "42" for episode in episodes)


def test_its_mcp_client_prints_what_it_says(tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    if problem := why_unavailable("monty"):
        pytest.skip(problem)
    (code, said), here = examples()[1], [sys.executable, "-m", "palaestra"]
    (tmp_path / "client.py").write_text(
        code.replace('command="palaestra", args=[', f'command="{here[0]}", args={here[1:]} + ['), encoding="utf-8"
    )
    shown = subprocess.run(
        [sys.executable, tmp_path / "client.py"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert shown.stdout == said
    (host,) = re.findall(r"```json\n(.*?)```", DOC, re.DOTALL)
    server = json.loads(host)["mcpServers"]["python"]
    assert server["command"] == "palaestra"
    stopped = subprocess.run([*here, *server["args"]], input="", capture_output=True, text=True, cwd=ROOT, check=True)
    assert (stopped.stdout, stopped.stderr) == ("", ""), "a host that says nothing"


def test_its_benchmark_runs() -> None:
    (command,) = re.findall(r"^python (-m experiments\.benchmarks\S*)$", DOC, re.MULTILINE)
    asked = [sys.executable, *command.split(), "--parallel", "2", "--repeats", "1", "--seconds", "0.1", "--json"]
    shown = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=True)
    result = json.loads(shown.stdout)
    assert {*result["median"], *result["missing"]} == {"monty", "bubblewrap"}
    for figures in result["median"].values():
        assert set(figures) == {"start_ms", "per_s", "per_s_of_2"} and all(value > 0 for value in figures.values())
