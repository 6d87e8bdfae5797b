"""What docs/langgraph.md shows works as written, and so does a third party's team with two lines changed."""

import json
import re
from pathlib import Path

import pytest

from envs import make_env
from experiments import Run
from experiments.command import main

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "langgraph.md").read_text(encoding="utf-8")
TEAM = ROOT / "tests" / "graphs" / "maths_team.py"


@pytest.fixture
def files(workplace: Path) -> Path:
    """The page's files, in the working directory."""
    for code in re.findall(r"```python\n(.*?)```", DOC, re.DOTALL):
        (workplace / code.splitlines()[0].removeprefix("# ")).write_text(code, encoding="utf-8")
    return workplace


@pytest.mark.model
@pytest.mark.slow
def test_the_page_runs_as_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line.split()[1:] for line in re.findall(r"^palaestra .*", DOC, re.MULTILINE)]
    assert [command[:2] for command in commands] == [
        ["run", "mine:graph"],
        ["run", "debate:build"],
        ["show", "langgraph-debate"],
    ]
    for command in commands:
        assert main([*command, *(["--backend", "local"] if command[0] == "run" else [])]) == 0
    assert "critic/0  reads solver/0" in capsys.readouterr().out
    turns = next(Run.open("langgraph-debate").episodes()).turns
    assert [turn.id for turn in turns] == ["solver/0", "critic/0", "solver/1", "critic/1", "solver/2"]
    assert [turn.follows for turn in turns if turn.role == "solver"] == [None, "solver/0", "solver/1"]
    terse = ["run", "named:terse", "--env", "arithmetic", "--tasks", "2", "--backend", "local", "--name", "terse"]
    assert main(terse) == 0
    assert next(Run.open("terse").episodes()).turns[0].messages[0].content.endswith("Put the answer into \\boxed{}.")


def test_a_third_partys_team_runs_with_two_lines_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = TEAM.read_text(encoding="utf-8").splitlines()
    assert 180 <= len(code) <= 220 and sum("# it was: " in line for line in code) == 2
    assert sum("chat_model(" in line or "from graphs" in line for line in code) == 2

    def call(name: str, a: int, b: int) -> str:
        return f"<tool_call>{json.dumps({'name': name, 'arguments': {'a': a, 'b': b}})}</tool_call>"

    task = make_env("arithmetic", level=2).tasks(1)[0]
    replies = [
        json.dumps({"sums": ["three times four", "twelve minus two"]}),
        call("multiply", 3, 4),
        call("subtract", 12, 2),
        "Three times four is twelve.",
        "Twelve minus two is ten.",
        "First twelve, then ten.",
        json.dumps({"grade": "bad", "advice": "mark the answer"}),
        f"First twelve, then ten: \\boxed{{{task.answers[0]}}}",
        json.dumps({"grade": "good", "advice": ""}),
    ]
    recorded = tmp_path / "replies.jsonl"
    recorded.write_text(json.dumps({"task": task.id, "role": "team", "replies": replies}), encoding="utf-8")
    where = ["--runs", str(tmp_path / "runs")]
    options = ["--tasks", "1", "--set", "env.level=2", "--model", f"replay:{recorded}", "--backend", "local"]
    command = ["run", "tests.graphs.maths_team:graph", "--env", "arithmetic", *options, "--name", "team", *where]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["show", "team", "1", *where]) == 0
    shown = capsys.readouterr().out
    assert task.answers[0] in shown and "correct" in shown
    lines = [line.split("  team/")[0].rstrip() for line in shown.splitlines() if re.search(r"[●○].*  team/\d", line)]
    assert lines[:9] == ["○", "├─●", "│ ●", "● │", "● │", "├─┼─●", "│ │ ├─●", "╰─●─┴─╯", "  ●"]
    assert '⚒ multiply {"a": 3, "b": 4}' in shown and "⚒ → 12.0" in shown
