"""Trackers: metrics told to TensorBoard, MLflow, Weights & Biases or trackio too, where that was asked for.

The run's own metrics.jsonl is always written. A tracker's library is imported only when it is asked for; what it needs
to log in it takes from the environment itself, and nothing of that is read, shown or stored here.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any

from envs.errors import ConfigError, unknown
from experiments.training.training import Line, Training

PROJECT = "palaestra"
logger = logging.getLogger("palaestra.training")
Log = Callable[[dict[str, float], int], None]
"""(name -> value, after how many updates)."""


@contextmanager
def _tensorboard(training: Training) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(training.path / "tensorboard"), purge_step=training.updates + 1)

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _mlflow(training: Training) -> Iterator[Log]:
    import mlflow  # pyright: ignore[reportMissingImports]

    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=training.name):
        yield lambda values, step: mlflow.log_metrics(values, step=step)


@contextmanager
def _wandb(training: Training) -> Iterator[Log]:
    import wandb  # pyright: ignore[reportMissingImports]

    settings = wandb.Settings(console="off")  # what is printed is nobody else's
    run = wandb.init(project=PROJECT, name=training.name, dir=str(training.path), settings=settings)
    try:
        # Not by the tracker's own step: a measurement and an update share one, and it must never go back.
        yield lambda values, step: run.log({**values, "updates": step})
    finally:
        run.finish()


@contextmanager
def _trackio(training: Training) -> Iterator[Log]:
    import trackio  # pyright: ignore[reportMissingImports]

    trackio.init(project=PROJECT, name=training.name, embed=False)
    try:
        yield lambda values, step: trackio.log({**values, "updates": step})
    finally:
        trackio.finish()


TRACKERS: Mapping[str, Callable[[Training], Any]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}


def require_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError for a tracker that is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise ConfigError(f"tracker {name} is not installed: pip install {name}, or leave --track {name} out")


@contextmanager
def open_trackers(names: Sequence[str], training: Training) -> Iterator[Callable[[Line], None]]:
    """A function that tells a line of metrics to all of them. One that fails is told no more: training goes on.

    Raises:
        ConfigError: one could not be opened. Errors of trackers are named by their type alone: what they say may hold
            an address with a password in it.
    """
    # They print where one JSON object and nothing else may be.
    with redirect_stdout(sys.stderr), ExitStack() as stack:
        logs: dict[str, Log] = {}
        for name in names:
            try:
                logs[name] = stack.enter_context(TRACKERS[name](training))
            except Exception as error:  # noqa: BLE001 - whatever its library raises
                raise ConfigError(
                    f"tracker {name} could not be opened ({type(error).__name__}); set it up in the environment as its "
                    f"documentation says, or leave --track {name} out"
                ) from None

        def tell(line: Line) -> None:
            values = flat(line)
            for name, log in list(logs.items()):
                try:
                    log(values, line["updates"])
                except Exception as error:  # noqa: BLE001 - as above
                    del logs[name]
                    logger.warning("tracker %s failed (%s) and is told no more", name, type(error).__name__)

        yield tell


def flat(line: Line) -> dict[str, float]:
    """The numbers of a line by their path: `update/policies/main/loss`."""
    kind = f"{line['kind']}/{line['name']}" if line["kind"] == "test" else line["kind"]
    return dict(_numbers({key: value for key, value in line.items() if key not in ("kind", "updates")}, kind))


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}/{key}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, float(value)
