"""Programs that mean harm, in both sandboxes: each ends as a result, nothing gets out, and the next program runs."""

import asyncio
import contextlib
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import ConfigError
from envs.sandbox import BACKENDS, Limits, Ran, Sandbox, Stopped, isolation, open_sandbox, why_unavailable
from envs.sandbox.inside import MESSAGE_CHARS as INSIDE_CHARS
from envs.sandbox.types import MESSAGE_CHARS

pytestmark = pytest.mark.usefixtures("leaves_nothing")
SECRET = secrets.token_hex(16)
OUTER_S = 60.0
"""No program may take so long, however busy the machine is; its own limit is LIMITS.seconds."""
LIMITS = Limits(seconds=1.0, memory_mb=64, output_chars=2000)
SPIN = "while True: pass"
"""Where a program has done its harm and is to be ended."""


@pytest.fixture
def bubblewrap() -> str:
    if problem := why_unavailable("bubblewrap"):
        pytest.skip(f"bubblewrap: {problem}")
    return "bubblewrap"


def opened(backend: str, use: Callable[[Sandbox], Awaitable[Any]], limits: Limits = LIMITS, workers: int = 2) -> Any:
    async def run() -> Any:
        sandbox = open_sandbox(backend, limits, workers)
        try:
            return await asyncio.wait_for(use(sandbox), OUTER_S)
        finally:
            await sandbox.close()

    return asyncio.run(run())


def run(backend: str, code: str, limits: Limits = LIMITS) -> Ran | Stopped:
    """Run a program, and check that a second one runs after it in the same sandbox."""

    async def use(sandbox: Sandbox) -> Ran | Stopped:
        came = await sandbox.run(code)
        after = await sandbox.run("print(6 * 7)")
        assert isinstance(after, Ran) and after.output == "42\n", after
        return came

    came = opened(backend, use, limits, workers=1)
    assert len(came.output) <= limits.output_chars
    assert SECRET not in repr(came)
    if isinstance(came, Stopped):
        assert came.message and len(came.message) <= MESSAGE_CHARS and came.message.isprintable()
    return came


class TestWhatAProgramDoes:
    def test_its_output_is_what_it_printed(self, backend: str) -> None:
        came = run(backend, "print('3 + 4 =', 3 + 4)\nprint('ä€😀')\n1 + 1")
        assert isinstance(came, Ran) and came.output == "3 + 4 = 7\nä€😀\n" and came.seconds > 0

    @pytest.mark.parametrize("code", ["", "\n\n", "# nothing", "pass", "x = 1 # \\", "'''a\nb'''"])
    def test_a_program_may_print_nothing(self, backend: str, code: str) -> None:
        assert isinstance(came := run(backend, code), Ran) and came.output == ""

    def test_the_value_of_a_last_expression_is_not_shown(self, backend: str) -> None:
        assert isinstance(came := run(backend, "[10 ** 6] * 10"), Ran) and came.output == ""

    def test_what_it_raises_is_said_with_its_line_and_what_was_printed_before(self, backend: str) -> None:
        came = run(backend, "print('so far')\n\nx = 1 / 0\nprint('never')")
        assert isinstance(came, Stopped) and came.kind == "error"
        assert came.message == "line 3: ZeroDivisionError: division by zero"
        assert came.output == "so far\n"

    def test_what_was_printed_is_there_when_the_time_is_up(self, backend: str) -> None:
        came = run(backend, f"print('so far')\n{SPIN}")
        assert isinstance(came, Stopped) and (came.kind, came.message) == ("time", "no end within 1 s")
        assert came.output in ("so far\n", "")
        if backend == "bubblewrap":
            assert came.output == "so far\n"

    def test_messages_are_one_line_and_short(self, backend: str) -> None:
        came = run(backend, "raise ValueError('a\\nb\\tc\\x1b[31m\\r' + 'd' * 100_000)")
        assert isinstance(came, Stopped) and came.kind == "error"
        assert came.message.startswith("line 1: ValueError: a b c") and len(came.message) >= 300

    def test_nothing_of_a_program_is_seen_by_the_next(self, backend: str) -> None:
        async def use(sandbox: Sandbox) -> list[Ran | Stopped]:
            return [await sandbox.run("kept = 1\nprint(kept)"), await sandbox.run("print(kept)")]

        first, second = opened(backend, use, workers=1)
        assert isinstance(first, Ran)
        assert isinstance(second, Stopped) and second.message == "line 1: NameError: name 'kept' is not defined"

    def test_programs_run_beside_one_another_up_to_the_workers(self, backend: str) -> None:
        async def use(sandbox: Sandbox) -> list[Ran | Stopped]:
            return list(await asyncio.gather(*(sandbox.run(f"print({i} ** 2)") for i in range(12))))

        assert [came.output for came in opened(backend, use, workers=3)] == [f"{i**2}\n" for i in range(12)]

    def test_a_program_that_hangs_holds_up_nobody_but_its_worker(self, backend: str) -> None:
        async def use(sandbox: Sandbox) -> tuple[Any, ...]:
            hung = asyncio.ensure_future(sandbox.run(SPIN))
            await asyncio.sleep(0.2)
            return await sandbox.run("print(1)"), hung.done(), await hung

        quick, was_done, hung = opened(backend, use, Limits(seconds=4))
        assert isinstance(quick, Ran) and not was_done and hung.kind == "time"

    def test_a_cancelled_program_is_killed_and_gives_its_worker_back(self, backend: str) -> None:
        async def use(sandbox: Sandbox) -> Ran | Stopped:
            running = asyncio.ensure_future(sandbox.run(SPIN))
            await asyncio.sleep(0.5)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            return await sandbox.run("print(1)")

        assert isinstance(opened(backend, use, Limits(seconds=600), workers=1), Ran)

    def test_closing_ends_what_runs_and_the_sandbox_can_be_used_again(self, backend: str) -> None:
        async def use(sandbox: Sandbox) -> tuple[Any, ...]:
            running = asyncio.ensure_future(sandbox.run(SPIN))
            await asyncio.sleep(0.5)
            await sandbox.close()
            return await running, await sandbox.run("print(1)")

        ended, after = opened(backend, use, Limits(seconds=20))
        assert isinstance(ended, Stopped) and ended.kind == "crash" and ended.seconds < 15
        assert isinstance(after, Ran)

    def test_a_worker_that_is_killed_from_outside_is_a_crash(self, backend: str) -> None:
        async def use(sandbox: Sandbox) -> tuple[Any, ...]:
            before = set(psutil.Process().children(recursive=True))
            running = asyncio.ensure_future(sandbox.run(SPIN))
            await asyncio.sleep(0.5)
            for child in set(psutil.Process().children(recursive=True)) - before:
                # Bubblewrap's child ends with it.
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            return await running, await sandbox.run("print(1)")

        ended, after = opened(backend, use, Limits(seconds=20), workers=1)
        assert isinstance(ended, Stopped) and ended.kind == "crash"
        assert isinstance(after, Ran)


@pytest.mark.parametrize("code", [SPIN, "x = 3\nwhile True: x = x * x"])
def test_a_program_ends_when_its_parent_is_killed(backend: str, code: str) -> None:
    """Monty's worker goes on until its time is up; nobody is there to kill it then."""
    parent = f"""
import asyncio, psutil
from envs.sandbox import Limits, open_sandbox

async def main():
    running = asyncio.ensure_future(open_sandbox({backend!r}, Limits(seconds=2)).run({code!r}))
    await asyncio.sleep(0.5)
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    await running

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        left = [int(pid) for pid in started.stdout.readline().split()]
        started.kill()
    assert left
    deadline = time.monotonic() + OUTER_S
    while any(psutil.pid_exists(pid) for pid in left):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes, os\nctypes.CDLL(None).prctl(1, 0)\nos.setsid()",
        "import ctypes, os\nctypes.CDLL(None).prctl(1, 0)\nos.setpgid(0, 0)",
        "import os, signal\nos.kill(0, signal.SIGSTOP)",
        "import os, signal\nos.kill(1, signal.SIGSTOP)",
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except Exception: pass",
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    ],
)
def test_nothing_survives_the_end_of_its_time(bubblewrap: str, code: str) -> None:
    """Also not what has left its parent's group, and would be a child of this process no longer."""

    async def use(sandbox: Sandbox) -> list[psutil.Process]:
        running = asyncio.ensure_future(sandbox.run(f"{code}\n{SPIN}"))
        started: set[psutil.Process] = set()
        while not running.done():
            started |= set(psutil.Process().children(recursive=True))
            await asyncio.sleep(0.02)
        assert isinstance(ended := await running, Stopped) and ended.kind == "time", ended
        return list(started)

    started = opened(bubblewrap, use)
    assert len(started) >= 3
    # Whoever is dead may wait for the machine's first process to be buried.
    _, left = psutil.wait_procs([one for one in started if _is_alive(one)], timeout=10)
    assert not [one for one in left if _is_alive(one)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


HOSTILE = {
    "an endless loop": (SPIN, {"time"}),
    "deep recursion": ("def f(n): return f(n + 1) + 1\nf(0)", {"error", "memory"}),
    "recursion that catches": ("def f():\n  try: f()\n  except BaseException: f()\nf()", {"time", "error", "crash"}),
    "deep nesting": ("x = []\nfor _ in range(10 ** 6): x = [x]\nprint(x)", {"error", "memory", "crash", "time"}),
    "nested source": (f"x = {'(' * 5000}1{')' * 5000}", {"syntax", "memory", "error"}),
    "a huge allocation": ("x = [0] * 10 ** 10", {"memory"}),
    "growth": ("x = []\nwhile True: x.append('a' * 1000 + str(len(x)))", {"memory", "time"}),
    "a huge string": ("x = 'a' * 10 ** 12", {"memory"}),
    "a huge format": ("print('%1000000000d' % 1)", {"memory", "output"}),
    "a huge join": ("print(len(''.join(['a' * 10 ** 5] * 10 ** 5)))", {"memory"}),
    "a giant power": ("x = 7 ** 7 ** 12", {"memory", "time"}),
    "squaring": ("x = 3\nwhile True: x = x * x", {"memory", "time"}),
    "a giant shift": ("x = 1 << 10 ** 12", {"memory", "error"}),
    "a fork bomb": ("import os\nwhile True: os.fork()", {"error", "forbidden"}),
    "a fork bomb that catches": (
        "import os\nwhile True:\n  try: os.fork()\n  except BaseException: pass",
        {"time", "error"},
    ),
    "a thread bomb": (
        f"import threading\ndef f():\n  {SPIN}\nfor _ in range(10 ** 4): threading.Thread(target=f).start()",
        {"error", "forbidden"},
    ),
    "a subprocess": ("import subprocess\nsubprocess.run(['/bin/sh', '-c', 'id'])", {"forbidden", "error"}),
    "another interpreter": (f"import os, sys\nos.execv(sys.executable, ['p', '-c', '{SPIN}'])", {"time", "error"}),
    "the network": ("import socket\nsocket.create_connection(('1.1.1.1', 80), 2)", {"forbidden"}),
    "an output flood": ("while True: print('a' * 1000)", {"output"}),
    "an output flood by bits": ("while True: print('a', end='')", {"output"}),
    "one huge print": ("print('a' * 10 ** 7)", {"output"}),
    "an error flood": ("import sys\nwhile True: print('a' * 1000, file=sys.stderr)", {"output", "time"}),
    "an infinite generator": ("import itertools\nlist(itertools.count())", {"memory", "time"}),
    "an infinite generator of its own": (
        "def g():\n  while True: yield 1\nprint(sum(g()))",
        {"time", "forbidden"},
    ),
    "reading stdin": ("print(input())", {"error", "forbidden"}),
    "catching the end": ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", {"time"}),
    "catching what memory raises": (
        "while True:\n  try: x = [0] * 10 ** 10\n  except BaseException: pass",
        {"time", "memory"},
    ),
    "going on at the end": (f"try:\n  {SPIN}\nfinally:\n  {SPIN}", {"time"}),
    "sleeping": ("import time\nwhile True: time.sleep(1000)", {"time"}),
    "a regular expression": ("import re\nre.match(r'(a+)+\\1$', 'a' * 60 + 'b')", {"time", "error"}),
    "a crash": ("import ctypes\nctypes.string_at(0)", {"crash", "forbidden"}),
    "killing itself": ("import os\nos.kill(os.getpid(), 9)", {"crash", "error"}),
    "an abort": ("import os\nos.abort()", {"crash", "error"}),
    "a NUL in the source": ("print(1)\0", {"syntax"}),
    "a lone surrogate in the source": ("print('\ud800')", {"syntax"}),
    "no syntax": ("def", {"syntax"}),
    "an exception of its own": ("class E(Exception): pass\nraise E('x')", {"error", "forbidden"}),
    "an error that hangs when it is shown": (
        f"class E(Exception):\n  def __str__(self):\n    {SPIN}\nraise E()",
        {"time", "forbidden"},
    ),
    "an interrupt": ("raise KeyboardInterrupt", {"error"}),
    "ending with a status": ("import sys\nsys.exit(3)", {"error"}),
    "closing everything": (f"import os\nos.closerange(0, 64)\n{SPIN}", {"time", "error"}),
    "taking the reporter away": (
        "import os, sys\nsys.stdout = sys.stderr = None\nos.write = os._exit = None\nraise ValueError('x')",
        {"error"},
    ),
    "lifting the limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        {"error", "forbidden"},
    ),
    "a million lines": ("x = 1\n" * 10**6 + SPIN, {"time", "memory"}),
}


@pytest.mark.parametrize(("fd", "kind"), [(1, "output"), (2, "time")])
def test_a_flood_that_fills_a_wide_pipe_ends_within_its_limits(bubblewrap: str, fd: int, kind: str) -> None:
    """asyncio neither reads on by itself from a pipe as full as this, nor says that its process ended."""
    widen = f"import fcntl, os\nfcntl.fcntl({fd}, fcntl.F_SETPIPE_SZ, 1 << 20)"
    came = run(bubblewrap, f"{widen}\nwhile True: os.write({fd}, b'a' * (1 << 20))")
    assert isinstance(came, Stopped) and came.kind == kind


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_program_ends_as_a_result(backend: str, what: str) -> None:
    code, kinds = HOSTILE[what]
    came = run(backend, code)
    assert isinstance(came, Stopped) and came.kind in kinds, came


class TestWhatAProgramSees:
    """Programs print what they get hold of: they must get nothing, whether they end or not."""

    @pytest.mark.parametrize(
        "code",
        [
            "import os\nprint(os.environ)",
            "import os\nprint(os.environb)",
            "import os\nprint(os.getenv('PALAESTRA_SECRET'))",
            "print(open('/proc/self/environ').read())",
            "print(open('/proc/1/environ').read())",
            "import os\nprint(open(f'/proc/{os.getppid()}/environ').read())",
            "import os\nfor n in os.listdir('/proc'): print(open(f'/proc/{n}/environ').read())",
            "import ctypes\nprint(ctypes.CDLL(None).getenv(b'PALAESTRA_SECRET'))",
            "import posix\nprint(posix.environ)",
        ],
    )
    def test_the_environment_is_not_there(self, backend: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PALAESTRA_SECRET", SECRET)
        os.putenv("PALAESTRA_SECRET", SECRET)
        assert SECRET not in run(backend, code).output  # `run` looks through the message as well

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "/etc/hostname", "/proc/self/maps", "/dev/null", "/bin/sh", "/tmp"]
    )
    def test_files_of_the_machine_are_not_there(self, backend: str, path: str) -> None:
        for code in (f"print(open({path!r}, 'rb').read())", f"from pathlib import Path\nprint(Path({path!r}).stat())"):
            came = run(backend, code)
            assert isinstance(came, Stopped) and came.kind in ("error", "forbidden") and not came.output

    def test_files_of_the_project_are_not_there(self, backend: str, tmp_path: Path) -> None:
        (tmp_path / "secret.txt").write_text(SECRET)
        for path in (Path(__file__), Path.cwd() / "pyproject.toml", tmp_path / "secret.txt", Path(sys.executable)):
            assert isinstance(run(backend, f"print(open({str(path)!r}, 'rb').read(10))"), Stopped)
        assert isinstance(run(backend, "import envs.sandbox"), Stopped)
        assert isinstance(run(backend, "import pydantic"), Stopped)

    def test_nothing_can_be_written(self, backend: str, tmp_path: Path) -> None:
        paths = [tmp_path / "made", Path.cwd() / "made.txt", "/made", "/tmp/made", "/dev/shm/made", "/var/tmp/made"]
        for path in [*paths, "made", "/python/made", "/python/lib/made", "/etc/made", "/usr/lib/made"]:
            came = run(backend, f"open({str(path)!r}, 'w').write('a')\nprint('written')")
            assert isinstance(came, Stopped) and not came.output and not Path(path).exists()
        came = run(backend, f"import os\nos.symlink('/etc/passwd', '/link')\nos.mkdir('{tmp_path}/made')")
        assert isinstance(came, Stopped) and not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "code",
        [
            "import importlib\nprint(importlib.import_module('subprocess').check_output(['id']))",
            "print(__import__('subprocess').check_output(['id']))",
            "print(__builtins__['__import__']('os').popen('id').read())",
            "print(getattr(__builtins__, '__import__')('os').popen('id').read())",
            "import sys\nprint(sys.modules['os'].popen('id').read())",
            "import ctypes\nprint(ctypes.CDLL(None).execve, ctypes.CDLL(None).fork())",
            "for c in ().__class__.__mro__[1].__subclasses__():\n"
            "  if c.__name__ == 'Popen' or 'wrap_close' in c.__name__:\n"
            "    print(c.__init__.__globals__['popen']('id').read())",
            "print((lambda: 0).__globals__['__builtins__'].eval('__import__(\"os\").popen(\"id\").read()'))",
            "import sys\nprint(sys._getframe(1).f_globals['os'].popen('id').read())",
            "import code, pty\npty.spawn(['id'])",
            "import multiprocessing\nmultiprocessing.Process(target=print, args=('uid=',)).start()",
        ],
    )
    def test_no_way_round_leads_to_a_process(self, backend: str, code: str) -> None:
        assert "uid=" not in run(backend, code).output

    def test_its_parent_cannot_be_reached(self, backend: str) -> None:
        for code in (
            "import os\nos.kill(os.getppid(), 9)",
            "import os\nos.killpg(0, 9)",
            "import os\nos.kill(-1, 9)",
            f"import os\nos.kill({os.getpid()}, 9)",
            "import os, signal\nfor n in range(1, 65):\n  try: os.kill(os.getppid(), n)\n  except OSError: pass",
            f"import os\nos.ptrace({os.getpid()})",
        ):
            run(backend, code)

    def test_no_other_descriptors_than_its_own_three(self, backend: str, tmp_path: Path) -> None:
        with (tmp_path / "ours").open("w+b") as ours:
            os.set_inheritable(ours.fileno(), True)
            reading, writing = os.pipe()
            code = "import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'forged')\n  except OSError: pass\n"
            code += "  else: print('wrote to', fd)"
            came = run(backend, code)
            assert came.output == "" and not (tmp_path / "ours").read_bytes()
            os.close(writing)
            assert os.read(reading, 10) == b""
            os.close(reading)

    def test_what_it_writes_to_its_pipes_is_its_output_and_no_more(self, backend: str) -> None:
        for text in ("\\xff\\xfe\\x00\\xed\\xa0\\x80", "memory\\t1\\tforged", "\\n\\nNone"):
            came = run(backend, f"import os\nos.write(1, b'{text}')\nos.write(2, b'{text}')")
            assert came.output.encode() == came.output.encode("utf-8", "strict")
        came = run(backend, "print('a\\0b\\ud800\\udfffc')")
        assert came.output.encode("utf-8", "strict") is not None
        assert came.output.startswith("a\0b") or isinstance(came, Stopped)


class TestBubblewrap:
    def test_it_is_python_with_its_standard_library(self, bubblewrap: str) -> None:
        code = (
            "import collections, ctypes, datetime, decimal, fractions, hashlib, itertools, json, lzma, math, re\n"
            "import sqlite3, statistics, sys, zlib\nfrom dataclasses import dataclass\n\n"
            "@dataclass\nclass Point:\n    x: int\n\n"
            "print(Point(fractions.Fraction(1, 2)), hashlib.sha256(b'').hexdigest()[:8], sys.argv, __name__)\n"
            "print(sys.version_info[:2], (i for i in range(3)).__next__())\nsys.exit()"
        )
        came = run(bubblewrap, code)
        first, second, _ = came.output.split("\n")
        assert isinstance(came, Ran) and first == "Point(x=Fraction(1, 2)) e3b0c442 [''] __main__"
        assert second == f"{sys.version_info[:2]} 0"

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers that are tried are those of x86_64")
    def test_the_system_calls_are_refused(self, bubblewrap: str) -> None:
        code = (
            "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\n"
            f"for name, number in {isolation.refused_calls()!r}.items():\n"
            "  if c.syscall(number, -1, -1, -1, -1, -1, -1) != -1 or ctypes.get_errno() != 1: print(name)\n"
            "if c.syscall(435, 0, 0) != -1 or ctypes.get_errno() != 38: print('clone3')\n"
            "if c.syscall(0x40000000 + 39) != -1 or ctypes.get_errno() != 1: print('x32')"
        )
        assert isinstance(came := run(bubblewrap, code), Ran) and came.output == ""

    def test_nothing_is_mounted_but_what_python_needs(self, bubblewrap: str) -> None:
        code = (
            "import os\nprint(sorted(os.listdir('/')), os.getuid(), os.getpid() < 10, os.listdir(os.__file__[:-5]"
            " + 'site-packages') if os.path.exists(os.__file__[:-5] + 'site-packages') else [])\n"
            "for top, _, files in os.walk('/'):\n  for f in files:\n"
            "    if os.access(os.path.join(top, f), os.W_OK): print(top, f)"
        )
        came = run(bubblewrap, code)
        assert isinstance(came, Ran)
        seen = "['etc', 'lib', 'lib64', 'python', 'usr']"
        assert came.output in (
            f"{seen} 65534 True []\n",
            f"{seen.replace(chr(39) + 'lib64' + chr(39) + ', ', '')} 65534 True []\n",
        )

    def test_there_is_no_network_even_without_the_filter(self, bubblewrap: str) -> None:
        command = isolation.command("bwrap", 9)
        at = command.index("--seccomp")
        code = "import socket\nprint([name for _, name in socket.if_nameindex()])\n"
        code += "socket.create_connection(('1.1.1.1', 80), 2)"
        shown = subprocess.run([*command[:at], *command[at + 2 :], "-c", code], capture_output=True, text=True)
        assert shown.stdout == "['lo']\n" and "Network is unreachable" in shown.stderr

    def test_the_messages_are_clipped_alike(self) -> None:
        assert INSIDE_CHARS == MESSAGE_CHARS


class TestMonty:
    def test_a_program_prints_the_same_at_every_run(self) -> None:
        code = "import random, datetime, time\ntime.sleep(600)\n"
        code += "print(random.random(), datetime.datetime.now(), {'a', 'b'})"
        assert len({run("monty", code).output for _ in range(3)}) == 1

    def test_what_of_python_it_lacks_is_forbidden(self) -> None:
        came = run("monty", "class A(int): pass")
        assert isinstance(came, Stopped) and came.kind == "forbidden" and "does not yet support" in came.message


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def programs(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Ran | Stopped]]:
    """Runs one program after another in one sandbox."""
    if problem := why_unavailable(request.param):
        pytest.skip(f"{request.param}: {problem}")
    with asyncio.Runner() as runner:
        sandbox = open_sandbox(request.param, LIMITS, workers=1)
        runner.run(sandbox.run("its worker is there before the test begins"))
        yield lambda code: runner.run(asyncio.wait_for(sandbox.run(code), OUTER_S))
        runner.run(sandbox.close())


WORDS = st.sampled_from(
    [*"()[]{}:,.=+*-\\\"'\n\t #\0", "print", "def f", "lambda", "x", "1", "10", "if", "for", "in", "try"]
)


@settings(max_examples=40)
@given(code=st.one_of(st.text(), st.text(st.characters()), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_gives_a_result(programs: Callable[[str], Ran | Stopped], code: str) -> None:
    came = programs(code)
    assert isinstance(came, (Ran, Stopped))
    came.output.encode()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"backend": "docker"}, "unknown sandbox 'docker'; one of: bubblewrap, monty"),
        ({"backend": "mont"}, "did you mean 'monty'?"),
        ({"workers": 0}, "sandbox monty: expected 1 to 1024 workers, found 0"),
        ({"limits": {"seconds": 0}}, "sandbox limit seconds: expected a number from 0.01 to 3600, found 0"),
        ({"limits": {"memory_mb": 1}}, "sandbox limit memory_mb: expected a number from 8 to 1048576, found 1"),
        ({"limits": {"memory_mb": 64.5}}, "sandbox limit memory_mb: expected a whole number, found 64.5"),
        ({"limits": {"seconds": float("nan")}}, "sandbox limit seconds: expected a number"),
        ({"limits": {"output_chars": "many"}}, "sandbox limit output_chars: expected a number"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        limits = Limits(**asked.pop("limits", {}))
        open_sandbox(**{"backend": "monty", "limits": limits, **asked})
    assert said in str(raised.value)


def test_what_is_missing_is_said_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from envs.sandbox import bubblewrap, monty

    def absent(package: str) -> str:
        raise monty.PackageNotFoundError(package)

    monkeypatch.setattr(monty, "version", absent)
    with pytest.raises(ConfigError, match="pydantic-monty-client is not installed; pip install 'palaestra\\[tools\\]'"):
        open_sandbox("monty")
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda _: None)
    bubblewrap.why_unavailable.cache_clear()
    try:
        if sys.platform.startswith("linux"):
            with pytest.raises(ConfigError, match="bwrap is not installed; apt-get install bubblewrap"):
                open_sandbox("bubblewrap")
    finally:
        bubblewrap.why_unavailable.cache_clear()
