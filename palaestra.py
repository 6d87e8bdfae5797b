"""Entry point of the command `palaestra` and of `python -m palaestra`.

Our packages have plain names (envs, agents, graphs, experiments), and so have those of others: openai-agents installs
an `agents`, for one. This module stands outside them, so that it can say so plainly when one of ours is shadowed.
"""

import hashlib
import sys
from base64 import urlsafe_b64encode
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("envs", "agents", "graphs", "experiments")


def shadowed(folder: Path | None = None) -> dict[str, str]:
    """Our package names under which Python finds something else -> where that lies.

    Args:
        folder: look as a process does that searches this folder first, as Ray's workers search the working directory.
    """
    return {name: where for name in PACKAGES if (where := _found_instead(name, folder))}


def explain(name: str, where: str) -> str:
    """One line: what is shadowed, by what, and how to mend it."""
    owners = [owner for owner in metadata.packages_distributions().get(name, []) if owner != "palaestra"]
    by = f"the package of {owners[0]}" if owners else "another package of that name"
    mend = f"install palaestra and {owners[0]} in separate environments" if owners else "rename it, or start elsewhere"
    return f"`{name}` is not Palaestra's: Python finds {by} at {where}; {mend}"


def main() -> None:
    wrong = shadowed()
    if wrong:
        for name, where in wrong.items():
            print(f"palaestra: {explain(name, where)}", file=sys.stderr)
        sys.exit(2)
    from experiments.command import main as command

    sys.exit(command())


def _found_instead(name: str, folder: Path | None) -> str | None:
    spec = find_spec(name) if folder is None else PathFinder.find_spec(name, [str(folder), *sys.path])
    if folder is not None and spec is None:
        return None  # an editable installation, which no path lists
    found = Path(spec.origin).resolve() if spec and spec.origin else None
    ours = (Path(__file__).parent / name / "__init__.py").resolve()
    if found != ours:
        return str(found or (spec and spec.submodule_search_locations) or "nowhere")
    return None if _as_installed(name, ours) else f"{ours} (overwritten by another installation)"


def _as_installed(name: str, path: Path) -> bool:
    """Whether the file is the one that pip installed with us; two distributions may write to the same folder."""
    try:
        files = metadata.files("palaestra") or []
    except metadata.PackageNotFoundError:
        return True
    here = (f for f in files if str(f) == f"{name}/__init__.py" and Path(str(f.locate())).resolve() == path)
    recorded = next((f.hash for f in here), None)
    if recorded is None:
        return True
    digest = hashlib.new(recorded.mode, path.read_bytes()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode() == recorded.value


if __name__ == "__main__":
    main()
