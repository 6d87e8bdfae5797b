"""What is run: runs, training, the trace store, statistics, the command.

`run` plays a topology over an env and returns a `Run`; `Run.open` opens a stored one; `sweep` plays many and compares
them; `train` has the policies behind the roles learn; `resume` finishes any of these that was killed. All are imported
when first used, so that the command answers `--help` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.resuming import resume
    from experiments.runner import run
    from experiments.runs import Run, Summary, list_runs
    from experiments.sweeps import Sweep, sweep
    from experiments.training import Training, train

_HOME = {
    "Run": "runs",
    "Summary": "runs",
    "Sweep": "sweeps",
    "Training": "training",
    "list_runs": "runs",
    "resume": "resuming",
    "run": "runner",
    "sweep": "sweeps",
    "train": "training",
}
__all__ = ["Run", "Summary", "Sweep", "Training", "list_runs", "resume", "run", "sweep", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    return getattr(import_module(f"experiments.{_HOME[name]}"), name)
