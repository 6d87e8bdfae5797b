"""What is run: runs, the trace store, statistics, the command.

`run` plays a topology over an env and returns a `Run`; `Run.open` opens a stored one; `sweep` plays many and compares
them. All are imported when first used, so that the command answers `--help` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.runner import run
    from experiments.runs import Run, Summary, list_runs
    from experiments.sweeps import Sweep, sweep

_HOME = {"Run": "runs", "Summary": "runs", "Sweep": "sweeps", "list_runs": "runs", "run": "runner", "sweep": "sweeps"}
__all__ = ["Run", "Summary", "Sweep", "list_runs", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    return getattr(import_module(f"experiments.{_HOME[name]}"), name)
