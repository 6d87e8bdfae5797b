"""Settings of the trainer: what it learns with, which policies it holds, where it runs. Plain data without torch.

Checked when they are made. Keys and values come from `--set trainer.KEY=VALUE` (`make_trainer_settings`) or Python.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from agents.learning.settings import LossSettings
from agents.serving import read_labels
from envs.errors import ConfigError, bind_settings

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TrainerError(RuntimeError):
    """The trainer could not do what it was asked; the message says why, and what its weights are now."""


class TrainerDiedError(TrainerError):
    """The trainer's process is gone, and what it had learned since the last save with it."""


@dataclass(frozen=True)
class TrainerSettings:
    """What holds for all policies of a trainer; each may have a learning rate and a loss of its own."""

    learning_rate: Rate = 1e-5
    """Of AdamW. Adapters want about ten times what full weights want."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """The rate rises in equal steps and is whole from this step of the policy on."""
    decay: bool = False
    """Whether the rate falls in equal steps towards 0 within each update: for those who learn from much in few."""
    weight_decay: Rate = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Positive = 1e-8
    max_grad_norm: Positive | None = 1.0
    """Gradients of a policy that are longer are scaled down to this; None leaves them."""
    max_tokens: Annotated[int, Field(ge=1)] = 8192
    """Tokens of a micro-batch, padding included: what memory bounds. The update does not depend on it."""
    lag: Annotated[int, Field(ge=0)] = 0
    """How many versions older than the newest export a sample may be."""
    recompute_old: bool = False
    """Compute the log-probabilities before an update here, in place of those that the engine gave."""
    watch_kl: bool = False
    """Measure the distance to the frozen reference also where the loss does not need it: one more forward pass."""
    watch_entropy: bool = True
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What is computed in; weights that learn are float32 always. auto: bfloat16 on CUDA, float32 on the CPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Of torch, on the CPU. Another number rounds sums otherwise."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third slower."""
    seed: int = 0
    """Of new adapters, and of the order of samples within an update."""
    loss: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self) -> None:
        _check(self, "the trainer")
        check_loss(self.loss, self.recompute_old)

    @property
    def computes_in(self) -> str:
        return self.dtype if self.dtype != "auto" else "bfloat16" if self.device == "cuda" else "float32"


@dataclass(frozen=True)
class PolicySettings:
    """One policy of a trainer: all weights of a model, or a LoRA adapter on a base that it shares with others."""

    model: str = "embedded"
    """embedded, hf:DIR or vllm:DIR: as the pool that serves it."""
    start: str = ""
    """Directory of the weights to start from where they are not the model's own; in PEFT's format it is an adapter.
    These first weights, frozen, are the policy's reference."""
    rank: Annotated[int, Field(ge=0)] = 0
    """Of a new LoRA adapter, which starts as the model itself; 0 for none."""
    alpha: Positive | None = None
    """Of a new adapter; None for twice the rank."""
    targets: tuple[str, ...] = ()
    """Names of the layers that a new adapter is put on; none for all linear layers but the last."""
    learning_rate: Rate | None = None
    """None for the trainer's, as for the loss."""
    loss: LossSettings | None = None

    def __post_init__(self) -> None:
        _check(self, "the policy")
        if self.start and not Path(self.start).is_dir():
            raise ConfigError(f"the policy: start: expected a directory of weights, found none at {self.start}")
        if self.rank and self._starts_as_adapter:
            raise ConfigError(
                f"the policy: {self.start} is an adapter and has a rank of its own, found rank {self.rank} too; "
                "leave rank out"
            )
        if not self.rank and (self.alpha is not None or self.targets):
            raise ConfigError("the policy: alpha and targets are those of a new adapter; set its rank too")

    @property
    def is_adapter(self) -> bool:
        return self.rank > 0 or self._starts_as_adapter

    @property
    def _starts_as_adapter(self) -> bool:
        return bool(self.start) and (Path(self.start) / "adapter_config.json").is_file()


@dataclass(frozen=True)
class Placement:
    """Where a trainer runs on Ray."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Processes that each hold a share of every weight (FSDP2)."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """A worker, fractions allowed; None takes one where the device is cuda."""
    cpus: Annotated[float, Field(ge=0)] = 1.0
    """A worker, where there are several; a trainer of one process reserves none."""
    resource: str | None = None
    """A resource of the Ray cluster of which each worker takes one unit, to place it on certain machines."""
    labels: str = ""
    """Labels of the machines that workers may be on, with commas between; as those of pools."""
    timeout_s: Positive = 600.0
    """Longest that workers wait for one another."""

    def __post_init__(self) -> None:
        _check(self, "the trainer's placement")
        read_labels(self.labels)


@dataclass(frozen=True)
class TrainerStatus:
    """How far a trainer is."""

    steps: int
    """Optimiser steps taken."""
    versions: Mapping[str, str]
    """Policy -> the version that it exported last, or started from; empty before a new adapter's first export."""


def make_trainer_settings(
    changes: Mapping[str, Any] | None = None, loss: LossSettings | None = None
) -> TrainerSettings:
    """Settings with some changed; text is converted to the setting's type.

    Raises:
        ConfigError: an unknown key (with the nearest valid one), a value that cannot be.
    """
    bound = bind_settings(TrainerSettings, changes or {}, "the trainer", given={"loss"})
    return TrainerSettings(**bound, loss=loss or LossSettings())


def check_loss(loss: LossSettings, recompute_old: bool) -> None:
    """Raises ConfigError where the loss needs what the trainer is not set to compute."""
    if loss.tis is not None and not recompute_old:
        raise ConfigError(
            "the loss: tis weighs the trainer's own log-probabilities, which it does not compute; set "
            "trainer.recompute_old=true, or leave tis out"
        )


def _check(settings: Any, where: str) -> None:
    bind_settings(type(settings), {f.name: getattr(settings, f.name) for f in fields(settings)}, where)
