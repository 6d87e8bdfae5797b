"""Faults of a training: its process is killed, or its trainer."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.faults.drivers import Driver, preload
from experiments.faults.ground import Ground, Outcome
from experiments.training.training import METRICS, Training

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
POINTS = (
    "StoreWriter.append:20",  # in the midst of the second iteration's episodes
    "LocalTeacher.update:1",  # episodes there, nothing learned
    "LocalTeacher.export:1+",  # weights written, not entered
    "Registry.add:1+",  # entered, no checkpoint
    "Training.append:1+",  # metrics written, the state not
    "Training.mark:1",  # all but the mark that the state is whole
    "LocalPool.publish:1+",  # served, not measured
    "StoreWriter.append:8",  # in the midst of the last measurement
)
LAGGED = ("LocalTeacher.update:2", "Training.mark:1", "StoreWriter.append:15")
FEW = ("StoreWriter.append:20", "Training.mark:1")
preload("agents.engines.transformers", "agents.learning.trainer")


class TrainingGround(Ground):
    """A short training of the embedded model."""

    def __init__(self, folder: Path, lag: int = 0):
        super().__init__(folder, model="embedded")
        settings = {**SETTINGS, "lag": lag}
        pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        self._train = ["train", "grpo", "--env", "arithmetic", "--seed", "3", *pairs]

    def train(self, name: str, backend: str = "local", **how: Any) -> Driver:
        """Begin a training, or resume it where there is one."""
        if (self.root / name).is_dir():
            return self.drive("resume", name, **how)
        return self.drive(*self._train, "--backend", backend, "--address", "local", "--name", name, **how)

    def metrics(self, name: str, in_order: bool) -> list[str]:
        """All lines without their times; where two tasks write them at once, in an order of their own."""
        lines = Training(self.root / name).lines()
        if not in_order:
            lines.sort(key=lambda line: (line["kind"], line.get("name", ""), line["updates"]))
        return [json.dumps({key: value for key, value in line.items() if key != "seconds"}) for line in lines]

    def compared(self, fault: str, ended: str, name: str, in_order: bool = True) -> Outcome:
        updates, expected = (len(Training(self.root / one).lines("update")) for one in (name, "unbroken"))
        same = self.metrics(name, in_order) == self.metrics("unbroken", in_order)
        return Outcome(fault, ended, updates, expected, same, "updates")


def training_killed(folder: Path, points: Sequence[str] = FEW, lag: int = 0) -> Outcome:
    """SIGKILL at certain points of the code, and a line of metrics cut short."""
    ground = TrainingGround(folder, lag)
    assert ground.train("unbroken").wait() == 0
    killed = 0
    for number, point in enumerate(points):
        if number and number % 2 == 0:
            with (ground.root / "killed" / METRICS).open("a") as file:
                file.write('{"kind": "upd')  # as a kill in the midst of writing leaves it
        killed += ground.train("killed", point=point).wait() == -signal.SIGKILL
    status = ground.train("killed").wait()
    fault = f"the process of a training, SIGKILL while it plays, learns and writes, {killed} times"
    return ground.compared(fault, f"resume: {status}", "killed", in_order=lag == 0)


def trainer_killed(folder: Path) -> Outcome:
    """SIGKILL of the trainer's actor, once it has learned something."""
    ground = TrainingGround(folder)
    assert ground.train("unbroken").wait() == 0
    driver = ground.train("killed", "ray", point="Training.mark:1+", by=signal.SIGSTOP).halted()
    (trainer,) = driver.actors("TrainerActor")
    os.kill(trainer.pid, signal.SIGKILL)
    driver.signal(signal.SIGCONT)
    status, path = driver.wait(), Training(ground.root / "killed")
    assert "palaestra resume killed" in driver.said, driver.said
    ended = f"{status}, after {path.updates} updates; resume: {ground.train('killed').wait()}"
    return ground.compared("the trainer (a Ray actor), SIGKILL", ended, "killed")
