"""What is run: runs, the trace store, statistics, the command.

`run` plays a topology over an env and returns a `Run`; `Run.open` opens a stored one. Both are imported when first
used, so that the command answers `--help` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.runner import run
    from experiments.runs import Run, Summary, list_runs

__all__ = ["Run", "Summary", "list_runs", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    return getattr(import_module("experiments.runner" if name == "run" else "experiments.runs"), name)
