"""`palaestra serve` as its users meet it: what it prints, what it refuses, how it ends."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments import Run
from experiments.command import main
from experiments.gateway.guard import is_loopback
from experiments.gateway.server import bind

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "recorded.jsonl"
    path.write_text("")
    return f"replay:{path}"


@contextmanager
def serving(tmp_path: Path, model: str, *more: str, **environment: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The process, and what it printed when it was up."""
    arguments = ["--env", "arithmetic", "--tasks", "3", "--model", model, "--backend", "local", "--name", "served"]
    process = subprocess.Popen(
        [sys.executable, "-m", "palaestra", "serve", *arguments, "--runs", tmp_path, "--port", "0", "--json", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def post(url: str, body: Any, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=30) as reply:
        return json.load(reply)


@pytest.mark.parametrize(
    ("with_", "leaves_open", "status"),
    [(signal.SIGTERM, False, 0), (signal.SIGTERM, True, 1), (signal.SIGINT, True, 130)],
)
def test_how_it_ends(tmp_path: Path, model: str, with_: signal.Signals, leaves_open: bool, status: int) -> None:
    with serving(tmp_path, model, "--roles", "solver, critic") as (process, up):
        assert up["roles"] == ["solver", "critic"] and up["run"] == "served" and up["episodes"] == 3
        assert up["url"].startswith("http://127.0.0.1:") and up["base_url"] == up["url"] + "/v1" and not up["token"]
        first = post(up["url"] + "/episodes", {})
        post(f"{up['url']}/episodes/{first['id']}/answer", {"answer": "1"})
        if leaves_open:
            post(up["url"] + "/episodes", {})
        process.send_signal(with_)
        out, complaints = process.communicate(timeout=60)
    assert process.returncode == status and out == "", "one object, printed when it was up"
    assert ("interrupted" in complaints) == (status == 130) and "Traceback" not in complaints
    failures = [episode.failure for episode in Run.open("served", tmp_path).episodes()]
    assert failures == [None, "AbandonedError: the server was stopped"][: 1 + leaves_open]


def test_beyond_loopback_there_is_a_token(tmp_path: Path, model: str) -> None:
    with serving(tmp_path, model, "--host", "0.0.0.0") as (process, up):
        token = process.stderr.readline().split()[-1]
        assert up["token"] is True and token not in json.dumps(up) and len(token) > 30
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(up["url"] + "/episodes", {})
        assert post(up["url"] + "/episodes", {}, token)["id"] == "1"
        process.terminate()
        out, complaints = process.communicate(timeout=60)
        assert token not in out + complaints, "said once"
    assert not any(token.encode() in file.read_bytes() for file in (tmp_path / "served").iterdir())


def test_a_token_of_ones_own(tmp_path: Path, model: str) -> None:
    with serving(tmp_path, model, "--token-env", "MY_TOKEN", MY_TOKEN="of-my-own") as (process, up):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(up["url"] + "/episodes", {}, "another")
        assert post(up["url"] + "/episodes", {}, "of-my-own")["id"] == "1"
        process.terminate()
        out, complaints = process.communicate(timeout=60)
    assert "of-my-own" not in out + complaints


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        (["--roles", " , "], "expected names with commas between"),
        (["--token-env", "NO_SUCH_VARIABLE"], "--token-env NO_SUCH_VARIABLE: expected a token"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--set", "critic.temperature=1"], "unknown role in setting"),
        (["--set", "rounds=1"], "rounds"),
        (["--tasks", "0"], "tasks"),
        (["--idle", "0"], "idle"),
        (["--port", "70000"], "port"),
    ],
)
def test_unusable_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, options: list[str], phrase: str
) -> None:
    runs = tmp_path / "runs"
    arguments = ["--env", "arithmetic", "--model", model, "--backend", "local", "--runs", str(runs), *options]
    assert main(["serve", *arguments]) == 2
    assert phrase in capsys.readouterr().err and not runs.exists()


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--env", "arithmetic", "--model", model, "--backend", "local", "--port", port]
        assert main(["serve", *arguments, "--runs", str(tmp_path / "runs")]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_what_is_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "127.evil.example", "")] == [False] * 5
