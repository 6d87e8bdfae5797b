"""Starting files for clusters, as far as they can be checked without one."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.serving import SCOPES, Serving
from experiments.command import palaestra

FOLDER = Path(__file__).parents[2] / "experiments" / "cluster"
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "RayJob": ({"apiVersion", "kind", "metadata", "spec"}, set()),
    "spec": ({"entrypoint", "rayClusterSpec"}, {"shutdownAfterJobFinishes", "runtimeEnvYAML", "submissionMode"}),
    "rayClusterSpec": ({"headGroupSpec"}, {"rayVersion", "enableInTreeAutoscaling", "workerGroupSpecs"}),
    "headGroupSpec": ({"template", "rayStartParams"}, {"serviceType"}),
    "workerGroupSpecs": (
        {"groupName", "minReplicas", "maxReplicas", "template", "rayStartParams"},
        {"replicas", "numOfHosts"},
    ),
}
"""Of KubeRay's types (ray-operator/apis/ray/v1): fields that have to be there, and some that can be."""


def check_fields(kind: str, value: dict[str, Any]) -> None:
    needed, allowed = FIELDS[kind]
    assert needed <= value.keys() <= needed | allowed, f"{kind} has {sorted(value)}"


def test_the_ray_job_has_what_kuberay_asks_for() -> None:
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text(encoding="utf-8"))
    check_fields("RayJob", job)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_fields("spec", job["spec"])
    cluster = job["spec"]["rayClusterSpec"]
    check_fields("rayClusterSpec", cluster)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    check_fields("headGroupSpec", groups[0])
    for group in groups[1:]:
        check_fields("workerGroupSpecs", group)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["name"] and container["image"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_its_command_is_one_that_the_command_takes() -> None:
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text(encoding="utf-8"))
    name, verb, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert name == "palaestra"
    options = palaestra.commands[verb].make_context(verb, arguments).params
    pools = {key: value for key, value in options["settings"].items() if key.partition(".")[0] in SCOPES}
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert Serving().set(pools).pool.max == workers["maxReplicas"]
    assert str(options["root"]).startswith(workers["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"])


@pytest.fixture
def submitted(tmp_path: Path) -> Any:
    """Runs the script with a stand-in for Slurm; gives its status and what srun was asked, if it was."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, body in {
        "scontrol": "printf 'node-7\\nnode-8\\n'",
        "srun": f'printf "%s\\n" "$@" > {tmp_path}/asked',
    }.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)

    def submit(*arguments: str) -> tuple[int, list[str]]:
        slurm = {
            "SUBMIT_DIR": str(tmp_path), "JOB_NODELIST": "node-[7-8]", "JOB_ID": "4711", "JOB_NUM_NODES": "2",
            "CPUS_PER_TASK": "64", "GPUS_ON_NODE": "8",
        }  # fmt: skip
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", **{f"SLURM_{k}": v for k, v in slurm.items()}}
        done = subprocess.run(["bash", FOLDER / "slurm.sh", *arguments], env=environment, capture_output=True)
        asked = tmp_path / "asked"
        return done.returncode, asked.read_text().splitlines() if asked.exists() else []

    return submit


def test_the_slurm_script_starts_ray_on_every_machine_and_the_run_on_the_first(submitted: Any) -> None:
    status, asked = submitted("run", "solo", "--env", "arithmetic", "--set", "name=two words")
    at = "node-7:24711"
    ray = [".venv/bin/ray", "symmetric-run", "--address", at, "--min-nodes", "2", "--num-cpus=64", "--num-gpus=8", "--"]
    run = [".venv/bin/palaestra", "run", "solo", "--env", "arithmetic", "--set", "name=two words", "--address", at]
    assert status == 0 and asked == ["--nodes=2", "--ntasks=2", *ray, *run]


def test_ray_takes_the_options_that_the_slurm_script_gives_it() -> None:
    from ray.scripts import scripts

    taken = {name for option in scripts.start.params for name in option.opts}
    assert {"--num-cpus", "--num-gpus"} <= taken and "symmetric-run" in scripts.cli.commands


def test_the_slurm_script_says_what_it_misses(submitted: Any) -> None:
    assert submitted() == (2, [])
    assert subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], capture_output=True).returncode == 0
    lines = (FOLDER / "slurm.sh").read_text().splitlines()
    assert "set -euo pipefail" in lines and all(line.isascii() for line in lines)
