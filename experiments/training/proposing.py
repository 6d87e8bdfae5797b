"""What proposers are paid: for questions that solvers are split on and use tools for, and that are unlike others.

Agent0, Xia et al., arXiv:2511.16043, in two forms, the paper's and the released code's; and SOAR's grounded reward,
arXiv:2601.18778. A form gives terms, which a credit keeps apart (experiments.credit.Rewards); their sum is the reward.

Departure: the released code counts markers in the proposer's own text as uses of the tool. Here executed programs in
the solvers' episodes count, so that nothing is gained by writing a marker.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field

from agents.learning.settings import Share
from envs.errors import bind_settings, unknown


@dataclass(frozen=True)
class ProposerSettings:
    """Weights of the terms. Set on top of a form of `FORMS`."""

    form: Literal["paper", "released"] = "paper"
    uncertainty: Share = 1.0
    """Not published: 1."""
    tool: Share = 0.6
    per_call: Share = 1 / 12
    """Of the tool's term, for each executed call. Not published: with 0.6 this is the released 0.05; at 1 the term
    could be worth more than twice the uncertainty."""
    most_calls: Annotated[int, Field(ge=0)] = 4
    """More executed calls pay no more."""
    repetition: Share = 1.0
    """Of the cluster share. Not published: 1."""
    unparsed: Share = 1.0
    """What a reply without question and answer costs; of the released form alone."""


FORMS: Mapping[str, ProposerSettings] = {
    "paper": ProposerSettings(),
    "released": ProposerSettings("released", tool=1.0, per_call=0.05),
}


@dataclass(frozen=True)
class Terms:
    """A proposal's reward, by what it is made of."""

    uncertainty: float = 0.0
    tool: float = 0.0
    repetition: float = 0.0
    """0 or less."""
    format: float = 0.0
    """0 or less."""
    floor: float = 0.0
    """What lifts a sum below 0 to 0 (but for rounding); of the paper's form alone."""

    @property
    def total(self) -> float:
        return math.fsum(self.rewards().values())

    def rewards(self) -> dict[str, float]:
        """Name -> value, as a credit gives them to a turn."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def make_proposer_settings(form: str = "paper", changes: Mapping[str, Any] | None = None) -> ProposerSettings:
    """A form with some settings changed; text is converted to the setting's type.

    Raises:
        ConfigError: an unknown form or key (with the nearest valid one), a value that cannot be.
    """
    if form not in FORMS:
        raise unknown("form of the proposer's reward", form, FORMS)
    return replace(FORMS[form], **bind_settings(ProposerSettings, changes or {}, "the proposer's reward", ("form",)))


def uncertainty(agreement: Fraction | float) -> float:
    """The paper's: 1 where half of the answers agree, 0 where all or none do. Raises ValueError outside 0 to 1."""
    return float(1 - abs(2 * _within("an agreement", agreement, 1) - 1))


def released_uncertainty(agreement: Fraction | float) -> float:
    """The released code's: min(p, 1 - p), 0 to 1/2. Raises ValueError outside 0 to 1."""
    return float(min(_within("an agreement", agreement, 1), 1 - agreement))


def composite(
    settings: ProposerSettings, parsed: bool, agreement: Fraction | float, calls: float, share: float
) -> Terms:
    """The reward of one proposal.

    Paper: format · max(0, uncertainty + tool - repetition). Released: min(p, 1 - p), or -1 if unparsed, + tool -
    repetition; there p is 0 where the proposer's own answer is not the label (`PseudoLabel.gated`).

    Args:
        settings: form and weights.
        parsed: whether the reply holds a question and an answer.
        agreement: p, 0 to 1; of no account if unparsed.
        calls: executed calls of the tool, mean over the k solutions (graphs.tool_use.runs_of), 0 or more.
        share: of all proposals of the batch, those in this one's cluster (experiments.clusters), above 0 to 1.

    Raises:
        ValueError: a number outside of its range.
    """
    is_paper = settings.form == "paper"
    uncertain = uncertainty(agreement) if is_paper else released_uncertainty(agreement)
    tool = settings.tool * settings.per_call * min(_within("executed calls", calls, math.inf), settings.most_calls)
    repetition = -settings.repetition * _within("a cluster share", share, 1, above=True)
    if is_paper:
        if not parsed:
            return Terms()
        found = Terms(settings.uncertainty * uncertain, tool, repetition)
        return replace(found, floor=max(0.0, -found.total))
    if not parsed:
        return Terms(tool=tool, repetition=repetition, format=-settings.unparsed)
    return Terms(settings.uncertainty * uncertain, tool, repetition)


def grounded(before: float, after: Sequence[float]) -> float:
    """What students gained by what a teacher proposed: mean accuracy after learning from it, less that before; -1 to 1.

    Args:
        before: accuracy, 0 to 1, of the student on real tasks.
        after: of each of its copies that learned from the proposals, on the same tasks.

    Raises:
        ValueError: no copies, or an accuracy that is none.

    Source: SOAR, arXiv:2601.18778.
    """
    if not after:
        raise ValueError("expected the accuracy of one student or more after learning, found none")
    accuracies = [_within("an accuracy", accuracy, 1) for accuracy in (*after, before)]
    return math.fsum(accuracies[:-1]) / len(after) - before


def _within(name: str, value: Any, most: float, above: bool = False) -> Any:
    if not 0 <= value <= most or value == math.inf or (above and not value):
        raise ValueError(f"expected {name} {'above' if above else 'from'} 0 to {most:g}, found {value}")
    return value
