"""What docs/models.md shows works as written; its vLLM and endpoint commands are under test beside their engines."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from experiments import Run
from experiments.command import main

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
class TestThePage:
    def test_its_commands_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        (recorded,) = re.findall(r"`replay.jsonl` holds lines such as `(\{.*\})`", DOC)
        (tmp_path / "replay.jsonl").write_text(f"{recorded}\n", encoding="utf-8")
        commands = re.findall(r"^palaestra (run .*)$", DOC, re.MULTILINE)
        here = [c for c in commands if not any(kind in c for kind in ("vllm:", "openai:"))]
        assert len(here) == 3
        for number, command in enumerate(here):
            asked = [word.replace("replay:", f"replay:{tmp_path}/") for word in shlex.split(command)]
            named = [] if "--name" in asked else ["--name", f"run-{number}"]
            assert main([*asked, *named, "--runs", str(tmp_path)]) == 0
        alike = [Run.open(name, tmp_path).summary().digest for name in ("by-transformers", "run-1")]
        assert alike[0] == alike[1], "one replica or two, by its name or by its folder"
        assert Run.open("run-2", tmp_path).summary().accuracy == 1

    def test_weights_are_published(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(ROOT)
        (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
        (tmp_path / "publish.py").write_text(code, encoding="utf-8")
        runpy.run_path(str(tmp_path / "publish.py"), run_name="__main__")
        assert capsys.readouterr().out.startswith("trained-1 gap ")
