"""Finish what was killed or stopped: a run, a sweep or a training, whichever a folder holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, nearest
from experiments.runner import resume_run
from experiments.runs import ASKED, CONFIG, RUNS, TRAINING, Run
from experiments.sweeps import Sweep, resume_sweep
from experiments.training.run import resume as resume_training
from experiments.training.training import Training


def resume(
    name: str | Path,
    root: Path | str = RUNS,
    *,
    address: str | None = None,
    failed: bool = False,
    told: Callable[[dict[str, Any]], None] = lambda line: None,
    progress: bool | None = None,
    **ready_made: Any,
) -> Run | Sweep | Training:
    """Finish a run, a sweep or a training: it ends as one that was never killed. What is finished is left as it is.

    Args:
        name: of the run, or its path.
        root: the folder of runs.
        address: of a Ray cluster, in place of the one that it began on.
        failed: ask the episodes of a run or a sweep that failed again, too.
        told: called with every line of a training's metrics.
        progress: show progress on stderr; None does so when it is a terminal.
        ready_made: what was given ready-made in Python, given again: a run's topology, env, cast or settings, a
            sweep's env, a training's recipe, topology, env or cast.

    Raises:
        ConfigError: there is no such run; another process plays it; something has to be given again.
        EngineError, StoreError: as in `run`; for a training TrainingError.
    """
    root = Path(root)
    for path in (root / name, Path(name)):
        if (path / TRAINING).is_file():
            if failed:
                raise ConfigError(f"{name} is a training, which learns from what ended: nothing of it is asked again")
            return resume_training(path, root, address=address, told=told, **ready_made)
        if (path / ASKED).is_file():
            return resume_sweep(path, address=address, failed=failed, progress=progress, **ready_made)
        if (path / CONFIG).is_file():
            return resume_run(Run(path), address=address, failed=failed, progress=progress, **ready_made)
    names = {path.parent.name for file in (TRAINING, ASKED, CONFIG) for path in root.glob(f"*/{file}")}
    raise ConfigError(f"no run {str(name)!r} in {root}/; {nearest(str(name), names)}")
