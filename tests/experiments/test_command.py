"""The command as its users meet it: verbs, one JSON object on stdout, one line of complaint, exit statuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import palaestra
from envs import Arithmetic
from experiments.command import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def replay(tmp_path: Path) -> str:
    """Answers solo and vote on the first five tasks of two seeds: right, wrong, right, unreadable, right."""
    rows = []
    for i, task in enumerate([*Arithmetic().tasks(5), *Arithmetic(seed=3).tasks(5)]):
        right = f"7 * 2 = 14\n\\boxed{{{task.answers[0]}}}"
        rows.append({"task": task.id, "role": "solver", "replies": [{1: "\\boxed{1}", 3: "hm"}.get(i, right)] * 6})
    path = tmp_path / "recorded.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"replay:{path}"


@pytest.fixture
def called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, "--runs", str(tmp_path / "runs")] if arguments[0] != "doctor" else [*arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def play(called: Any, replay: str, topology: str = "solo", *more: str) -> tuple[int, str, str]:
    return called(
        "run", topology, "--env", "arithmetic", "--tasks", "5", "--model", replay, "--backend", "local", *more
    )


def test_run_prints_one_object(called: Any, replay: str) -> None:
    status, out, err = play(called, replay, "solo", "--json", "--name", "mine")
    summary = json.loads(out)
    assert status == 0 and err == ""
    expected = {
        "run": "mine",
        "episodes": 5,
        "failed": 0,
        "accuracy": 0.6,
        "calls": 5,
        "unparsed": 1,
        "unread_replies": 1,
    }
    assert {key: summary[key] for key in expected} == expected
    assert set(summary["tokens"]) == {"prompt", "completion"} and len(summary["digest"]) == 64
    assert summary["ci95"][0] < 0.6 < summary["ci95"][1] and summary["seconds"] >= 0


def test_show_and_list(called: Any, replay: str) -> None:
    play(called, replay, "vote", "--name", "mine")
    status, out, _ = called("show", "mine")
    assert status == 0 and "vote on arithmetic" in out and "60.0 %" in out
    for episode, phrase in (
        ("2", "incorrect"),
        ("wrong", "incorrect"),
        ("longest", "vote of 6"),
        ("4", "not readable"),
    ):
        status, out, _ = called("show", "mine", episode)
        assert status == 0 and phrase in out
    status, out, _ = called("show", "mine", "1", "--prompts")
    assert "You are a careful solver." in out
    folded, whole = (called("show", "mine", "1", *option)[1] for option in ((), ("--all",)))
    assert "solver  solves  6 times" in folded and "6 times" not in whole and whole.count("● solver") == 6
    status, out, _ = called("show", "mine", "1", "--json")
    assert json.loads(out)["turns"][0]["result"]["type"] == "Solution"
    status, out, _ = called("list", "--json")
    listed = json.loads(out)
    assert "mad" in listed["topologies"] and "gsm8k" in listed["envs"] and list(listed["runs"]) == ["mine"]
    assert called("list")[0] == 0


def test_compare(called: Any, replay: str) -> None:
    play(called, replay, "solo", "--name", "one")
    play(called, replay, "vote", "--name", "two")
    status, out, _ = called("compare", "one", "two")
    assert status == 0 and "compared with one" in out and "McNemar" in out
    compared = json.loads(called("compare", "one", "two", "--json")[1])
    assert compared["baseline"] == "one"
    two = compared["runs"][1]
    assert two["calls_per_episode"] == 6 and two["comparison"]["difference"] == 0 and two["comparison"]["p"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "mad"], "Missing option '--env'"),
        (["run", "mad", "--env", "arithmatic"], "unknown env 'arithmatic'; did you mean 'arithmetic'?"),
        (["run", "maad", "--env", "arithmetic"], "unknown topology 'maad'; did you mean 'mad'?"),
        (["run", "mad", "--env", "arithmetic", "--set", "rounds"], "expected KEY=VALUE, found 'rounds'"),
        (["run", "mad", "--env", "arithmetic", "--set", "env.level=12"], "level must be 1 to 8, found 12"),
        (["run", "mad", "--env", "arithmetic", "--taks", "3"], "No such option '--taks'"),
        (["run", "mad", "--env", "arithmetic", "--tasks", "many"], "'many' is not a valid integer"),
        (["run", "mad", "--env", "gsm8k"], "env gsm8k needs a file"),
        (["run", "mad", "--env", "gsm8k", "--set", "env.path=/nowhere.jsonl"], "cannot read /nowhere.jsonl"),
        (["run", "mad", "--env", "arithmetic", "--model", "hf:/nowhere"], "found no config.json in /nowhere"),
        (["show", "nothing"], "no run 'nothing'"),
        (["compare", "nothing", "else"], "no run 'nothing'"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_unusable_arguments_are_one_line_and_status_2(called: Any, arguments: list[str], message: str) -> None:
    status, out, err = called(*arguments)
    assert status == 2 and out == ""
    complaint = [line for line in err.strip().splitlines() if not line.startswith(("Usage:", "Try ")) and line]
    assert len(complaint) == 1 and message in complaint[0]


def test_a_malformed_data_file_is_named_with_its_line(called: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n{"question": "2 + 2?"}\n')
    status, _, err = called("run", "solo", "--env", "gsm8k", "--set", f"env.path={path}")
    assert status == 2
    assert "bad.jsonl, line 2: expected a field answer, found question" in err


def test_one_run_to_compare_is_too_few(called: Any, replay: str) -> None:
    play(called, replay, "solo", "--name", "one")
    status, _, err = called("compare", "one")
    assert status == 2 and "expected at least two runs" in err


def test_runs_of_other_tasks_cannot_be_compared(called: Any, replay: str) -> None:
    play(called, replay, "solo", "--name", "one")
    play(called, replay, "solo", "--name", "two", "--set", "env.seed=3")
    status, _, err = called("compare", "one", "two")
    assert status == 2 and "share no judged task" in err


def test_a_failed_episode_is_status_1_and_said(called: Any, replay: str) -> None:
    status, out, err = called(
        "run", "solo", "--env", "arithmetic", "--tasks", "7", "--model", replay, "--backend", "local", "--name", "mine"
    )
    assert status == 1 and "2 failed" in out
    assert "2 of 7 episodes failed; the first, arithmetic-" in err and "palaestra show mine failed" in err


def test_runs_that_cannot_be_read_do_not_hide_the_others(called: Any, replay: str, tmp_path: Path) -> None:
    play(called, replay, "solo", "--name", "mine")
    for name, config in (("foreign", "{}"), ("truncated", '{"topology"')):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "config.json").write_text(config)
        shutil.copy(tmp_path / "runs" / "mine" / "episodes.db", tmp_path / "runs" / name)
    status, out, _ = called("list", "--json")
    runs = json.loads(out)["runs"]
    assert status == 0 and runs["mine"].startswith("solo on arithmetic")
    assert runs["foreign"] == runs["truncated"] == "its config.json cannot be read"


def test_show_without_such_an_episode(called: Any, replay: str) -> None:
    play(called, replay, "solo", "--name", "one")
    status, _, err = called("show", "one", "77")
    assert status == 2 and "no episode '77' (5 are stored): give its number" in err


def test_an_unreachable_cluster_is_status_2_at_once(called: Any, replay: str) -> None:
    started = time.monotonic()
    status, _, err = called(
        "run", "solo", "--env", "arithmetic", "--model", replay, "--tasks", "1", "--address", "127.0.0.1:1"
    )
    assert status == 2 and "no Ray cluster answers at 127.0.0.1:1" in err
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("verb", ["run", "show", "compare", "list", "doctor"])
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"palaestra {verb}" in capsys.readouterr().out.split("Example:")[1]


def test_doctor(called: Any) -> None:
    status, out, _ = called("doctor", "--json")
    examined = json.loads(out)
    assert status == (0 if examined["healthy"] else 1)
    states = {finding["what"]: finding for finding in examined["findings"]}
    assert states["import names"]["state"] == "ok" and states["Ray usage reports"]["detail"] == "off"
    assert all(finding["mend"] for finding in examined["findings"] if finding["state"] == "missing")
    assert "import names" in called("doctor")[1]


def in_shell(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "palaestra", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_an_import_name_that_is_shadowed_is_said_plainly(tmp_path: Path) -> None:
    for name in ("agents", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package was imported')\n")
    result = in_shell("list", cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 2
    assert f"`agents` is not Palaestra's: Python finds another package of that name at {tmp_path}" in lines[0]


@pytest.mark.parametrize("contents", ["__init__.py", "notes.txt"])
def test_a_folder_that_would_shadow_ours_in_rays_processes_is_said_plainly(
    called: Any, replay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT])
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / contents).write_text("")
    arguments = ("run", "solo", "--env", "arithmetic", "--tasks", "5", "--model", replay)
    status, _, err = called(*arguments)
    assert status == 2 and "in Ray's processes `agents` is not Palaestra's" in err and str(tmp_path / "agents") in err
    assert called(*arguments, "--backend", "local")[0] == 0


def test_a_package_that_overwrote_ours_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two distributions that install a folder of one name write into the same place."""
    for name in palaestra.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("# somebody else's\n")
    shutil.copy(ROOT / "palaestra.py", tmp_path / "palaestra.py")
    info = tmp_path / "palaestra-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: palaestra\nVersion: 9\n")
    (info / "RECORD").write_text("agents/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n")
    code = "import palaestra; print(palaestra.shadowed())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "'agents'" in result.stdout and "overwritten by another installation" in result.stdout
    assert "'envs'" not in result.stdout


SLOW_RUN = """
import asyncio, sys
from agents import Cast, ScriptedEngine
import experiments.command, experiments.runner as runner

class Slow(ScriptedEngine):
    async def complete(self, request):
        if not request.key.startswith(first):
            await asyncio.sleep(600)
        return await super().complete(request)

from envs import Arithmetic
first = Arithmetic().tasks(1)[0].id
engine = Slow({"solver": "\\\\boxed{1}"})
plain = runner.run
runner.run = lambda cast, **options: plain(cast=Cast.all(engine), **options)
sys.exit(experiments.command.main(sys.argv[1:]))
"""


def test_an_interrupt_is_status_130_and_keeps_what_had_ended(tmp_path: Path) -> None:
    arguments = ["run", "solo", "--env", "arithmetic", "--tasks", "5", "--backend", "local", "--name", "cut", "--runs"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, *arguments, str(tmp_path)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    from experiments import Run

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Run.open("cut", tmp_path).summary().episodes == 1:
                break
        except ValueError:
            pass
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err
    summary = Run.open("cut", tmp_path).summary()
    assert (summary.episodes, summary.seconds) == (1, None)
