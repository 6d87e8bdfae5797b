"""Settings of learning: the loss. Plain data, checked when read (`make_loss`); torch is not needed.

Keys and values come from `--set loss.KEY=VALUE` or from Python, on top of a preset that names a published update.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from envs.errors import ConfigError, bind_settings, unknown

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class LossSettings:
    """The switches of agents.learning.losses. Which advantages it is fed with is decided in experiments.credit."""

    ratio: Literal["token", "sequence"] = "token"
    """New to old probability: one a token, or one a reply (exp of its mean difference of log-probabilities)."""
    ratio_to: Literal["behaviour", "reference"] = "behaviour"
    """What the ratio is to: the policy before the update, or the frozen reference (SPC)."""
    clip_low: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Ratios are held above 1 - clip_low where that gains less."""
    clip_high: Share = 0.2
    """Ratios are held below 1 + clip_high, unless a sample brings its own."""
    kl: Literal["off", "k3"] = "off"
    """Penalty for leaving the frozen reference; k3 is exp(d) - d - 1 with d = log reference - log policy."""
    beta: Share = 0.01
    """Of that penalty."""
    tis: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Truncated importance sampling: each token weighs trainer's / engine's probability before the update, at most
    this. Needs the trainer's own (recompute_old)."""
    normalise: Literal["token", "sequence", "constant"] = "token"
    """Mean over all trained tokens; mean over replies of each one's token mean; or the sum over tokens, divided by the
    number of replies times `length`."""
    length: Annotated[int, Field(ge=1)] = 1
    """For `constant`; 1 is the plain sum over a reply's tokens."""
    sft_mix: Share = 1.0
    """Of the supervised samples' loss beside the others'. Each is normalised by itself."""
    pair_beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1
    """DPO's beta."""

    @property
    def needs_reference(self) -> bool:
        """Whether samples need the frozen reference's log-probabilities. Pairs always do."""
        return self.kl != "off" or self.ratio_to == "reference"

    def __post_init__(self) -> None:
        if self.ratio_to == "reference" and self.tis is not None:
            raise ConfigError(
                "the loss: expected tis only with ratio_to=behaviour, found ratio_to=reference; leave one of them out"
            )


PRESETS: Mapping[str, LossSettings] = {
    # Shao et al., arXiv:2402.03300, section 4.1 and its beta.
    "grpo": LossSettings(kl="k3", beta=0.04, normalise="sequence"),
    # Hu, arXiv:2501.03262. Departure: its KL is part of the reward, here of the loss.
    "reinforce++": LossSettings(kl="k3", beta=0.01, normalise="token"),
    # Ahmadian et al., arXiv:2402.14740: a reply is one action. Departure: clipped, and without KL in the reward.
    "rloo": LossSettings(normalise="constant", length=1),
    # Schulman et al., arXiv:1707.06347. Departure: no value network; advantages come from groups.
    "ppo": LossSettings(normalise="token"),
    # Agent0: scale and upper clip are the samples' own, from agents.learning.advantages.adapt.
    "adpo": LossSettings(kl="k3", beta=0.01, normalise="token"),
    # SPC: length-normalised ratio to the frozen first round, a supervised sample beside each other one.
    "spc": LossSettings(ratio="sequence", ratio_to="reference", normalise="sequence", sft_mix=0.15),
    "sft": LossSettings(normalise="token"),
    # Rafailov et al., arXiv:2305.18290.
    "dpo": LossSettings(pair_beta=0.1),
}


def make_loss(preset: str = "grpo", changes: Mapping[str, Any] | None = None) -> LossSettings:
    """A preset with some settings changed; text is converted to the setting's type.

    Raises:
        ConfigError: an unknown preset or key (with the nearest valid one), a value that cannot be.
    """
    if preset not in PRESETS:
        raise unknown("loss", preset, PRESETS)
    return replace(PRESETS[preset], **bind_settings(LossSettings, changes or {}, "the loss"))
