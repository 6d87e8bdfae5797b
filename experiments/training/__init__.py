"""Training: policies behind the roles learn from the outcomes of episodes.

`train` begins a run, `resume` finishes one that was killed. Both are imported when first used, as everything of
`experiments` is: the command answers `--help` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.training.recipe import Recipe
    from experiments.training.run import resume, train
    from experiments.training.training import Training

_HOME = {"Recipe": "recipe", "Training": "training", "resume": "run", "train": "run"}
__all__ = ["Recipe", "Training", "resume", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'experiments.training' has no attribute {name!r}")
    return getattr(import_module(f"experiments.training.{_HOME[name]}"), name)
