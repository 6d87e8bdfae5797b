"""One policy with what it learns by: its optimiser, how far it is, and the versions that its samples can come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents.engines.weights import weights_version
from agents.learning.checkpoint import write_directory
from agents.learning.distributed import Workers, number
from agents.learning.policies import Policy
from agents.learning.trainer_settings import PolicySettings, TrainerSettings
from envs.errors import ConfigError, clip


class Learner:
    """See the module. Changed by its trainer alone."""

    def __init__(self, name: str, policy: Policy, settings: PolicySettings, trainer: TrainerSettings, workers: Workers):
        self.name, self.policy = name, policy
        self.loss = settings.loss or trainer.loss
        self.steps = 0
        """Taken by this policy."""
        self.versions = [] if policy.start_version is None else [policy.start_version]
        """That its samples can come from, the oldest first."""
        self._past: list[str] = []
        """Versions that it had before it was taken back to an earlier state."""
        self._trainer, self._workers = trainer, workers
        self._rate = trainer.learning_rate if settings.learning_rate is None else settings.learning_rate
        self._exports = 0
        self._exported_at = -1
        """Its steps when it was exported last."""
        self._optimizer = torch.optim.AdamW(
            list(policy.parameters.values()),
            lr=self._rate,
            betas=(trainer.beta1, trainer.beta2),
            eps=trainer.epsilon,
            weight_decay=trainer.weight_decay,
        )

    @property
    def version(self) -> str:
        """The newest; empty before a new adapter's first export."""
        return self.versions[-1] if self.versions else ""

    def behind(self, version: str) -> int | None:
        """How many versions were exported after this one; None for one from before it was taken back."""
        return len(self.versions) - 1 - self.versions.index(version) if version in self.versions else None

    def accepted(self, lag: int) -> list[str]:
        """The versions that samples may come from now: none older than the lag allows. Where the ratio is to the frozen
        reference it does not matter how old they are, as long as they are its own (SPC learns from all rounds)."""
        return [*self._past, *self.versions] if self.loss.ratio_to == "reference" else self.versions[-1 - lag :]

    @property
    def vocabulary(self) -> int:
        return self.policy.live().config.get_text_config().vocab_size

    def clip(self) -> float:
        """Scale the gradients down to the limit. Returns their norm before."""
        limit = self._trainer.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters.values(), float("inf") if limit is None else limit)
        return number(norm)

    def forget(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad()

    def apply(self, share: float = 1.0) -> float:
        """Take a step along the gradients, with that share of the learning rate. Returns the rate that it took."""
        self.steps += 1
        rate = self._rate * share * min(1.0, self.steps / max(1, self._trainer.warmup_steps))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.forget()
        return rate

    def export(self, directory: Path) -> str:
        """See agents.learning.trainer.Trainer.export. Called by all workers."""
        write_directory(directory, self._workers, self.policy.write)
        if self._exported_at != self.steps:
            hashed = self._workers.first(lambda: weights_version(directory))
            self._exports += 1
            self._exported_at = self.steps
            self.versions.append(f"{self._exports}-{hashed}")
        return self.versions[-1]

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as plain values and tensors on the CPU. Called by all workers."""
        whole = self._workers.whole
        weights, moments = {}, {}
        for name, parameter in self.policy.parameters.items():
            weights[name] = whole(parameter)
            moments[name] = {key: whole(value) for key, value in self._optimizer.state[parameter].items()}
        return {
            "start": self.policy.start_version,
            "weights": weights,
            "moments": moments,
            "steps": self.steps,
            "versions": list(self.versions),
            "past": list(self._past),
            "exports": self._exports,
            "exported_at": self._exported_at,
        }

    def check(self, state: Mapping[str, Any]) -> None:
        """Raises ConfigError when a state is of another policy than this."""
        where = f"the checkpoint of policy {clip(self.name)}"
        if state["start"] != self.policy.start_version:
            raise ConfigError(
                f"{where}: expected one that started from version {self.policy.start_version}, found "
                f"{clip(state['start'])}; open the trainer with the model that it was started with"
            )
        have = {name: tuple(tensor.shape) for name, tensor in self.policy.parameters.items()}
        found = {name: tuple(tensor.shape) for name, tensor in state["weights"].items()}
        if odd := sorted(name for name in have.keys() | found.keys() if have.get(name) != found.get(name)):
            raise ConfigError(
                f"{where}: expected {odd[0]} of shape {have.get(odd[0])}, found {found.get(odd[0])}; open the trainer "
                "with the settings that it was started with"
            )

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that was checked. Called by all workers."""
        self.forget()
        self._optimizer.state.clear()
        for name, parameter in self.policy.parameters.items():
            self._workers.put(parameter, state["weights"][name])
            if moments := state["moments"][name]:
                self._optimizer.state[parameter] = {key: self._moment(parameter, one) for key, one in moments.items()}
        had = [*state.get("past", ()), *self._past, *self.versions]
        self.steps, self.versions = state["steps"], list(state["versions"])
        self._past = [version for version in dict.fromkeys(had) if version not in self.versions]
        # What this trainer exported since may have been published: its numbers are spent.
        newer = self._exports > state["exports"]
        self._exports = max(self._exports, state["exports"])
        self._exported_at = -1 if newer else state["exported_at"]

    def _moment(self, parameter: Tensor, value: Tensor) -> Tensor:
        """Of the optimiser: shared out like its parameter; its count of steps is a number, and stays on the CPU."""
        if value.shape != parameter.shape:
            return value.clone()
        moment = torch.empty_like(parameter)
        self._workers.put(moment, value)
        return moment
