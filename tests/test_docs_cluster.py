"""What docs/cluster.md shows works as written."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments import Run
from experiments.command import main

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
PYTHON = ROOT / ".venv-jobs" / "bin" / "python"
HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(True, head_node_args={"num_cpus": 2, "include_dashboard": True, "dashboard_port": 0})
print(cluster.head_node.webui_url or cluster.webui_url, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_started")
def test_its_run_is_the_same_with_more_replicas_and_workers(tmp_path: Path) -> None:
    (command,) = re.findall(r"^palaestra (run .*)$", DOC, re.MULTILINE)
    asked = [*shlex.split(command), "--runs", str(tmp_path)]
    assert main(asked) == 0
    plain = [*asked[: asked.index("--set")], "--name", "here", "--runs", str(tmp_path), "--backend", "local"]
    assert main(plain) == 0
    assert len({Run.open(name, tmp_path).summary().digest for name in ("spread", "here")}) == 1


@pytest.mark.model
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="Ray's job server is not installed: make .venv-jobs/ready")
def test_its_job_runs_on_a_cluster_that_is_handed_the_code(tmp_path: Path) -> None:
    (command,) = re.findall(r"^ray (job submit .*)$", DOC, re.MULTILINE)
    path = {**os.environ, "PATH": f"{PYTHON.parent}:{os.environ['PATH']}"}
    with subprocess.Popen([PYTHON, "-c", HEAD], stdin=-1, stdout=-1, text=True, env=path, cwd=tmp_path) as head:
        assert head.stdin and head.stdout
        try:
            at = head.stdout.readline().strip()
            asked = shlex.split(command.replace("http://HOST:8265", f"http://{at}").replace("/shared", str(tmp_path)))
            submit = [PYTHON, "-m", "ray.scripts.scripts", *asked]
            done = subprocess.run(submit, cwd=ROOT, capture_output=True, text=True, timeout=240, env=path)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        finally:
            head.stdin.close()
    config = json.loads((tmp_path / "runs" / "there" / "config.json").read_text())
    assert config["backend"] == "ray" and Run.open("there", tmp_path / "runs").summary().failed == 0
