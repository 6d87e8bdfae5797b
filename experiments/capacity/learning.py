"""What learning takes: FLOPs and memory of a training plan's updates, by published rules.

A token costs 6 FLOPs a parameter, forward and backward (Kaplan et al., arXiv:2001.08361), and 4 where the weights are
frozen and an adapter learns; each forward pass beside it 2 more. AdamW in float32 holds 16 bytes a parameter
(Rajbhandari et al., arXiv:1910.02054), activations 34 bytes a token, layer and hidden unit, or 2 with checkpointing
(Korthikanti et al., arXiv:2205.05198, without the attention matrix, which is never held).
"""

from dataclasses import dataclass

from agents.learning.settings import LossSettings
from agents.learning.trainer_settings import TrainerSettings
from agents.simulation.hardware import Hardware, ModelSize
from envs.errors import ConfigError
from experiments.training.setup import Learner, TrainingPlan

MOST_GPUS = 64
_STATE, _FROZEN, _LOGITS = 16, 4, 8
"""Bytes: of a parameter that learns (weights, gradients, two moments), of one that does not, of a logit with its
gradient."""


@dataclass(frozen=True)
class Learning:
    """The updates of a training."""

    iterations: int
    tokens: float
    """That are learned from in an iteration, passes over them included; a mean."""
    flops: float
    """For each token and parameter."""
    state_bytes: float
    """For each parameter of the model."""
    micro_batch: int
    """Tokens that one GPU works on at a time."""
    checkpointing: bool
    together: bool
    """Whether it goes on while the next iteration is played."""

    def seconds(self, size: ModelSize, gpu: str, gpus: int, hardware: Hardware) -> float:
        """Of an iteration's update."""
        flops = self.flops * size.parameters * self.tokens
        return flops / (hardware.gpus[gpu].tflops * 1e12 * hardware.efficiency.mfu * gpus)

    def gpus(self, model: str, gpu: str, hardware: Hardware) -> int:
        """The fewest, doubling from 1, that hold it.

        Raises:
            ConfigError: more than MOST_GPUS.
        """
        size, room = hardware.models[model], hardware.efficiency.memory * hardware.gpus[gpu].memory_gb * 1e9
        gpus = 1
        while self._bytes(size, gpus) > room:
            gpus *= 2
            if gpus > MOST_GPUS:
                raise ConfigError(
                    f"training {model} on {gpu}: expected {room / 1e9:.0f} GB a GPU to do, found "
                    f"{self._bytes(size, MOST_GPUS) / 1e9:.0f} GB on each of {MOST_GPUS}; set policy.rank, "
                    "trainer.activation_checkpointing=true or a smaller trainer.max_tokens, or take a larger GPU"
                )
        return gpus

    def _bytes(self, size: ModelSize, gpus: int) -> float:
        activations = 2 * size.layers + 34 if self.checkpointing else 34 * size.layers
        a_token = size.hidden * activations + size.vocabulary * _LOGITS
        return self.state_bytes * size.parameters / gpus + self.micro_batch * a_token


def learning_of(plan: TrainingPlan, episode_tokens: float, pairs: bool) -> Learning:
    """What a training plan learns, if every turn of a role that learns is learned from.

    Args:
        plan: the training.
        episode_tokens: prompts and replies of an episode's calls of roles that learn.
        pairs: whether two replies are compared, each of which is read by the reference too.
    """
    schedule, trainer = plan.schedule, plan.trainer
    tokens = episode_tokens * schedule.tasks * schedule.samples * schedule.epochs
    if schedule.buffer:
        tokens *= (schedule.iterations + 1) / 2
    if schedule.mix_first:
        tokens *= 2
    adapters = all(learner.settings.is_adapter for learner in plan.learners)
    referred = pairs or any(_loss(learner, trainer).needs_reference for learner in plan.learners)
    flops = (4 if adapters else 6) + 2 * sum(
        (referred, trainer.recompute_old or trainer.watch_kl, trainer.activation_checkpointing)
    )
    # Adapters of one base are its reference when they are switched off; several whole policies are held beside another.
    whole = sum(not learner.settings.is_adapter for learner in plan.learners)
    state = _FROZEN if adapters else whole * (_STATE + _FROZEN * referred)
    return Learning(
        schedule.iterations, tokens, flops, state, trainer.max_tokens, trainer.activation_checkpointing,
        schedule.lag > 0,
    )  # fmt: skip


def _loss(learner: Learner, trainer: TrainerSettings) -> LossSettings:
    return learner.settings.loss or trainer.loss
