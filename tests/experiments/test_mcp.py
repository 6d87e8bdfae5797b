"""`palaestra mcp`, asked by the protocol's own client: what it offers, how programs fail, and that nothing is left."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from envs.sandbox import Limits, open_sandbox, why_unavailable
from envs.sandbox.tool import Outcome, Program
from experiments.command import main

pytest.importorskip("mcp")
from mcp import Client, MCPError, StdioServerParameters

from experiments.mcp_server import make_server

pytestmark = [
    pytest.mark.usefixtures("leaves_nothing"),
    pytest.mark.skipif(bool(why_unavailable("monty")), reason=why_unavailable("monty")),
]
ROOT = Path(__file__).parents[2]
COMMAND = ["-m", "palaestra", "mcp", "--set", "seconds=0.5", "--set", "output_chars=100"]
SPIN = "while True: pass"


async def called(client: Client, **arguments: Any) -> tuple[str, Any, bool]:
    """The text, the structured content, and whether it is an error."""
    result = await client.call_tool("python", arguments)
    (block,) = result.content
    return block.text, result.structured_content, result.is_error  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_host_starts_it_and_nothing_is_left_of_it() -> None:
    others = set(psutil.Process().children(recursive=True))
    host = StdioServerParameters(command=sys.executable, args=COMMAND, cwd=ROOT)
    async with Client(host) as client:
        (tool,) = (await client.list_tools()).tools
        assert tool.name == "python" and tool.input_schema == Program.model_json_schema()
        assert tool.output_schema == Outcome.model_json_schema()
        assert await called(client, code="print(6 * 7)") == (
            "42",
            {"ended": "ran", "message": "", "output": "42\n"},
            False,
        )
        no_end = {"ended": "time", "message": "no end within 0.5 s", "output": ""}
        assert await called(client, code=f"print(1)\n{SPIN}") == ("Error: no end within 0.5 s", no_end, True)
        assert (await called(client, code="print(2)"))[0] == "2"
        started = set(psutil.Process().children(recursive=True)) - others
        assert len(started) >= 2, "the server and a worker"
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


@pytest.mark.parametrize("end", ["its stdin ends", signal.SIGTERM, signal.SIGINT])
def test_a_program_ends_with_its_server(end: Any) -> None:
    request = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    call = {"name": "python", "arguments": {"code": SPIN}}
    with subprocess.Popen(
        [sys.executable, "-m", "palaestra", "mcp", "--set", "seconds=2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    ) as server:
        assert server.stdin and server.stdout
        for message in (
            {"id": 1, "method": "initialize", "params": request},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": call},
        ):
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            server.stdin.flush()
        assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "palaestra"
        while not (workers := psutil.Process(server.pid).children(recursive=True)):
            time.sleep(0.01)
        if isinstance(end, signal.Signals):
            os.kill(server.pid, end)
        server.stdin.close()
        server.wait(20)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


async def test_a_hostile_program_is_held_to_the_limits(backend: str) -> None:
    sandbox = open_sandbox(backend, Limits(seconds=0.5, memory_mb=64, output_chars=100), workers=1)
    try:
        async with Client(make_server(sandbox)) as client:
            for program, ended in (
                (SPIN, "time"),
                ("while True: print('x' * 99)", "output"),
                ("x = 'x' * 10 ** 9", "memory"),
                ("open('/etc/passwd')", None),
                ("import subprocess\nsubprocess.run(['true'], check=True)", None),
                ("raise ValueError('\\x1b[2J')", "error"),
            ):
                text, outcome, is_error = await called(client, code=program)
                assert is_error and outcome["ended"] in ({ended} if ended else {"forbidden", "error"}), program
                assert text.endswith(f"Error: {outcome['message']}") and "\x1b" not in text
            assert (await called(client, code="print(1)"))[0] == "1"
    finally:
        await sandbox.close()


async def test_a_program_is_killed_when_the_client_gives_it_up() -> None:
    sandbox = open_sandbox("monty", Limits(seconds=60), workers=1)
    try:
        async with Client(make_server(sandbox)) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await called(client, code=SPIN)
            assert (await called(client, code="print(1)"))[0] == "1", "its only worker is free again"
    finally:
        await sandbox.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "code: Field required"),
        ({"code": 1}, "code: Input should be a valid string"),
        ({"code": " "}, "code: there is no code"),
        ({"code": "print(1)", "timeout": 60}, "timeout: Extra inputs are not permitted"),
    ],
)
async def test_arguments_that_are_no_program_are_answered(arguments: dict[str, Any], said: str) -> None:
    async with Client(make_server(open_sandbox("monty"))) as client:
        text, _, is_error = await called(client, **arguments)
        assert is_error and text.startswith("Error: expected ") and said in text


async def test_another_tool_is_an_error_of_the_protocol() -> None:
    async with Client(make_server(open_sandbox("monty"))) as client:
        with pytest.raises(MCPError, match="there is no tool 'bash'; call python"):
            await client.call_tool("bash", {})


def test_over_http_on_loopback() -> None:
    with subprocess.Popen(
        [sys.executable, *COMMAND, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as server:
        try:
            assert server.stdout
            url = json.loads(server.stdout.readline())["url"]
            assert url.startswith("http://127.0.0.1:")

            async def ask() -> None:
                async with Client(url) as client:
                    assert (await called(client, code="print(6 * 7)"))[0] == "42"
                    text, outcome, is_error = await called(client, code=SPIN)
                    assert (text, outcome["ended"], is_error) == ("Error: no end within 0.5 s", "time", True)

            asyncio.run(ask())
            for wrong in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    urllib.request.urlopen(urllib.request.Request(url, b"{}", wrong), timeout=30)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.communicate(timeout=30) == (b"", b"")
    assert server.returncode == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json"], "--json goes with --port"),
        (["--set", "sandbox=docker"], "sandbox cannot be 'docker'"),
        (["--set", "second=1"], "did you mean 'seconds'?"),
        (["--set", "seconds=0"], "sandbox limit seconds: expected a number from 0.01 to 3600"),
    ],
)
def test_what_cannot_be_is_said_before_it_serves(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mcp", *options]) == 2
    assert said in capsys.readouterr().err


def test_without_the_sdk_it_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.delitem(sys.modules, "experiments.mcp_server")
    assert main(["mcp"]) == 2
    assert "pip install 'palaestra[mcp]'" in capsys.readouterr().err
