"""Pseudo-labels: what many answers to one question settle on, how far they agree, and which questions to learn from.

For tasks whose true answer nobody knows. After R-Zero, Huang et al., arXiv:2508.05004, and Agent0, Xia et al.,
arXiv:2511.16043. Answers are counted under the env's own equivalence. Agreements are exact fractions: 3 of 10 is inside
a band that begins at 3/10, whatever 0.3 rounds to. A label lies in its task's details as JSON (`PseudoLabel.details`),
and comes back from there (`label_of`): no row loses its votes.

Departures from the released code: that drops a question when a comparison fails, and takes two answers with "no " in
them for the same; here the env alone says what is equivalent.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from envs.errors import ConfigError, clip, unknown
from envs.types import Env, Task
from graphs.aggregate import tally

Denominator = Literal["samples", "parsed"]
"""What an agreement is a share of: of all answers that were asked for, or of those that could be read."""
AGREEMENT, PSEUDO_LABEL = "agreement", "pseudo_label"
GATE = Fraction(1, 10)
_PROOF = re.compile(r"\b(prove|proof)\b|证明", re.IGNORECASE)


@dataclass(frozen=True)
class PseudoLabel:
    """The votes on one question."""

    votes: tuple[tuple[str, int], ...]
    """Answers, each as it was first said, and how often; the most frequent first, of equals the one seen first."""
    samples: int
    """Answers that were asked for, those included that could not be read."""
    of: Denominator = "samples"
    own_agrees: bool | None = None
    """Whether the answer of whoever wrote the question is the label; None where it was not compared."""

    def __post_init__(self) -> None:
        counts = [count for _, count in self.votes]
        if (
            not max(1, sum(counts)) <= self.samples
            or counts != sorted(counts, reverse=True)
            or min(counts, default=1) < 1
        ):
            raise ConfigError(
                f"pseudo-label: expected votes above 0, the most first, of at least one sample, found {clip(self)}"
            )

    @property
    def answer(self) -> str | None:
        """The label; None when no answer could be read."""
        return self.votes[0][0] if self.votes else None

    @property
    def parsed(self) -> int:
        return sum(count for _, count in self.votes)

    @property
    def agreement(self) -> Fraction:
        """Share of the votes for the label, 0 to 1; 0 without any."""
        if not self.votes:
            return Fraction(0)
        return Fraction(self.votes[0][1], self.samples if self.of == "samples" else self.parsed)

    @property
    def gated(self) -> Fraction:
        """The agreement, or 0 when the question's own answer is not the label, or hardly anybody's (Agent0's code).
        Raises ConfigError as `own_is_label`."""
        return self.agreement if self.own_is_label and self.agreement > GATE else Fraction(0)

    @property
    def own_is_label(self) -> bool:
        """Whether the question's own answer is the label. Raises ConfigError where that was not compared."""
        if self.own_agrees is None:
            raise ConfigError("pseudo-label: expected the question's own answer to be compared, found none; pass own=…")
        return self.own_agrees

    def details(self) -> dict[str, Any]:
        """For Task.details: the label, and its agreement as text, 2/5. JSON values."""
        return {AGREEMENT: str(self.agreement), PSEUDO_LABEL: _ADAPTER.dump_python(self, mode="json")}


_ADAPTER = TypeAdapter(PseudoLabel)


async def pseudo_label(
    env: Env, answers: Sequence[str | None], own: str | None = None, of: Denominator = "samples"
) -> PseudoLabel:
    """Count the votes on one question.

    Args:
        env: says which answers are equivalent.
        answers: k of them, None for one that could not be read. An episode that failed is no answer: leave it out.
        own: the answer of whoever wrote the question. It casts no vote.
        of: what the agreement is a share of.

    Raises:
        ConfigError: no answers at all.
    """
    said = [i for i, answer in enumerate(answers) if answer is not None and answer.strip()]
    asked = [answers[i] for i in said] + ([] if own is None else [own])
    found = await env.group(asked)  # pyright: ignore[reportArgumentType]
    groups: list[int | None] = [None] * len(answers)
    for i, group in zip(said, found, strict=False):
        groups[i] = said[group]
    return counted(answers, groups, None if own is None else said[found[-1]] if found[-1] < len(said) else -1, of)


def counted(
    answers: Sequence[str | None],
    groups: Sequence[int | None],
    own: int | None = None,
    of: Denominator = "samples",
) -> PseudoLabel:
    """The same where the env has grouped the answers before.

    Args:
        answers: see `pseudo_label`.
        groups: for each the place of the first that is equivalent to it; None for one that could not be read.
        own: that of the answer of whoever wrote the question, -1 for one that nobody else gave; None for none.
        of: see `pseudo_label`.
    """
    counts = sorted(tally([g for g in groups if g is not None]).items(), key=lambda item: -item[1])
    agrees = None if own is None else bool(counts) and own == counts[0][0]
    return PseudoLabel(tuple((str(answers[g]), int(n)) for g, n in counts), len(answers), of, agrees)


def label_of(task: Task) -> PseudoLabel:
    """What `PseudoLabel.details` stored. Raises ConfigError."""
    found = task.details.get(PSEUDO_LABEL)
    try:
        label = _ADAPTER.validate_python(found)
    except ValidationError:
        raise ConfigError(
            f"task {task.id}: expected details.{PSEUDO_LABEL} as PseudoLabel.details gives it, found {clip(found)}"
        ) from None
    if label.agreement != agreement_of(task):
        raise ConfigError(
            f"task {task.id}: expected details.{AGREEMENT} {label.agreement}, as its votes say, "
            f"found {task.details[AGREEMENT]}; store PseudoLabel.details as it is"
        )
    return label


def agreement_of(task: Task) -> Fraction:
    """The agreement that a task's details hold, as text (2/5) or as a number.

    Raises:
        ConfigError: none, or none from 0 to 1. There is no default: one would silently stand for every lost value.
    """
    found = task.details.get(AGREEMENT)
    try:
        share = Fraction(str(found))
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise ConfigError(
            f"task {task.id}: expected details.{AGREEMENT}, the share of the votes for its label, from 0 to 1, "
            f"found {clip(found)}; make its details with PseudoLabel.details"
        )
    return share


@dataclass(frozen=True)
class Band:
    """Agreements of questions that are neither too easy nor too hard; both ends belong to it."""

    low: Fraction
    high: Fraction

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ConfigError(f"band: expected 0 <= low <= high <= 1, found {self.low}..{self.high}")

    def __contains__(self, agreement: Fraction) -> bool:
        return self.low <= agreement <= self.high

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


BANDS: Mapping[str, Band] = {
    "released": Band(Fraction(3, 10), Fraction(4, 5)),
    "paper": Band(Fraction(1, 4), Fraction(3, 4)),
}
"""R-Zero's and Agent0's code; and Agent0's paper, at most 1/4 from 1/2. They differ: 4/5 is in the first alone."""


def parse_band(text: str) -> Band:
    """A band by name, or as `3/10..4/5` or `0.3..0.8`. Raises ConfigError."""
    if ".." not in text:
        if text not in BANDS:
            raise unknown("band", text, [*BANDS, "LOW..HIGH"])
        return BANDS[text]
    try:
        return Band(*map(Fraction, text.split("..")))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"band: expected two fractions, LOW..HIGH, found {clip(text)}") from None


def ungradable(question: str, answer: str) -> str | None:
    """Why a question is no use to a maths grader, as the released code has it: it asks for a proof, it speaks of a box
    (most likely that of the answer), or the answer holds `text`. None when it is of use.

    Departure: English words for a proof count too; the released code knows the Chinese one alone.
    """
    if _PROOF.search(question):
        return "it asks for a proof"
    if "box" in question.lower():
        return "it speaks of a box"
    return "its answer holds text" if "text" in answer.lower() else None


@dataclass(frozen=True)
class Filter:
    """Which questions are learned from."""

    band: Band = BANDS["released"]
    own_answer: bool = False
    """Only those whose own answer is the label."""
    gradable: bool = True
    """Only those that `ungradable` finds nothing against."""

    def why_not(self, question: str, label: PseudoLabel) -> str | None:
        """Why a question is left out, in words to be counted by; None when it is kept.

        Raises:
            ConfigError: own_answer is set, and the question's own answer was not compared.
        """
        if label.answer is None:
            return "no answer could be read"
        if self.gradable and (reason := ungradable(question, label.answer)):
            return reason
        if label.agreement not in self.band:
            return f"agreement outside {self.band}"
        return "its own answer is not the label" if self.own_answer and not label.own_is_label else None
