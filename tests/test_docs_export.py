"""What docs/export.md shows works as written."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from experiments.command import main
from experiments.viewer.server import STATIC
from tests.experiments.export.test_otel import Receiver, receiver

__all__ = ["receiver"]
ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.model
@pytest.mark.slow
def test_its_commands_run(workplace: Path, data: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    if not (STATIC / "standalone.html").is_file():
        pytest.skip("the viewer's pages are not built")
    shutil.copy(data / "mad_debates_150.jsonl", "mad_debates.jsonl")
    commands = [shlex.split(command) for command in re.findall(r"^palaestra (.*)$", DOC, re.MULTILINE)]
    assert [command[0] for command in commands] == ["run", "export", "export", "export", "export", "export", "import"]
    for command in commands:
        if "--inspect" in command:
            continue  # in an environment of its own: tests/experiments/export/test_inspect.py
        few = ["--backend", "local"] if command[0] == "run" else []
        assert main([receiver.url if "4318" in word else word for word in [*command, *few]]) == 0, command
    assert Path("debate.html").stat().st_size > 10**6 and len(receiver.spans()) > 100
    capsys.readouterr()
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    Path("read.py").write_text(code, encoding="utf-8")
    found = runpy.run_path("read.py")
    assert len(found["episodes"]) == 20 and "moderator" in capsys.readouterr().out
