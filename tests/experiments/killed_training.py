"""Trains in processes that kill themselves with -9 and resumes in others: `python -m … ROOT NAME LAG POINT...`.

Each POINT is CLASS.METHOD:N, killed before the N-th call of it, or with a + at the end, after it. At `none` it lives.
"""

import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from experiments.training import resume, train

PLACES = {
    "StoreWriter": "experiments.store",
    "LocalTeacher": "experiments.training.teacher",
    "Training": "experiments.training.training",
    "Registry": "experiments.training.registry",
    "LocalPool": "agents.pool",
}
SETTINGS: dict[str, Any] = {
    "iterations": 4,
    "tasks": 3,
    "samples": 4,
    "evaluate_every": 2,
    "validation_tasks": 3,
    "validation_samples": 2,
    "test_tasks": 3,
    "test_samples": 2,
    "env.level": 6,
    "advantage": "raw",  # so that every iteration teaches something, however able the model
    "trainer.learning_rate": 1e-4,
}


def killed_at(point: str) -> None:
    """Have the process end at a point."""
    target, _, count = point.partition(":")
    name, _, method = target.partition(".")
    owner = getattr(importlib.import_module(PLACES[name]), name)
    original, left = getattr(owner, method), [int(count.rstrip("+"))]

    def end() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def plain(*args: Any, **options: Any) -> Any:
        if not count.endswith("+"):
            end()
        result = original(*args, **options)
        if count.endswith("+"):
            end()
        return result

    async def awaited(*args: Any, **options: Any) -> Any:
        if not count.endswith("+"):
            end()
        result = await original(*args, **options)
        if count.endswith("+"):
            end()
        return result

    is_async = original.__code__.co_flags & 0x80
    setattr(owner, method, awaited if is_async else plain)


def in_process_of_its_own(root: Path, name: str, lag: str, point: str) -> int:
    """Begin the run, or go on with it. Returns the process's exit status, negative for a signal."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        if point != "none":
            killed_at(point)
        if (root / name).is_dir():
            resume(name, root)
        else:
            train("grpo", seed=3, backend="local", root=root, name=name, settings={**SETTINGS, "lag": lag})
        os._exit(0)
    except BaseException:  # noqa: BLE001 - it must not go on as its parent
        traceback.print_exc()
        os._exit(1)


def main(root: str, name: str, lag: str, *points: str) -> None:
    # What takes long to import is there before the first fork; nothing of it is run.
    for module in ("agents.learning.trainer", "agents.engines.transformers", "experiments.training.run"):
        importlib.import_module(module)
    for number, point in enumerate(points):
        if number and number % 2 == 0:
            with (Path(root) / name / "metrics.jsonl").open("a") as file:
                file.write('{"kind": "upd')  # as a kill in the midst of writing leaves it
        print(point, in_process_of_its_own(Path(root), name, lag, point), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
